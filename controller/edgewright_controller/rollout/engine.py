"""One step of a rollout: an event goes in, changes and actions come out, and nothing else happens.

`step` alters nothing. Its caller stores the changes with the SetDesired and LiftHold actions in one transaction,
applies them to the state, and then acts on the rest. A step costs what it changes, never what the rollout holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Final

from edgewright_controller.gates import LONGER
from edgewright_controller.rollout.draft import MAX_GAP_S, Draft
from edgewright_controller.rollout.model import (
    DOWNLOAD_PAUSED,
    IN_FLIGHT,
    UNSETTLED,
    Aborted,
    Actions,
    Approved,
    Changes,
    DeviceChange,
    DevicePhase,
    DeviceReported,
    Event,
    Evidence,
    Left,
    Outcome,
    Paused,
    Resumed,
    Retried,
    RolloutError,
    RolloutPhase,
    Silenced,
    Skipped,
    Started,
    Superseded,
    Tick,
)
from edgewright_controller.rollout.settle import abort, settle, supersede
from edgewright_controller.rollout.state import RolloutState, overdue
from edgewright_controller.rollout.table import DeviceMove, Move, moved

__all__ = ["MAX_GAP_S", "step"]

_AWAITED: Final = (*IN_FLIGHT, DevicePhase.REVERTING)
_FAILED: Final = (DevicePhase.FAILED, DevicePhase.TIMED_OUT)
_RETRIED: Final = (*_FAILED, DevicePhase.SKIPPED, DevicePhase.REVERTED)

# The agent's words for where it is, and the step of the policy's that each belongs to. What it does to get back to its
# last good version has no deadline of its own.
_STEP_OF: Final = {
    "planning": "plan",
    "downloading": "download",
    DOWNLOAD_PAUSED: "download",
    "verifying": "stage",
    "starting": "start",
    "proving": "prove",
    "probing": "probe",
    "switching": "commit",
    "draining": "commit",
}

# These tell of devices; they make no offer possible that was not possible before, unless a wave opens by them.
_OF_DEVICES: Final = (DeviceReported, Silenced, Evidence, Left, Superseded, Skipped)


def step(state: RolloutState, event: Event, now: float) -> tuple[Changes, Actions]:
    """What `event` at `now` (Unix seconds) changes, and what is to be done about it.

    Raises RolloutError for Started and for an operator's command that is not possible here; reports, ticks, Silenced,
    Left and Superseded are never refused, but may change nothing.
    """
    draft = Draft(state, now)
    _HANDLERS[type(event)](draft, event)
    if isinstance(event, _OF_DEVICES) and draft.untouched:
        return Changes(), ()  # an old report, say: not even what was due anyhow happens by it
    settle(draft, offers=not isinstance(event, _OF_DEVICES))
    return draft.changes(ticked=isinstance(event, Tick)), tuple(draft.actions)


# ── What happens by itself ──


def _started(draft: Draft, _event: Started) -> None:
    if draft.rollout.wave or draft.rollout.phase is not RolloutPhase.WAITING:
        raise RolloutError(f"rollout {draft.spec.id} has started already; it is {draft.rollout.phase.value}")
    draft.open_wave(1)


def _reported(draft: Draft, event: DeviceReported) -> None:
    device = _known(draft, event.device)
    if device is None or event.generation != device.generation:
        return
    said = event.reason or event.step
    if device.phase is DevicePhase.SUCCEEDED:
        if event.outcome is Outcome.FAILED:  # it fell back since
            draft.move_device(event.device, DeviceMove.FAIL, said, again=event.again)
    elif device.phase in _FAILED:
        if event.outcome is Outcome.SUCCEEDED and device.offer_stands:  # it came late, or tried again by itself
            draft.move_device(event.device, DeviceMove.SUCCEED, said)
        elif event.outcome is Outcome.FAILED and device.phase is DevicePhase.TIMED_OUT and device.offer_stands:
            draft.move_device(event.device, DeviceMove.FAIL, said, again=event.again)
    elif device.phase in _AWAITED:
        if event.outcome is Outcome.SUCCEEDED:
            draft.move_device(event.device, DeviceMove.SUCCEED, said)
        elif event.outcome is Outcome.FAILED:
            _end_badly(draft, event.device, DeviceMove.FAIL, said, again=event.again)
        else:
            _under_way(draft, device, event.step, said)


def _under_way(draft: Draft, device: DeviceChange, step: str, said: str) -> None:
    if device.phase is DevicePhase.OFFERED:
        draft.move_device(device.device, DeviceMove.BEGIN, said)
    if step and step != device.step:
        within_s = draft.spec.policy.step_deadlines_s.get(_STEP_OF.get(step, ""))
        draft.hear_step(device.device, step, within_s, said)


def _silenced(draft: Draft, event: Silenced) -> None:
    device = _known(draft, event.device)
    if device is not None and device.phase in _AWAITED:
        _end_badly(draft, event.device, DeviceMove.FALL_SILENT, event.reason)


def _end_badly(draft: Draft, device: str, move: DeviceMove, reason: str, *, again: bool = False) -> None:
    phase = draft.device(device).phase
    if phase is DevicePhase.REVERTING and draft.rollout.phase is not RolloutPhase.REVERTING:
        # It was skipped while it was under way. How its way back ends says nothing of the release.
        draft.leave(device, f"skipped; on its way back: {reason}")
    elif move is DeviceMove.FALL_SILENT:
        draft.fall_silent(device, reason)
    else:
        draft.move_device(device, move, reason, again=again)


def _evidence(draft: Draft, event: Evidence) -> None:
    if not draft.rollout.phase.final:
        draft.health = event.health


def _ticked(draft: Draft, _event: Tick) -> None:
    if draft.rollout.phase.final:
        return
    for name in overdue(draft.state, draft.watched):
        _end_badly(draft, name, DeviceMove.FALL_SILENT, _silence(draft, draft.device(name)))
    if not draft.stopped:
        _lose_patience(draft)


def _silence(draft: Draft, device: DeviceChange) -> str:
    policy = draft.spec.policy
    last = f"; the last that it said was {device.step}" if device.step else ""
    if device.until is not None and device.until <= draft.watched:
        return f"no answer within {policy.device_deadline_s:.0f} s{last}"
    if not device.step:
        return f"no check-in within {policy.step_deadlines_s['check_in']:.0f} s"
    step = _STEP_OF[device.step]
    return f"{device.step} for {policy.step_deadlines_s[step]:.0f} s, as long as it may take ({step}), without news"


def _lose_patience(draft: Draft) -> None:
    policy, phase, since = draft.spec.policy, draft.rollout.phase, draft.state.since
    if policy.deadline_s is not None and draft.watched >= policy.deadline_s:
        abort(draft, f"not done within its deadline of {policy.deadline_s:.0f} s", revert=False)
    elif phase in (RolloutPhase.PAUSED, RolloutPhase.APPROVAL) or not draft.rollout.wave:
        if draft.watched >= since + policy.patience_s:
            abort(
                draft,
                f"{_STOOD.get(phase, phase.value)} for {policy.patience_s:.0f} s without a decision",
                revert=False,
            )
    elif not draft.in_flight:
        soak_s = draft.spec.after_wave(draft.rollout.wave).soak_s if phase is RolloutPhase.WAITING else 0.0
        soak_s += LONGER * soak_s  # as long as the gate may take
        since = max(since, draft.concluded_at, draft.offered_at)
        if draft.watched >= since + soak_s + policy.patience_s:
            held_up = f"{draft.pending} devices had no open window" if draft.pending else "the gate gave no verdict"
            abort(draft, f"nothing happened for {policy.patience_s:.0f} s: {held_up}", revert=False)


_STOOD: Final = {RolloutPhase.APPROVAL: "waiting for approval"}


def _left(draft: Draft, event: Left) -> None:
    device = _known(draft, event.device)
    if device is None:
        return
    if event.waiting_only and device.phase is not DevicePhase.WAITING:
        if device.phase is DevicePhase.TIMED_OUT or device.tries_again:  # nobody waits for it, and it might still come
            draft.withdraw(event.device, event.reason)
        return
    if device.phase is DevicePhase.WAITING:
        draft.leave(event.device, event.reason)
    elif device.phase in UNSETTLED:
        draft.move_device(event.device, DeviceMove.LEAVE, event.reason)
    if device.phase is not DevicePhase.SUCCEEDED:
        # It may enrol anew, when this has long been taken back from all others.
        draft.withdraw(event.device, event.reason)
    draft.devices[event.device] = replace(draft.device(event.device), detached=True)


def _superseded(draft: Draft, event: Superseded) -> None:
    if draft.rollout.phase.final:
        return
    reason = f"superseded by {event.by}"
    leaving = draft.state.targets.keys() if event.devices is None else event.devices & draft.state.targets.keys()
    for name in sorted(leaving):
        if draft.device(name).phase in UNSETTLED:
            draft.move_device(name, DeviceMove.LEAVE, reason)
        if not draft.device(name).detached:
            draft.devices[name] = replace(draft.device(name), detached=True)
    if draft.rollout.ending is None and not draft.attached(*UNSETTLED, DevicePhase.SUCCEEDED):
        supersede(draft, reason)


def _known(draft: Draft, device: str) -> DeviceChange | None:
    """The device, if anything can still happen to it here."""
    if draft.rollout.phase.final or device not in draft.state.devices or draft.device(device).detached:
        return None
    return draft.device(device)


# ── What an operator says ──


def _paused(draft: Draft, event: Paused) -> None:
    moved(draft.spec.id, draft.rollout.phase, Move.PAUSE)
    _refuse_when_ending(draft, "")
    draft.move(Move.PAUSE, f"paused by {event.by}" if event.by else "paused")


def _resumed(draft: Draft, event: Resumed) -> None:
    draft.move(Move.RESUME, f"resumed by {event.by}" if event.by else "resumed")
    if not draft.rollout.wave:
        draft.open_wave(1)


def _approved(draft: Draft, event: Approved) -> None:
    draft.move(Move.APPROVE, f"approved by {event.by}" if event.by else "approved")


def _retried(draft: Draft, event: Retried) -> None:
    if not draft.rollout.phase.final:
        _refuse_when_ending(draft, "; retry once it has ended, which begins a new rollout of what failed")
    moved(draft.spec.id, draft.rollout.phase, Move.RETRY)
    names = draft.attached(*_FAILED) if event.devices is None else sorted(event.devices)
    if not names:
        raise RolloutError(f"rollout {draft.spec.id}: no device failed or fell silent; there is nothing to retry")
    for name in names:
        _refuse_unless(draft, name, _RETRIED, "retry", "only one that failed, fell silent or was skipped can be")
    reason = f"retried by {event.by}" if event.by else "retried"
    for name in names:
        draft.move_device(name, DeviceMove.RETRY, reason)
    opened = any(draft.state.waves[name] <= draft.rollout.wave for name in names)
    if opened and draft.rollout.phase is not RolloutPhase.PAUSED:
        # Whoever was to approve a wave is asked again once these have ended.
        halted = draft.rollout.halted
        if draft.rollout.phase is RolloutPhase.APPROVAL:
            halted = draft.rollout.wave - 1
        draft.move(Move.RETRY, f"wave {draft.rollout.wave} of {len(draft.spec.waves)}, {reason}", halted=halted)


def _skipped(draft: Draft, event: Skipped) -> None:
    if draft.rollout.phase.final:
        raise RolloutError(f"rollout {draft.spec.id} has ended ({draft.rollout.phase.value}); there is nothing to skip")
    names = sorted(event.devices)
    if not names:
        raise RolloutError(f"rollout {draft.spec.id}: name the devices to skip")
    for name in names:
        allowed = (*UNSETTLED, *_FAILED)
        _refuse_unless(draft, name, allowed, "skip", "only one that waits, is under way or failed can be")
    reason = f"skipped by {event.by}" if event.by else "skipped"
    for name in names:
        if draft.device(name).phase in IN_FLIGHT:
            draft.take_back(name, reason)
        else:
            draft.leave(name, reason)


def _aborted(draft: Draft, event: Aborted) -> None:
    moved(draft.spec.id, draft.rollout.phase, Move.ABORT)
    abort(draft, f"aborted by {event.by}" if event.by else "aborted", revert=event.revert)


def _refuse_when_ending(draft: Draft, instead: str) -> None:
    if draft.rollout.ending is not None:
        ending = draft.rollout.ending.value
        raise RolloutError(f"rollout {draft.spec.id} is ending already ({ending}: {draft.rollout.reason}){instead}")


def _refuse_unless(draft: Draft, name: str, phases: Collection[DevicePhase], verb: str, only: str) -> None:
    if name not in draft.state.devices:
        raise RolloutError(
            f"rollout {draft.spec.id} has no device {name!r}; `edgewright rollout show` lists its devices"
        )
    device = draft.device(name)
    if device.detached:
        why = device.reason or "something else has it"
        raise RolloutError(f"device {name} is no longer in rollout {draft.spec.id} ({why}); nothing to {verb}")
    if device.phase not in phases:
        stands = device.phase.value.replace("_", " ")
        raise RolloutError(f"device {name} is {stands} in rollout {draft.spec.id}; {only}")


_HANDLERS: Final[dict[type, Callable[[Draft, Any], None]]] = {
    Started: _started,
    DeviceReported: _reported,
    Silenced: _silenced,
    Evidence: _evidence,
    Tick: _ticked,
    Paused: _paused,
    Resumed: _resumed,
    Approved: _approved,
    Retried: _retried,
    Skipped: _skipped,
    Left: _left,
    Aborted: _aborted,
    Superseded: _superseded,
}
