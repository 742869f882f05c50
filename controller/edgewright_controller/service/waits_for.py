"""What a rollout waits for, in words, and for how long. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from edgewright_controller.gates import LONGER
from edgewright_controller.rollout import MAX_GAP_S, DevicePhase, RolloutPhase, RolloutState, Window, window
from edgewright_controller.rollout.model import IN_FLIGHT
from edgewright_controller.span import span

# An opening within this needs no date.
_DAY_S: Final = 24 * 3600.0


@dataclass(frozen=True)
class Wait:
    """`words` are empty when it has ended. `seconds`: until it comes by itself; None when that is up to others."""

    words: str = ""
    seconds: float | None = None


def waits_for(state: RolloutState, now: float) -> Wait:
    """What comes next in a rollout at `now` (Unix seconds), and when, if nothing else happens."""
    if state.finished:
        return Wait()
    watched, policy = watched_at(state, now), state.spec.policy
    under_way = sum(state.counts[phase] for phase in IN_FLIGHT)
    if state.phase is RolloutPhase.REVERTING:
        back = under_way + state.counts[DevicePhase.REVERTING]
        return _answers(state, watched, f"{_devices(back)} to return to what {'it' if back == 1 else 'they'} had")
    if state.ending is not None:
        return _answers(state, watched, f"{_devices(under_way)} under way to end; no other gets it any more")
    if asked := _ASKED.get(state.phase):
        left = max(0.0, state.since + policy.patience_s - watched)
        return Wait(f"{asked} until {_moment(now + left)}; then it ends, and devices keep what they have", left)
    if not state.wave:
        return Wait("its start")
    opens = _opens(state, watched, now) if state.pending else None
    if under_way:
        answers = _answers(state, watched, f"{_devices(under_way)} to answer")
        return Wait(f"{answers.words}; {opens.words}", answers.seconds) if opens else answers
    if opens is not None:
        return opens
    if state.counts[DevicePhase.REVERTING]:
        return _answers(state, watched, f"{_devices(state.counts[DevicePhase.REVERTING])} to go back after a skip")
    return _watched(state, watched)


_ASKED: Final = {RolloutPhase.PAUSED: "resume", RolloutPhase.APPROVAL: "approval"}


def watched_at(state: RolloutState, now: float) -> float:
    """The rollout's own clock at `now`, as its next step will count it."""
    return state.clock.watched + min(max(0.0, now - state.clock.wall), MAX_GAP_S)


def _watched(state: RolloutState, watched: float) -> Wait:
    soak_s = state.gates[state.wave - 1].soak_s
    left = state.clock.concluded_at + soak_s - watched
    if left > 0:
        return Wait(f"wave {state.wave} to be watched for {span(left)} more", left)
    left += LONGER * soak_s
    if left > 0:
        worse = f"wave {state.wave}, which looks worse than before, to show it or not"
        return Wait(f"{worse}: {span(left)} more at most", left)
    return Wait(f"wave {state.wave} to be judged: not enough was seen of the release yet")


def _opens(state: RolloutState, watched: float, now: float) -> Wait:
    """When the next device that waits may be offered the release: in its window, and when it is its turn."""
    turn, opening = max(0.0, state.clock.next_offer_at - watched), state.pending.next_opening(now)
    waiting = f"wave {state.wave}: {_devices(len(state.pending))}"
    if opening is None:
        return Wait(f"{waiting} whose windows do not open")
    if opening - now <= turn:
        limit = state.spec.policy.devices_per_minute
        turns = f"{waiting} to be offered it" + (f", {limit} a minute" if limit else "")
        return Wait(turns, turn)
    device, zone = next(_opening_at(state, opening, now), ("", "UTC"))
    others = len(state.pending) - 1
    also = f"; {_devices(others)} more wait{'s' if others == 1 else ''} for a window or a turn" if others else ""
    return Wait(f"wave {state.wave} opens for {device} at {_local(opening, zone, now)}{also}", opening - now)


def _opening_at(state: RolloutState, opening: float, now: float) -> Iterator[tuple[str, str]]:
    """Devices of opened waves, and their time zones, whose window opens then."""
    opens: dict[tuple[tuple[Window, ...], str], bool] = {}
    for name in state.members[DevicePhase.WAITING]:
        target = state.targets[name]
        if state.waves[name] > state.wave or not target.windows:
            continue
        key = (target.windows, target.zone)
        if key not in opens:
            try:
                opens[key] = window.next_opening(*key, now) == opening
            except ZoneInfoNotFoundError:
                opens[key] = False
        if opens[key]:
            yield name, target.zone


def _local(unix: float, zone: str, now: float) -> str:
    """`01:00 Europe/Berlin`, with the day when that is not within a day."""
    shown = datetime.fromtimestamp(unix, ZoneInfo(zone))
    return f"{shown:%H:%M} {zone}" if unix - now < _DAY_S else f"{shown:%H:%M} {zone} on {shown:%Y-%m-%d}"


def _answers(state: RolloutState, watched: float, what: str) -> Wait:
    """`what`, and when the first of those that are waited for is called silent."""
    waiting = [name for phase in (*IN_FLIGHT, DevicePhase.REVERTING) for name in state.members[phase]]
    deadlines = [deadline for name in waiting if (deadline := state.devices[name].deadline) is not None]
    left = max(0.0, min(deadlines) - watched) if deadlines else None
    if left is None:
        return Wait(what)
    return Wait(f"{what}; {'it' if len(waiting) == 1 else 'the first'} is called silent in {span(left)}", left)


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"


def _moment(unix: float) -> str:
    """A moment of the controller's clock, to the minute."""
    try:
        return f"{datetime.fromtimestamp(unix, timezone.utc):%Y-%m-%d %H:%M} UTC"
    except (OverflowError, ValueError, OSError):  # a clock may show anything, a calendar not
        return "the end of its patience"
