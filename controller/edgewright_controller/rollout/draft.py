"""A rollout's state with what one step has changed so far laid over it. The state itself stays as it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from edgewright_controller.gates import HealthSamples, Samples
from edgewright_controller.rollout.model import (
    DOWNLOAD_PAUSED,
    DOWNLOADING,
    IN_FLIGHT,
    Action,
    Changes,
    DeviceChange,
    DevicePhase,
    Hint,
    LiftHold,
    RolloutChange,
    RolloutClock,
    RolloutPhase,
    SetDesired,
)
from edgewright_controller.rollout.state import MARK_S, RolloutState, activations
from edgewright_controller.rollout.table import DeviceMove, Move, device_moved, moved

MAX_GAP_S: Final = 60.0

_ENDED_BY: Final = (DeviceMove.SUCCEED, DeviceMove.FAIL, DeviceMove.FALL_SILENT)


class Draft:
    """One step's changes and actions, as they come to be."""

    def __init__(self, state: RolloutState, now: float):
        self.state, self.spec, self.now = state, state.spec, now
        self.watched = state.clock.watched + min(max(0.0, now - state.clock.wall), MAX_GAP_S)
        self.counts = dict(state.counts)
        self.concluded_at = state.clock.concluded_at
        self.offered_at, self.next_offer_at = state.clock.offered_at, state.clock.next_offer_at
        self.devices: dict[str, DeviceChange] = {}
        self.was = self.rollout = RolloutChange(state.phase, state.wave, state.ending, state.reason, state.halted)
        self.actions: list[Action] = []
        self.health: HealthSamples | None = None  # when it came with this step
        self.pending = len(state.pending)  # devices of opened waves that wait for their offer
        self.come: set[int] = set()  # places of those that were not among them before this step

    def device(self, device: str) -> DeviceChange:
        """Where it stands."""
        return self.devices.get(device) or self.state.devices[device]

    def attached(self, *phases: DevicePhase) -> list[str]:
        """Devices in these phases that are still this rollout's, in the order of the rollout."""
        known = [device for phase in phases for device in self.state.members[phase]]
        come = [device for device in self.devices if self.state.devices[device].phase not in phases]
        found = [
            device
            for device in known + come
            if self.device(device).phase in phases and not self.device(device).detached
        ]
        return sorted(found, key=self.state.places.__getitem__)

    @property
    def untouched(self) -> bool:
        """Whether nothing has changed but the time."""
        return not self.devices and self.rollout is self.was and self.health is None

    @property
    def in_flight(self) -> int:
        """How many have an offer and have not ended."""
        return self.counts[DevicePhase.OFFERED] + self.counts[DevicePhase.UPDATING]

    @property
    def samples(self) -> Samples:
        """What the gate judges."""
        return Samples(activations(self.counts, self.concluded_at, self.pending), self.health or self.state.health)

    def move_device(self, device: str, move: DeviceMove, reason: str, *, again: bool = False) -> None:
        """Let a move of the table happen to it. `again`: it failed, and will try again by itself."""
        before = self.device(device)
        phase = device_moved(device, before.phase, move)
        self.counts[before.phase] -= 1
        self.counts[phase] += 1
        if move in _ENDED_BY and before.phase in IN_FLIGHT:
            self.concluded_at = self.watched
        if self.state.waves[device] <= self.rollout.wave:
            if before.phase is DevicePhase.WAITING:
                self.pending -= 1
            elif phase is DevicePhase.WAITING:
                self.pending += 1
                self.come.add(self.state.places[device])
        deadline, until = (before.deadline, before.until) if move is DeviceMove.BEGIN else (None, None)
        self.devices[device] = DeviceChange(
            device,
            phase,
            before.generation,
            deadline,
            before.detached,
            reason,
            before.step,
            until,
            before.offer_stands,
            again,
        )

    def hear_step(self, device: str, step: str, within_s: float | None, reason: str) -> None:
        """It has come to a step of its update, for which it has `within_s`, and never more than for the whole."""
        before = self.device(device)
        deadline = before.until
        if within_s is not None and deadline is not None:
            if step in (DOWNLOADING, DOWNLOAD_PAUSED):
                within_s = self.state.targets[device].lasts_s(self.now, within_s)
            deadline = min(deadline, self.watched + within_s)
        self.devices[device] = replace(before, step=step, deadline=deadline, reason=reason)

    def offer(self, device: str) -> None:
        """Offer it the release, and expect its answer."""
        target, wave = self.state.targets[device], self.state.waves[device]
        # It had an offer before: what failed there is held there, until somebody says that it may be tried again.
        if target.release is not None and self.device(device).generation > target.generation:
            self.actions.append(LiftHold(device, target.release))
        self.move_device(device, DeviceMove.OFFER, "")
        reason = f"rollout {self.spec.id}, wave {wave} of {len(self.spec.waves)}"
        self._give(device, target.release, reason, offer=True, expect=True)

    def take_back(self, device: str, reason: str) -> None:
        """Let it go back to what it had, and expect its answer."""
        self.move_device(device, DeviceMove.TAKE_BACK, reason)
        previous = self.state.targets[device].previous
        self._give(device, previous, f"rollout {self.spec.id}: {reason}", offer=False, expect=True)

    def withdraw(self, device: str, reason: str) -> None:
        """Take the offer back, if it still stands, from a device that nobody waits for: it may come back any time."""
        if self.device(device).offer_stands:
            previous = self.state.targets[device].previous
            self._give(device, previous, f"rollout {self.spec.id}: {reason}", offer=False, expect=False)

    def leave(self, device: str, reason: str) -> None:
        """Let it go without the release."""
        self.move_device(device, DeviceMove.LEAVE, reason)
        self.withdraw(device, reason)

    def fall_silent(self, device: str, reason: str) -> None:
        """Nobody waits for it any longer. The offer stands for its return; but a device that may be updated in its
        windows only must not find it at noon."""
        under_way = self.device(device).phase in IN_FLIGHT
        self.move_device(device, DeviceMove.FALL_SILENT, reason)
        if under_way and self.state.targets[device].windows:
            self.withdraw(device, reason)

    def _give(self, device: str, release: str | None, reason: str, *, offer: bool, expect: bool) -> None:
        before = self.device(device)
        deadline = until = None
        if expect:
            policy, target = self.spec.policy, self.state.targets[device]
            until = self.watched + target.lasts_s(self.now, policy.device_deadline_s)
            check_in_s = policy.step_deadlines_s.get("check_in")
            deadline = until if check_in_s is None else min(until, self.watched + check_in_s)
        generation = before.generation + 1
        self.devices[device] = DeviceChange(
            device, before.phase, generation, deadline, before.detached, before.reason, "", until, offer
        )
        self.actions += [SetDesired(device, release, generation, reason), Hint(device, generation)]

    def open_wave(self, number: int) -> None:
        """The devices of this wave wait for their offer from now on."""
        for target in self.spec.waves[number - 1]:
            device = self.device(target.device)
            if device.phase is DevicePhase.WAITING and not device.detached:
                self.pending += 1
                self.come.add(self.state.places[target.device])
        self.move(Move.OPEN, f"wave {number} of {len(self.spec.waves)}", wave=number)

    def in_turn(self) -> Iterator[str]:
        """The devices that may be offered something now, as far as their windows go, in order. To be taken whole."""
        for place in self.state.pending.in_turn(self.now, self.come):
            device = self.state.order[place]
            if self.device(device).phase is DevicePhase.WAITING and not self.device(device).detached:
                yield device

    def move(self, move: Move, reason: str, **also: Any) -> None:
        """Let a move of the table happen to the rollout; `also`: other fields of RolloutChange."""
        phase = moved(self.spec.id, self.rollout.phase, move)
        self.rollout = replace(self.rollout, phase=phase, reason=reason, **also)

    def changes(self, *, ticked: bool) -> Changes:
        """All that is to be stored."""
        rollout = self.rollout if self.rollout != self.was else None
        if self.untouched:
            # Time alone is worth storing now and then, or when the clock was set back.
            passed = self.now - self.state.clock.wall
            if not ticked or 0 <= passed < MARK_S or self.state.finished:
                return Changes()
        clock = RolloutClock(self.watched, self.now, self.concluded_at, self.offered_at, self.next_offer_at)
        return Changes(clock, tuple(self.devices.values()), rollout, self.health)

    @property
    def stopped(self) -> bool:
        """Whether it is decided how it ends."""
        return self.rollout.ending is not None or self.rollout.phase is RolloutPhase.REVERTING
