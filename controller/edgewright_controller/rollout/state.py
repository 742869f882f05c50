"""What a rollout knows between two steps. Only `apply_changes` alters it, and at a cost of what changed.

Counts are kept, not recounted. Deadlines are a heap in which those that were overtaken by events stay until they come
to its top; who reads it compares each with what the device has now.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from edgewright_controller.gates import Activations, GatePolicy, HealthSamples
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
from edgewright_controller.rollout.pending import Pending

MARK_S: Final = 10.0
LATE_S: Final = 1.0


@dataclass
class RolloutState:
    """One rollout. `since`: `watched` when `phase` was entered. `halted`: see RolloutChange. `health`: the newest
    evidence since the controller started."""

    spec: RolloutSpec
    clock: RolloutClock
    phase: RolloutPhase = RolloutPhase.WAITING
    wave: int = 0
    ending: RolloutPhase | None = None
    reason: str = "not started"
    halted: int = 0
    since: float = 0.0
    devices: dict[str, DeviceChange] = field(default_factory=dict)
    targets: dict[str, RolloutTarget] = field(default_factory=dict)
    # In the order of the rollout: who is where, and in which wave.
    order: list[str] = field(default_factory=list)
    places: dict[str, int] = field(default_factory=dict)
    waves: dict[str, int] = field(default_factory=dict)
    # Devices by phase, without those that are not the rollout's any more; dicts, because they keep their order.
    members: dict[DevicePhase, dict[str, None]] = field(default_factory=dict)
    counts: dict[DevicePhase, int] = field(default_factory=dict)
    deadlines: list[tuple[float, str]] = field(default_factory=list)
    pending: Pending = field(default_factory=lambda: Pending(()))
    gates: tuple[GatePolicy, ...] = ()  # of each wave, with its time of watching
    health: HealthSamples = field(default_factory=HealthSamples)

    @property
    def finished(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.phase.final


def begin(spec: RolloutSpec, now: float) -> RolloutState:
    """A rollout that waits for Started. `now` in Unix seconds."""
    state = RolloutState(spec, RolloutClock(0.0, now))
    state.members = {phase: {} for phase in DevicePhase}
    state.counts = dict.fromkeys(DevicePhase, 0)
    for number, wave in enumerate(spec.waves, 1):
        for target in wave:
            state.places[target.device] = len(state.order)
            state.order.append(target.device)
            state.waves[target.device] = number
            state.targets[target.device] = target
            state.devices[target.device] = DeviceChange(target.device, DevicePhase.WAITING, target.generation)
            state.members[DevicePhase.WAITING][target.device] = None
            state.counts[DevicePhase.WAITING] += 1
    state.pending = Pending(list(state.targets.values()))
    numbers = range(1, len(spec.waves) + 1)
    state.gates = tuple(replace(spec.policy.gate, soak_s=spec.after_wave(number).soak_s) for number in numbers)
    return state


def restore(
    spec: RolloutSpec, clock: RolloutClock, rollout: RolloutChange, since: float, devices: Iterable[DeviceChange]
) -> RolloutState:
    """The rollout as it was when its last changes were stored. Devices that never changed may be left out.

    No time passes for it between the last stored change and the first step after this but MAX_GAP_S.
    """
    state = begin(spec, clock.wall)
    apply_changes(state, Changes(clock, tuple(devices), rollout))
    state.since = since
    return state


def apply_changes(state: RolloutState, changes: Changes) -> None:
    """Alter `state` by what a step of it returned; after that has been stored."""
    if changes.clock is None:
        return
    state.clock = changes.clock
    if changes.health is not None:
        state.health = changes.health
    for change in changes.devices:
        _apply_device(state, change)
    if changes.rollout is not None:
        if changes.rollout.phase is not state.phase:
            state.since = state.clock.watched
        for wave in state.spec.waves[state.wave : changes.rollout.wave]:
            for target in wave:
                if _waits(state.devices[target.device]):
                    state.pending.add(state.places[target.device])
        state.phase, state.wave = changes.rollout.phase, changes.rollout.wave
        state.ending, state.reason = changes.rollout.ending, changes.rollout.reason
        state.halted = changes.rollout.halted
    while state.deadlines and not _expected(state, *state.deadlines[0]):
        heapq.heappop(state.deadlines)


def _apply_device(state: RolloutState, change: DeviceChange) -> None:
    before = state.devices[change.device]
    if _waits(before) != _waits(change) and state.waves[change.device] <= state.wave:
        if _waits(change):
            state.pending.add(state.places[change.device])
        else:
            state.pending.drop(state.places[change.device])
    state.members[before.phase].pop(change.device, None)
    if not change.detached:
        state.members[change.phase][change.device] = None
    state.counts[before.phase] -= 1
    state.counts[change.phase] += 1
    state.devices[change.device] = change
    if change.deadline is not None and change.deadline != before.deadline:
        heapq.heappush(state.deadlines, (change.deadline, change.device))


def _waits(device: DeviceChange) -> bool:
    return device.phase is DevicePhase.WAITING and not device.detached


def _expected(state: RolloutState, deadline: float, device: str) -> bool:
    return state.devices[device].deadline == deadline


def overdue(state: RolloutState, watched: float) -> list[str]:
    """The devices whose deadline has passed at `watched`, the longest past first; at a cost of how many those are."""
    found: set[tuple[float, int]] = set()
    nodes = [0]
    while nodes:
        node = nodes.pop()
        if node < len(state.deadlines) and state.deadlines[node][0] <= watched:
            deadline, device = state.deadlines[node]
            if _expected(state, deadline, device):
                found.add((deadline, state.places[device]))
            nodes += (2 * node + 1, 2 * node + 2)
    return [state.order[place] for _, place in sorted(found)]


def seconds_until_due(state: RolloutState, now: float) -> float | None:
    """In how many seconds the next Tick is worth its cost; at most MARK_S. None when it has ended."""
    if state.finished:
        return None
    watched = state.clock.watched + min(max(0.0, now - state.clock.wall), MARK_S)
    due = state.deadlines[0][0] if state.deadlines else watched + MARK_S
    if state.phase is RolloutPhase.WAITING and state.wave:
        watched_until = state.clock.concluded_at + state.spec.after_wave(state.wave).soak_s
        # Past that, the gate may wait for health, of which it hears by itself.
        due = min(due, watched_until if watched_until >= state.clock.watched else watched + LATE_S)
    if state.phase is RolloutPhase.RUNNING and state.pending:
        opening = state.pending.next_opening(now)
        if opening is not None:
            due = min(due, max(state.clock.next_offer_at, watched + opening - now))
    return min(max(0.0, due - watched), MARK_S)


def activations(counts: dict[DevicePhase, int], last_at: float, to_come: int = 0) -> Activations:
    """What the gate judges: how the release ended on the devices that were offered it. `to_come` of the opened waves
    are still to be offered it."""
    return Activations(
        succeeded=counts[DevicePhase.SUCCEEDED],
        failed=counts[DevicePhase.FAILED],
        silent=counts[DevicePhase.TIMED_OUT],
        under_way=counts[DevicePhase.OFFERED] + counts[DevicePhase.UPDATING],
        last_at=last_at,
        to_come=to_come,
    )
