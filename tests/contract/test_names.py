"""Names: ids, topics and SAN URIs cannot be taken for one another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_contract import names


@pytest.mark.parametrize("text", ["jetson-01", "a", "0", "a" * 63])
def test_ids(text: str) -> None:
    assert names.is_id(text)


@pytest.mark.parametrize(
    "text", ["", "-a", "A", "a" * 64, "a_b", "a.b", "operator.admin", "a/b", "a+", "#", "a\n", "ä", "a b"]
)
def test_what_is_not_an_id(text: str) -> None:
    assert not names.is_id(text)


def test_services_and_operators_can_never_be_devices() -> None:
    assert not names.is_id(names.CONTROLLER_CN)
    assert not names.is_id(names.OPERATOR_PREFIX + "admin")


def test_uris_and_topics_come_back() -> None:
    assert names.parse_device_uri(names.device_uri("demo", "mac-01")) == ("demo", "mac-01")
    for leaf in names.UP_LEAVES:
        assert names.parse_up_topic(names.up_topic("mac-01", leaf)) == ("mac-01", leaf)
    with pytest.raises(ValueError, match="no up topic"):
        names.up_topic("mac-01", "shout")


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "edgewright/v1/mac-01/down/hint",
        "edgewright/v1/mac-01/up/shout",
        "edgewright/v2/mac-01/up/state",
        "edgewright/v1/+/up/state",
        "edgewright/v1/mac-01/up/state/x",
        "edgewright/v1/service.controller-1/up/state",
    ],
)
def test_other_topics_are_not_up_topics(topic: str) -> None:
    assert names.parse_up_topic(topic) is None


@given(st.text(max_size=80))
def test_no_text_makes_a_uri_of_two_meanings(text: str) -> None:
    parsed = names.parse_device_uri(text)
    assert parsed is None or names.device_uri(*parsed) == text
