"""A window of telemetry says whether one version served all of it."""

from __future__ import annotations

from dataclasses import replace

from edgewright_agent.lifecycle_state import Lifecycle, Step
from edgewright_agent.telemetry import serves, unsettled

IDLE = Lifecycle(generation=7, active="a" * 64)


def test_a_window_is_settled_when_the_same_version_served_at_each_moment_of_it() -> None:
    assert not unsettled(serves(IDLE), serves(IDLE), serves(IDLE))


def test_a_window_with_an_update_in_it_or_after_one_is_not() -> None:
    updating = replace(IDLE, generation=8, step=Step.DOWNLOADING)
    updated = replace(IDLE, generation=8, active="b" * 64)
    assert unsettled(serves(IDLE), serves(updating), serves(updating))
    assert unsettled(serves(IDLE), serves(updated), serves(updated))
    assert unsettled(serves(updating), serves(updated))
    back = replace(IDLE, generation=9)
    assert unsettled(serves(IDLE), serves(back)), "another version may have served in between"
