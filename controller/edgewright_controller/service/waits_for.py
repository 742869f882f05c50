"""What a rollout waits for, in words, and for how long. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone

from edgewright_controller.rollout import MAX_GAP_S, DevicePhase, RolloutPhase, RolloutState
from edgewright_controller.rollout.model import IN_FLIGHT


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
    if state.phase is RolloutPhase.PAUSED:
        left = max(0.0, state.since + policy.patience_s - watched)
        return Wait(f"resume until {_moment(now + left)}; then it ends, and devices keep what they have", left)
    if not state.wave:
        return Wait("its start")
    if under_way:
        return _answers(state, watched, f"{_devices(under_way)} to answer")
    left = max(0.0, state.clock.concluded_at + policy.gate.soak_s - watched)
    return Wait(f"wave {state.wave} to be watched for {span(left)} more", left)


def watched_at(state: RolloutState, now: float) -> float:
    """The rollout's own clock at `now`, as its next step will count it."""
    return state.clock.watched + min(max(0.0, now - state.clock.wall), MAX_GAP_S)


def span(seconds: float) -> str:
    """A number of seconds in one unit, or in two where the second one says something: "45 s", "12 min", "1 h 30 min".
    Rounded up, so that nothing is said to be over before it is."""
    whole = -int(-seconds // 1)
    if whole < 100:
        return f"{whole} s"
    minutes = -(-whole // 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours + bool(minutes), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


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
    return f"{datetime.fromtimestamp(unix, timezone.utc):%Y-%m-%d %H:%M} UTC"
