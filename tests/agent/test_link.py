"""What the line to the controller says when it is down."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from edgewright_agent.link import Credentials, Link, LinkDown
from edgewright_contract.v1 import agent_pb2
from tests.agent.throwaway_ca import ThrowawayCa

NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize(("ends_in", "told"), [(timedelta(days=1), False), (timedelta(days=-1), True)])
def test_a_device_whose_certificate_has_ended_says_that_this_may_be_why(
    tmp_path: Path, ends_in: timedelta, told: bool
) -> None:
    leaf = ThrowawayCa(tmp_path).device("jetson-01")
    link = Link(NOBODY, Credentials(leaf.key, leaf.certificate, leaf.ca, datetime.now(timezone.utc) + ends_in))
    with pytest.raises(LinkDown) as caught:
        link.check_in(agent_pb2.CheckInRequest())
    link.close()
    assert f"controller {NOBODY}: check-in: unavailable" in str(caught.value)
    assert ("certificate ended on" in str(caught.value)) is told
    assert ("edgewright enroll create" in str(caught.value)) is told
