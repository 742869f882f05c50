"""What a rollout knows between two steps. Only `apply_changes` alters it, and at a cost of what changed.

Counts are kept, not recounted. Every deadline is the time of its setting plus the same number of seconds, so they fall
due in the order in which they were set, and a queue does what a heap would.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from edgewright_controller.gates import Activations
from edgewright_controller.rollout.model import (
    Changes,
    DeviceChange,
    DevicePhase,
    RolloutChange,
    RolloutClock,
    RolloutPhase,
    RolloutSpec,
    RolloutTarget,
)

MARK_S: Final = 10.0


@dataclass
class RolloutState:
    """One rollout. `since`: `watched` when `phase` was entered."""

    spec: RolloutSpec
    clock: RolloutClock
    phase: RolloutPhase = RolloutPhase.WAITING
    wave: int = 0
    ending: RolloutPhase | None = None
    reason: str = "not started"
    since: float = 0.0
    devices: dict[str, DeviceChange] = field(default_factory=dict)
    targets: dict[str, RolloutTarget] = field(default_factory=dict)
    # Devices by phase, without those that another rollout has taken over; dicts, because they keep their order.
    members: dict[DevicePhase, dict[str, None]] = field(default_factory=dict)
    counts: dict[DevicePhase, int] = field(default_factory=dict)
    deadlines: deque[tuple[float, str]] = field(default_factory=deque)

    @property
    def finished(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.phase.final


def begin(spec: RolloutSpec, now: float) -> RolloutState:
    """A rollout that waits for Started. `now` in Unix seconds."""
    state = RolloutState(spec, RolloutClock(0.0, now))
    state.members = {phase: {} for phase in DevicePhase}
    state.counts = dict.fromkeys(DevicePhase, 0)
    for wave in spec.waves:
        for target in wave:
            state.targets[target.device] = target
            state.devices[target.device] = DeviceChange(target.device, DevicePhase.WAITING, target.generation)
            state.members[DevicePhase.WAITING][target.device] = None
            state.counts[DevicePhase.WAITING] += 1
    return state


def restore(
    spec: RolloutSpec, clock: RolloutClock, rollout: RolloutChange, since: float, devices: Iterable[DeviceChange]
) -> RolloutState:
    """The rollout as it was when its last changes were stored. Devices that never changed may be left out.

    No time passes for it between the last stored change and the first step after this but MAX_GAP_S.
    """
    state = begin(spec, clock.wall)
    in_order = sorted(devices, key=lambda device: device.deadline or 0.0)
    apply_changes(state, Changes(clock, tuple(in_order), rollout))
    state.since = since
    return state


def apply_changes(state: RolloutState, changes: Changes) -> None:
    """Alter `state` by what a step of it returned; after that has been stored."""
    if changes.clock is None:
        return
    state.clock = changes.clock
    for change in changes.devices:
        _apply_device(state, change)
    if changes.rollout is not None:
        if changes.rollout.phase is not state.phase:
            state.since = state.clock.watched
        state.phase, state.wave = changes.rollout.phase, changes.rollout.wave
        state.ending, state.reason = changes.rollout.ending, changes.rollout.reason
    while state.deadlines and not _expected(state, *state.deadlines[0]):
        state.deadlines.popleft()


def _apply_device(state: RolloutState, change: DeviceChange) -> None:
    before = state.devices[change.device]
    state.members[before.phase].pop(change.device, None)
    if not change.detached:
        state.members[change.phase][change.device] = None
    state.counts[before.phase] -= 1
    state.counts[change.phase] += 1
    state.devices[change.device] = change
    if change.deadline is not None and change.deadline != before.deadline:
        state.deadlines.append((change.deadline, change.device))


def _expected(state: RolloutState, deadline: float, device: str) -> bool:
    return state.devices[device].deadline == deadline


def seconds_until_due(state: RolloutState, now: float) -> float | None:
    """In how many seconds the next Tick is worth its cost; at most MARK_S. None when it has ended."""
    if state.finished:
        return None
    watched = state.clock.watched + min(max(0.0, now - state.clock.wall), MARK_S)
    due = state.deadlines[0][0] if state.deadlines else watched + MARK_S
    if state.phase is RolloutPhase.WAITING and state.wave:
        due = min(due, state.clock.concluded_at + state.spec.policy.gate.soak_s)
    return min(max(0.0, due - watched), MARK_S)


def activations(counts: dict[DevicePhase, int], last_at: float) -> Activations:
    """What the gate judges: how the release ended on the devices that were offered it."""
    return Activations(
        succeeded=counts[DevicePhase.SUCCEEDED],
        failed=counts[DevicePhase.FAILED],
        silent=counts[DevicePhase.TIMED_OUT],
        under_way=counts[DevicePhase.OFFERED] + counts[DevicePhase.UPDATING],
        last_at=last_at,
    )
