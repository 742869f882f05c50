"""One step of a rollout: an event goes in, changes and actions come out, and nothing else happens.

`step` alters nothing. Its caller stores the changes with the SetDesired actions in one transaction, applies them to
the state, and then acts on the rest. A step costs what it changes, never what the rollout holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from edgewright_controller.gates import Ruling, Samples, judge
from edgewright_controller.rollout.model import (
    IN_FLIGHT,
    UNSETTLED,
    Aborted,
    Action,
    Actions,
    Changes,
    DeviceChange,
    DevicePhase,
    DeviceReported,
    Event,
    Finish,
    Hint,
    OnFailure,
    Outcome,
    Paused,
    Resumed,
    RolloutChange,
    RolloutClock,
    RolloutError,
    RolloutPhase,
    SetDesired,
    Silenced,
    Started,
    Superseded,
    Tick,
)
from edgewright_controller.rollout.state import MARK_S, RolloutState, activations
from edgewright_controller.rollout.table import END_MOVES, DeviceMove, Move, device_moved, moved

MAX_GAP_S: Final = 60.0


def step(state: RolloutState, event: Event, now: float) -> tuple[Changes, Actions]:
    """What `event` at `now` (Unix seconds) changes, and what is to be done about it.

    Raises RolloutError for a command that is not possible here (Started, Paused, Resumed, Aborted); reports, ticks,
    Silenced and Superseded are never refused, but may change nothing.
    """
    draft = _Draft(state, now)
    _HANDLERS[type(event)](draft, event)
    _settle(draft)
    return draft.changes(ticked=isinstance(event, Tick)), tuple(draft.actions)


class _Draft:
    """The state with what this step has changed so far laid over it."""

    def __init__(self, state: RolloutState, now: float):
        self.state, self.spec, self.now = state, state.spec, now
        self.watched = state.clock.watched + min(max(0.0, now - state.clock.wall), MAX_GAP_S)
        self.counts = dict(state.counts)
        self.concluded_at = state.clock.concluded_at
        self.devices: dict[str, DeviceChange] = {}
        self.was = self.rollout = RolloutChange(state.phase, state.wave, state.ending, state.reason)
        self.actions: list[Action] = []

    def device(self, device: str) -> DeviceChange:
        return self.devices.get(device) or self.state.devices[device]

    def attached(self, *phases: DevicePhase) -> list[str]:
        """Devices in these phases that are still this rollout's."""
        known = [device for phase in phases for device in self.state.members[phase]]
        come = [device for device in self.devices if self.state.devices[device].phase not in phases]
        return [
            device
            for device in known + come
            if self.device(device).phase in phases and not self.device(device).detached
        ]

    def move_device(self, device: str, move: DeviceMove, reason: str) -> None:
        before = self.device(device)
        phase = device_moved(device, before.phase, move)
        self.counts[before.phase] -= 1
        self.counts[phase] += 1
        if move in (DeviceMove.SUCCEED, DeviceMove.FAIL, DeviceMove.FALL_SILENT):
            self.concluded_at = self.watched
        deadline = before.deadline if move is DeviceMove.BEGIN else None
        self.devices[device] = DeviceChange(device, phase, before.generation, deadline, before.detached, reason)

    def give(self, device: str, release: str | None, reason: str, *, expect: bool) -> None:
        """Set what `device` shall have, and expect its answer by the deadline if somebody waits for it."""
        before = self.device(device)
        deadline = self.watched + self.spec.policy.device_deadline_s if expect else None
        generation = before.generation + 1
        self.devices[device] = DeviceChange(device, before.phase, generation, deadline, before.detached, before.reason)
        self.actions += [SetDesired(device, release, generation, reason), Hint(device, generation)]

    def move(self, move: Move, reason: str, **also: Any) -> None:
        phase = moved(self.spec.id, self.rollout.phase, move)
        self.rollout = replace(self.rollout, phase=phase, reason=reason, **also)

    def changes(self, *, ticked: bool) -> Changes:
        rollout = self.rollout if self.rollout != self.was else None
        if not self.devices and rollout is None:
            # Time alone is worth storing now and then, or when the clock was set back.
            passed = self.now - self.state.clock.wall
            if not ticked or 0 <= passed < MARK_S or self.state.finished:
                return Changes()
        return Changes(RolloutClock(self.watched, self.now, self.concluded_at), tuple(self.devices.values()), rollout)


# ── What each event means ──


def _started(draft: _Draft, _event: Started) -> None:
    if draft.rollout.wave or draft.rollout.phase is not RolloutPhase.WAITING:
        raise RolloutError(f"rollout {draft.spec.id} has started already; it is {draft.rollout.phase.value}")
    _open_next_wave(draft)


def _reported(draft: _Draft, event: DeviceReported) -> None:
    if draft.rollout.phase.final or event.device not in draft.state.devices:
        return
    device = draft.device(event.device)
    if event.generation != device.generation or device.detached:
        return
    said = event.reason or event.step
    if device.phase in (*IN_FLIGHT, DevicePhase.REVERTING):
        if event.outcome is Outcome.SUCCEEDED:
            draft.move_device(event.device, DeviceMove.SUCCEED, said)
        elif event.outcome is Outcome.FAILED:
            draft.move_device(event.device, DeviceMove.FAIL, said)
        elif device.phase is DevicePhase.OFFERED:
            draft.move_device(event.device, DeviceMove.BEGIN, said)


def _silenced(draft: _Draft, event: Silenced) -> None:
    if draft.rollout.phase.final or event.device not in draft.state.devices:
        return
    device = draft.device(event.device)
    if not device.detached and device.phase in (*IN_FLIGHT, DevicePhase.REVERTING):
        draft.move_device(event.device, DeviceMove.FALL_SILENT, event.reason)


def _ticked(draft: _Draft, _event: Tick) -> None:
    if draft.rollout.phase.final:
        return
    policy = draft.spec.policy
    for deadline, name in draft.state.deadlines:
        if deadline > draft.watched:
            break
        if draft.state.devices[name].deadline == deadline and name not in draft.devices:
            reason = f"no answer within {policy.device_deadline_s:.0f} s"
            draft.move_device(name, DeviceMove.FALL_SILENT, reason)
    undecided = draft.rollout.phase is RolloutPhase.PAUSED or not draft.rollout.wave
    if undecided and draft.watched >= draft.state.since + policy.patience_s:
        _abort(draft, f"{draft.rollout.phase.value} for {policy.patience_s:.0f} s without a decision", revert=False)


def _paused(draft: _Draft, event: Paused) -> None:
    if draft.rollout.ending and not draft.rollout.phase.final:
        ending = draft.rollout.ending.value
        raise RolloutError(f"rollout {draft.spec.id} is ending already ({ending}: {draft.rollout.reason})")
    draft.move(Move.PAUSE, f"paused by {event.by}" if event.by else "paused")


def _resumed(draft: _Draft, event: Resumed) -> None:
    draft.move(Move.RESUME, f"resumed by {event.by}" if event.by else "resumed")
    if not draft.rollout.wave:
        _open_next_wave(draft)


def _aborted(draft: _Draft, event: Aborted) -> None:
    moved(draft.spec.id, draft.rollout.phase, Move.ABORT)
    _abort(draft, f"aborted by {event.by}" if event.by else "aborted", revert=event.revert)


def _superseded(draft: _Draft, event: Superseded) -> None:
    if draft.rollout.phase.final:
        return
    reason = f"superseded by {event.by}"
    leaving = draft.state.targets if event.devices is None else event.devices & draft.state.targets.keys()
    for name in sorted(leaving):
        if draft.device(name).phase in UNSETTLED:
            draft.move_device(name, DeviceMove.LEAVE, reason)
        if not draft.device(name).detached:
            draft.devices[name] = replace(draft.device(name), detached=True)
    if not any(draft.counts[phase] for phase in UNSETTLED) and draft.rollout.ending is None:
        draft.rollout = replace(draft.rollout, ending=RolloutPhase.SUPERSEDED, reason=reason)
        _finish(draft)


_HANDLERS: Final[dict[type, Callable[[_Draft, Any], None]]] = {
    Started: _started,
    DeviceReported: _reported,
    Silenced: _silenced,
    Tick: _ticked,
    Paused: _paused,
    Resumed: _resumed,
    Aborted: _aborted,
    Superseded: _superseded,
}


# ── What follows from where it stands ──


def _settle(draft: _Draft) -> None:
    """Judge, then stop, wait, go on or end. Each round opens a wave or ends something, so it ends itself."""
    while not draft.rollout.phase.final:
        in_flight = any(draft.counts[phase] for phase in IN_FLIGHT)
        if draft.rollout.phase is RolloutPhase.REVERTING or draft.rollout.ending:
            if not in_flight and not draft.counts[DevicePhase.REVERTING]:
                _finish(draft)
            return
        samples = activations(draft.counts, draft.concluded_at)
        verdict = judge(Samples(samples), draft.spec.policy.gate, draft.watched)
        if verdict.ruling is Ruling.REVERT:
            _stop(draft, "; ".join(verdict.reasons))
        elif in_flight or not draft.rollout.wave:
            return
        elif not draft.counts[DevicePhase.WAITING]:
            draft.move(Move.SUCCEED, f"{samples.succeeded} of {samples.concluded} devices succeeded")
            _say_finished(draft)
        elif draft.rollout.phase is RolloutPhase.PAUSED:
            return
        elif samples.concluded and verdict.ruling is Ruling.WAIT:
            if draft.rollout.phase is RolloutPhase.RUNNING:
                draft.move(Move.WATCH, f"wave {draft.rollout.wave} is being watched")
            return
        else:
            _open_next_wave(draft)


def _open_next_wave(draft: _Draft) -> None:
    """Offer the next wave; one that others have taken over as a whole is passed over."""
    for number in range(draft.rollout.wave + 1, len(draft.spec.waves) + 1):
        draft.rollout = replace(draft.rollout, wave=number)
        todo = [t for t in draft.spec.waves[number - 1] if draft.device(t.device).phase is DevicePhase.WAITING]
        if todo:
            break
    draft.move(Move.OPEN, f"wave {draft.rollout.wave} of {len(draft.spec.waves)}")
    for target in todo:
        draft.move_device(target.device, DeviceMove.OFFER, "")
        draft.give(target.device, target.release, f"rollout {draft.spec.id}, {draft.rollout.reason}", expect=True)


def _stop(draft: _Draft, reason: str) -> None:
    """Too many failed: no further device gets the release."""
    draft.rollout = replace(draft.rollout, ending=RolloutPhase.FAILED)
    _skip_waiting(draft, reason)
    if draft.spec.policy.on_failure is OnFailure.REVERT:
        _take_back(draft, reason, revert=True)
    else:
        draft.move(Move.CLOSE, reason)


def _abort(draft: _Draft, reason: str, *, revert: bool) -> None:
    draft.rollout = replace(draft.rollout, ending=draft.rollout.ending or RolloutPhase.ABORTED)
    _skip_waiting(draft, reason)
    _take_back(draft, reason, revert=revert)


def _skip_waiting(draft: _Draft, reason: str) -> None:
    for name in draft.attached(DevicePhase.WAITING):
        draft.move_device(name, DeviceMove.LEAVE, reason)


def _take_back(draft: _Draft, reason: str, *, revert: bool) -> None:
    """Devices under way go back to what they had; with `revert` also those that are done with the release."""
    draft.move(Move.TAKE_BACK, reason)
    phases = (*IN_FLIGHT, DevicePhase.SUCCEEDED) if revert else IN_FLIGHT
    for name in draft.attached(*phases):
        draft.move_device(name, DeviceMove.TAKE_BACK, reason)
        draft.give(name, draft.state.targets[name].previous, f"rollout {draft.spec.id}: {reason}", expect=True)
    if revert:
        _withdraw(draft, reason, DevicePhase.FAILED, DevicePhase.TIMED_OUT)


def _withdraw(draft: _Draft, reason: str, *phases: DevicePhase) -> None:
    """Take the offer back from devices that have ended, so that none of them comes back to it later."""
    for name in draft.attached(*phases):
        target = draft.state.targets[name]
        if draft.device(name).generation == target.generation + 1:
            draft.give(name, target.previous, f"rollout {draft.spec.id}: {reason}", expect=False)


def _finish(draft: _Draft) -> None:
    """End as was decided. A silent device may come back after weeks: it must not find the offer still there."""
    ending = draft.rollout.ending
    assert ending is not None
    reason = draft.rollout.reason
    if ending is RolloutPhase.FAILED and draft.rollout.phase is RolloutPhase.RUNNING:
        # Those that were still under way when it was stopped have ended since, and count too.
        samples = activations(draft.counts, draft.concluded_at)
        reason = "; ".join(judge(Samples(samples), draft.spec.policy.gate, draft.watched).reasons)
    if ending is not RolloutPhase.SUPERSEDED:
        _withdraw(draft, reason, DevicePhase.TIMED_OUT)
    draft.move(END_MOVES[ending], reason)
    _say_finished(draft)


def _say_finished(draft: _Draft) -> None:
    counts = {phase: count for phase, count in draft.counts.items() if count}
    draft.actions.append(Finish(draft.rollout.phase, draft.rollout.reason, counts))
