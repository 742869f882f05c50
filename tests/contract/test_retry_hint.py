"""When to ask again, as it stands in trailing metadata."""

from __future__ import annotations

import pytest

from edgewright_contract import retry_hint


@pytest.mark.parametrize("seconds", [0.1, 0.5, 1.234, 600.0])
def test_a_hint_says_what_was_put_into_it(seconds: float) -> None:
    assert retry_hint.decoded(retry_hint.encoded(seconds)) == seconds


def test_a_hint_is_bounded_in_both_directions() -> None:
    assert retry_hint.decoded("0") == retry_hint.SHORTEST_S
    assert retry_hint.decoded(str(10**12 - 1)) == retry_hint.LONGEST_S


@pytest.mark.parametrize("value", [None, "", "-1", "soon", "1.5", " 7", "7 ", "1e3", "९", "9" * 13, b"\xff", "0x10"])
def test_what_is_no_hint_says_nothing(value: str | bytes | None) -> None:
    assert retry_hint.decoded(value) is None
