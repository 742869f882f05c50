"""Every move that a rollout, and a device in it, can make. A move that is not here is an error.

A rollout:
    WAITING ─ open → RUNNING ─ watch → WAITING …            a wave is offered, then watched, then the next
    RUNNING, WAITING ─ ask → APPROVAL ─ approve → RUNNING   somebody must say that the next may begin
    RUNNING, WAITING ─ pause → PAUSED ─ resume → RUNNING
    RUNNING, WAITING, APPROVAL ─ retry → RUNNING            devices of a wave that was offered are offered it again
    all of these ─ take back → REVERTING                    devices go back to what they had
    and each of them ends: SUCCEEDED, FAILED, ABORTED, SUPERSEDED

A device:
    WAITING ─ offer → OFFERED ─ begin → UPDATING ─ succeed/fail/fall silent → SUCCEEDED, FAILED, TIMED_OUT
    SUCCEEDED ─ fail → FAILED                               it fell back later, by itself
    FAILED, TIMED_OUT ─ succeed → SUCCEEDED                 it tried again by itself, or came late
    OFFERED, UPDATING, SUCCEEDED ─ take back → REVERTING ─ succeed/fail/fall silent → REVERTED, FAILED, TIMED_OUT
    WAITING, OFFERED, UPDATING, REVERTING, FAILED, TIMED_OUT ─ leave → SKIPPED
    FAILED, TIMED_OUT, SKIPPED, REVERTED ─ retry → WAITING

Only an operator's retry leads back from an end to what is not one. Each phase that is not an end has a deadline, or
waits for a rollout that has one, and what a device says after its end moves no deadline; so every device, and then
every rollout, ends.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from edgewright_controller.rollout.model import DevicePhase, RolloutError, RolloutPhase


class Move(Enum):
    """What happens to a rollout."""

    __hash__ = object.__hash__

    OPEN = "start"
    WATCH = "watch"
    ASK = "ask"
    APPROVE = "approve"
    RETRY = "retry"
    PAUSE = "pause"
    RESUME = "resume"
    CLOSE = "stop offering"  # it will end once the devices under way have ended
    TAKE_BACK = "revert"
    SUCCEED = "succeed"
    FAIL = "fail"
    ABORT = "abort"
    SUPERSEDE = "supersede"


class DeviceMove(Enum):
    """What happens to a device in a rollout."""

    __hash__ = object.__hash__

    OFFER = "offer"
    BEGIN = "begin"
    SUCCEED = "succeed"
    FAIL = "fail"
    FALL_SILENT = "fall silent"
    TAKE_BACK = "take back"
    LEAVE = "leave"
    RETRY = "retry"


_R, _M = RolloutPhase, Move

ROLLOUT_MOVES: Final[Mapping[RolloutPhase, Mapping[Move, RolloutPhase]]] = {
    _R.WAITING: {
        _M.OPEN: _R.RUNNING,
        _M.ASK: _R.APPROVAL,
        _M.RETRY: _R.RUNNING,
        _M.PAUSE: _R.PAUSED,
        _M.CLOSE: _R.RUNNING,
        _M.TAKE_BACK: _R.REVERTING,
        _M.SUCCEED: _R.SUCCEEDED,
        _M.FAIL: _R.FAILED,
        _M.ABORT: _R.ABORTED,
        _M.SUPERSEDE: _R.SUPERSEDED,
    },
    _R.RUNNING: {
        _M.OPEN: _R.RUNNING,
        _M.WATCH: _R.WAITING,
        _M.ASK: _R.APPROVAL,
        _M.RETRY: _R.RUNNING,
        _M.PAUSE: _R.PAUSED,
        _M.CLOSE: _R.RUNNING,
        _M.TAKE_BACK: _R.REVERTING,
        _M.SUCCEED: _R.SUCCEEDED,
        _M.FAIL: _R.FAILED,
        _M.ABORT: _R.ABORTED,
        _M.SUPERSEDE: _R.SUPERSEDED,
    },
    _R.APPROVAL: {
        _M.APPROVE: _R.RUNNING,
        _M.RETRY: _R.RUNNING,
        _M.CLOSE: _R.RUNNING,
        _M.TAKE_BACK: _R.REVERTING,
        _M.SUCCEED: _R.SUCCEEDED,  # nothing is left that an approval could let begin
        _M.FAIL: _R.FAILED,
        _M.ABORT: _R.ABORTED,
        _M.SUPERSEDE: _R.SUPERSEDED,
    },
    _R.PAUSED: {
        _M.RESUME: _R.RUNNING,
        _M.RETRY: _R.PAUSED,
        _M.CLOSE: _R.RUNNING,
        _M.TAKE_BACK: _R.REVERTING,
        _M.SUCCEED: _R.SUCCEEDED,  # nothing is left that a pause could hold up
        _M.FAIL: _R.FAILED,
        _M.ABORT: _R.ABORTED,
        _M.SUPERSEDE: _R.SUPERSEDED,
    },
    _R.REVERTING: {
        _M.TAKE_BACK: _R.REVERTING,
        _M.FAIL: _R.FAILED,
        _M.ABORT: _R.ABORTED,
        _M.SUPERSEDE: _R.SUPERSEDED,
    },
    _R.SUCCEEDED: {},
    _R.FAILED: {},
    _R.ABORTED: {},
    _R.SUPERSEDED: {},
}

_D, _V = DevicePhase, DeviceMove

DEVICE_MOVES: Final[Mapping[DevicePhase, Mapping[DeviceMove, DevicePhase]]] = {
    _D.WAITING: {_V.OFFER: _D.OFFERED, _V.LEAVE: _D.SKIPPED},
    _D.OFFERED: {
        _V.BEGIN: _D.UPDATING,
        _V.SUCCEED: _D.SUCCEEDED,
        _V.FAIL: _D.FAILED,
        _V.FALL_SILENT: _D.TIMED_OUT,
        _V.TAKE_BACK: _D.REVERTING,
        _V.LEAVE: _D.SKIPPED,
    },
    _D.UPDATING: {
        _V.SUCCEED: _D.SUCCEEDED,
        _V.FAIL: _D.FAILED,
        _V.FALL_SILENT: _D.TIMED_OUT,
        _V.TAKE_BACK: _D.REVERTING,
        _V.LEAVE: _D.SKIPPED,
    },
    _D.SUCCEEDED: {_V.FAIL: _D.FAILED, _V.TAKE_BACK: _D.REVERTING},
    _D.REVERTING: {
        _V.SUCCEED: _D.REVERTED,
        _V.FAIL: _D.FAILED,
        _V.FALL_SILENT: _D.TIMED_OUT,
        _V.LEAVE: _D.SKIPPED,
    },
    _D.FAILED: {_V.SUCCEED: _D.SUCCEEDED, _V.RETRY: _D.WAITING, _V.LEAVE: _D.SKIPPED},
    _D.TIMED_OUT: {_V.SUCCEED: _D.SUCCEEDED, _V.FAIL: _D.FAILED, _V.RETRY: _D.WAITING, _V.LEAVE: _D.SKIPPED},
    _D.SKIPPED: {_V.RETRY: _D.WAITING},
    _D.REVERTED: {_V.RETRY: _D.WAITING},
}

_COMMANDS: Final = (Move.PAUSE, Move.RESUME, Move.APPROVE, Move.ABORT)
_STANDS: Final = {_R.APPROVAL: "waits for approval"}
END_MOVES: Final = {_R.FAILED: _M.FAIL, _R.ABORTED: _M.ABORT, _R.SUPERSEDED: _M.SUPERSEDE}


def moved(rollout: str, phase: RolloutPhase, move: Move) -> RolloutPhase:
    """Where `move` leads. Raises RolloutError when it leads nowhere."""
    try:
        return ROLLOUT_MOVES[phase][move]
    except KeyError:
        if phase.final:
            raise RolloutError(
                f"rollout {rollout} has ended ({phase.value}); there is nothing to {move.value}"
            ) from None
        allowed = " or ".join(one.value for one in _COMMANDS if one in ROLLOUT_MOVES[phase])
        stands = _STANDS.get(phase, f"is {phase.value}")
        raise RolloutError(f"rollout {rollout} {stands}; it cannot {move.value}, only {allowed}") from None


def device_moved(device: str, phase: DevicePhase, move: DeviceMove) -> DevicePhase:
    """Where `move` leads. A move that is not in the table is a fault of the engine: it raises RuntimeError."""
    try:
        return DEVICE_MOVES[phase][move]
    except KeyError:
        raise RuntimeError(f"device {device} is {phase.value}; it cannot {move.value}") from None
