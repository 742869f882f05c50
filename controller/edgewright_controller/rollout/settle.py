"""What follows from where a rollout stands: it is judged, then it stops, offers, waits, goes on or ends."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from math import floor

from edgewright_controller.gates import Ruling, Verdict, judge
from edgewright_controller.rollout.draft import Draft
from edgewright_controller.rollout.model import (
    IN_FLIGHT,
    DevicePhase,
    Finish,
    OnFailure,
    RolloutPhase,
    Then,
)
from edgewright_controller.rollout.state import MARK_S
from edgewright_controller.rollout.table import END_MOVES, Move


def settle(draft: Draft, *, offers: bool) -> None:
    """Let happen what can. `offers`: this step may have made an offer possible that was not possible before."""
    while not draft.rollout.phase.final:  # each round opens a wave or ends something, so this ends
        if draft.stopped:
            if not draft.in_flight and not draft.counts[DevicePhase.REVERTING]:
                _finish(draft)
            return
        if not draft.rollout.wave:
            return
        verdict = _judged(draft)
        if verdict.ruling is Ruling.REVERT:
            _stop(draft, "; ".join(verdict.reasons))
            continue
        if draft.pending and offers and draft.rollout.phase is RolloutPhase.RUNNING:
            _offer(draft)
        if draft.in_flight or draft.pending:
            return
        if not _after_wave(draft, verdict):
            return
        offers = True


def _judged(draft: Draft) -> Verdict:
    return judge(draft.samples, draft.state.gates[draft.rollout.wave - 1], draft.watched)


def _after_wave(draft: Draft, verdict: Verdict) -> bool:
    """The devices of all waves so far have ended. Whether something was done that has to be settled again."""
    after, phase = draft.spec.after_wave(draft.rollout.wave), draft.rollout.phase
    seen = draft.samples.activations
    to_come, last = draft.counts[DevicePhase.WAITING], draft.rollout.wave == len(draft.spec.waves)
    if phase is RolloutPhase.APPROVAL and (to_come or last):
        return False
    if seen.concluded and verdict.ruling is Ruling.WAIT:
        if phase is RolloutPhase.RUNNING:
            draft.move(Move.WATCH, f"wave {draft.rollout.wave} is being watched")
        return False
    planned = after.then is not Then.GO_ON and (to_come or last)
    untried = to_come and not seen.concluded  # no verdict from nothing: the release has not been seen anywhere
    if (planned or untried) and draft.rollout.halted < draft.rollout.wave:
        if phase is not RolloutPhase.PAUSED:
            _halt(draft, after.then, untried=bool(untried))
        return False
    if phase is RolloutPhase.PAUSED and (to_come or planned):
        return False
    if to_come:
        draft.open_wave(draft.rollout.wave + 1)
        return True
    if draft.counts[DevicePhase.REVERTING]:  # they were skipped; their way back has a deadline
        return False
    if seen.concluded:
        succeeded = f"{seen.succeeded} of {seen.concluded} devices succeeded"
        draft.move(Move.SUCCEED, "; ".join((succeeded, *verdict.reasons[1:])))
        _say_finished(draft)
    else:
        draft.rollout = replace(draft.rollout, ending=RolloutPhase.ABORTED, reason="every device has left it")
        _finish(draft)
    return False


def _halt(draft: Draft, then: Then, *, untried: bool) -> None:
    wave, waves = draft.rollout.wave, len(draft.spec.waves)
    if untried:
        reason = f"no device of wave {wave} of {waves} has tried it; the next needs approval"
    else:
        reason = f"wave {wave} of {waves} succeeded" + ("; the next needs approval" if then is Then.APPROVAL else "")
    draft.move(Move.PAUSE if then is Then.PAUSE and not untried else Move.ASK, reason, halted=wave)


def _offer(draft: Draft) -> None:
    """Offer as much as windows and the limit allow.

    With a limit the turns are spaced evenly. Ticks come late at times, so turns of up to MARK_S are made up for; not
    more, or a gap would be followed by a rush.
    """
    rate = draft.spec.policy.devices_per_minute
    if rate is None:
        devices = list(draft.in_turn())
    else:
        spacing = 60.0 / rate
        turn = max(draft.next_offer_at, draft.watched - MARK_S)
        if turn > draft.watched:
            return
        devices = list(islice(draft.in_turn(), floor((draft.watched - turn) / spacing) + 1))
        draft.next_offer_at = turn + len(devices) * spacing
    for device in devices:
        draft.offer(device)
    if devices:
        draft.offered_at = draft.watched


def _stop(draft: Draft, reason: str) -> None:
    """Too many failed: no further device gets the release."""
    draft.rollout = replace(draft.rollout, ending=RolloutPhase.FAILED)
    _skip_waiting(draft, reason)
    if draft.spec.policy.on_failure is OnFailure.REVERT:
        _take_back(draft, reason, revert=True)
    else:
        draft.move(Move.CLOSE, reason)


def abort(draft: Draft, reason: str, *, revert: bool) -> None:
    """End it before its time; devices under way go back, with `revert` all do. What was decided stays decided."""
    draft.rollout = replace(draft.rollout, ending=draft.rollout.ending or RolloutPhase.ABORTED)
    _skip_waiting(draft, reason)
    _take_back(draft, reason, revert=revert)


def _skip_waiting(draft: Draft, reason: str) -> None:
    for device in draft.attached(DevicePhase.WAITING):
        draft.leave(device, reason)


def _take_back(draft: Draft, reason: str, *, revert: bool) -> None:
    """Devices under way go back to what they had; with `revert` also those that are done with the release."""
    draft.move(Move.TAKE_BACK, reason)
    phases = (*IN_FLIGHT, DevicePhase.SUCCEEDED) if revert else IN_FLIGHT
    for device in draft.attached(*phases):
        draft.take_back(device, reason)
    if revert:
        _withdraw(draft, reason, held_too=True)


def _withdraw(draft: Draft, reason: str, *, held_too: bool) -> None:
    """A device that was silent may come back after weeks, and one that failed for want of room tries again by itself:
    they must not find the offer still there. One that holds the release stays away from it by itself, and its status
    goes on saying why; `held_too` takes the offer back from that one as well."""
    for device in draft.attached(DevicePhase.FAILED, DevicePhase.TIMED_OUT):
        stands = draft.device(device)
        if held_too or stands.tries_again or stands.phase is DevicePhase.TIMED_OUT:
            draft.withdraw(device, reason)


def _finish(draft: Draft) -> None:
    """End as was decided."""
    ending = draft.rollout.ending
    assert ending is not None
    reason = draft.rollout.reason
    if ending is RolloutPhase.FAILED and draft.rollout.phase is RolloutPhase.RUNNING:
        # Those that were still under way when it was stopped have ended since, and count too.
        verdict = _judged(draft)
        if verdict.ruling is Ruling.REVERT:
            reason = "; ".join(verdict.reasons)
    if ending is not RolloutPhase.SUPERSEDED:
        _withdraw(draft, reason, held_too=False)
    draft.move(END_MOVES[ending], reason)
    _say_finished(draft)


def supersede(draft: Draft, reason: str) -> None:
    """Others have all of its devices now."""
    draft.rollout = replace(draft.rollout, ending=RolloutPhase.SUPERSEDED, reason=reason)
    _finish(draft)


def _say_finished(draft: Draft) -> None:
    counts = {phase: count for phase, count in draft.counts.items() if count}
    draft.actions.append(Finish(draft.rollout.phase, draft.rollout.reason, counts))
