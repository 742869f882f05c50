"""What was changed in the fleet: who, what, why, when, and how it ended. The newest first.

Three sources are laid into one order: the audit log, for what people and devices did; the rollouts, for how they ended;
and, of one device, what it was to have and how that went. Who may speak, certificates and keys, is no history of the
fleet: of that the audit log tells, and the history of the one device that it is about.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from typing import Final

from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.ledger import Ledger, NotInLedger, audit, devices, rollouts
from edgewright_controller.ledger.audit import AuditRow
from edgewright_controller.ledger.devices import DesiredRow
from edgewright_controller.ledger.rollouts import RolloutRow
from edgewright_controller.manifest.errors import suggestion
from edgewright_controller.rollout import RolloutPhase
from edgewright_controller.service.change import BadInput

USUAL: Final = 100
MOST: Final = 1000

_CONTROLLER: Final = "controller"
_BEGIN: Final = "rollout.begin"
_ENROLLED: Final = ("device.enrol", "device.return")
_ABOUT_KEYS: Final = ("certificate.", "enrolment.", "key.", "keys.", "operator.")


class History:
    """Answers `history`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def entries(self, device: str, since_ms: int, limit: int) -> operator_pb2.HistoryResponse:
        """The newest `limit` (0: `USUAL`) since then, of `device` or of the fleet.

        Raises BadInput when there is no such device, LedgerError.
        """
        most = min(limit or USUAL, MOST)
        found = await self._ledger.read(lambda c: _entries(c, device, since_ms, most))
        return operator_pb2.HistoryResponse(entries=found)


def _entries(connection: Connection, device: str, since_ms: int, limit: int) -> list[operator_pb2.HistoryEntry]:
    given: list[operator_pb2.HistoryEntry] = []
    if device:
        _check(connection, device)
        subjects = [device, *rollouts.of_device(connection, device, limit)]
        rows = audit.newest(connection, limit, subjects=subjects, since_ms=since_ms)
        given = [one for one in _given(connection, device) if one.at_unix_ms >= since_ms]
    else:
        rows = audit.newest(connection, limit, since_ms=since_ms, without=_ABOUT_KEYS)
    states = rollouts.states(connection, {row.subject for row in rows if row.action == _BEGIN})
    said = [_said(row, states.get(row.subject)) for row in rows]
    ended = [_ended(row) for row in rollouts.ended(connection, limit, device=device, since=since_ms / 1000)]
    return _newest_first(ended, given, said)[:limit]


def _check(connection: Connection, device: str) -> None:
    try:
        devices.get(connection, device)
    except NotInLedger as error:
        near = suggestion(device, [row.id for row in devices.every(connection)])
        raise BadInput(f"there is no device {device!r}{near}") from error


def _newest_first(*sources: Sequence[operator_pb2.HistoryEntry]) -> list[operator_pb2.HistoryEntry]:
    """Of two at one time, that of the earlier source stands first: an end before what it came from. Each source keeps
    its own order, also where the clock was set back."""
    merged: Iterable[operator_pb2.HistoryEntry] = heapq.merge(*sources, key=lambda one: -one.at_unix_ms)
    return list(merged)


def _said(row: AuditRow, state: RolloutPhase | None) -> operator_pb2.HistoryEntry:
    what, why = audit.parted(row.detail)
    if row.action in _ENROLLED:
        what = ""  # its certificate and key
    if row.release:
        what = f"{what}, release {row.release[:12]}" if what else f"release {row.release[:12]}"
    return operator_pb2.HistoryEntry(
        at_unix_ms=row.at_ms,
        by=row.actor.removeprefix("operator "),
        action=row.action,
        subject=row.subject,
        what=what,
        why=why,
        outcome=state.value if state is not None else "",
    )


def _ended(row: RolloutRow) -> operator_pb2.HistoryEntry:
    return operator_pb2.HistoryEntry(
        at_unix_ms=int((row.ended_at or 0.0) * 1000),
        by=_CONTROLLER,
        action="rollout.end",
        subject=row.id,
        what=str(row.about.get("what", "")),
        why=row.reason,
        outcome=row.state.value,
    )


def _given(connection: Connection, device: str) -> list[operator_pb2.HistoryEntry]:
    """What the device was to have, the newest first."""
    givers = rollouts.givers(connection, device)
    return [_generation(row, givers) for row in devices.history(connection, device)]


def _generation(row: DesiredRow, givers: Sequence[tuple[int, str]]) -> operator_pb2.HistoryEntry:
    by = next((by for generation, by in givers if generation < row.generation), _CONTROLLER)
    outcome = (
        agent_pb2.Outcome.Name(row.outcome).removeprefix("OUTCOME_").lower().replace("_", " ") if row.outcome else ""
    )
    return operator_pb2.HistoryEntry(
        at_unix_ms=row.since_ms,
        by=by,
        action="device.give",
        subject=row.device,
        what=f"generation {row.generation}: {f'release {row.release[:12]}' if row.release else 'nothing'}",
        why=row.reason,
        outcome=outcome,
    )
