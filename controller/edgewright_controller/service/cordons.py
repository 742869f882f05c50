"""Devices that are left as they are until somebody says otherwise.

What is stored comes first, then what follows from it for the rollouts that run; both may be said again without harm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import Connection

from edgewright_controller import log
from edgewright_controller.ledger import Ledger, audit, cordons, devices
from edgewright_controller.ledger.cordons import CordonRow
from edgewright_controller.service.change import BadInput
from edgewright_controller.service.unbroken import Unbroken
from edgewright_controller.unix_time import unix_ms

MAX_NAMED: Final = 10_000

_log = log.of(__name__)


class Rollouts(Protocol):
    """What rollouts do about it."""

    async def leave(self, devices: Sequence[str], reason: str, *, waiting_only: bool) -> None:
        """Go on without these devices."""

    def look_for_newcomers(self) -> None:
        """Devices may be given something now."""


class Cordons:
    """Cordons and uncordons."""

    def __init__(self, ledger: Ledger, rollouts: Rollouts, clock: Callable[[], datetime]) -> None:
        self._ledger, self._rollouts, self._clock = ledger, rollouts, clock
        self._unbroken = Unbroken()

    async def cordon(self, named: Sequence[str], *, by: str, reason: str) -> list[str]:
        """Leave these devices as they are; those that were not so before.

        Whoever waits in a rollout is not offered anything there; what is under way ends. Raises BadInput for a device
        that there is not, LedgerError.
        """
        # Whoever asked may leave; a device that is entered as cordoned must not be offered anything.
        return await self._unbroken.finish(self._cordon(tuple(named), by, reason))

    async def _cordon(self, named: Sequence[str], by: str, reason: str) -> list[str]:
        now_ms = unix_ms(self._clock())

        def act(connection: Connection) -> list[str]:
            check_enrolled(connection, named)
            rows = [CordonRow(device, by, now_ms, reason) for device in dict.fromkeys(named)]
            changed = [row.device for row in rows if cordons.put(connection, row)]
            _enter(connection, "device.cordon", changed, {"by": by, "reason": reason}, now_ms)
            return changed

        changed = await self._ledger.write(act)
        _log.info("devices cordoned", devices=changed, operator=by, why=reason)
        await self._rollouts.leave(
            named, f"cordoned by {by}: {reason}" if reason else f"cordoned by {by}", waiting_only=True
        )
        return changed

    async def uncordon(self, named: Sequence[str], *, by: str, reason: str) -> list[str]:
        """Let rollouts reach these devices again; those that were cordoned.

        One that was never given anything gets what was applied last by itself; another with the next apply. Raises
        BadInput for a device that there is not, LedgerError.
        """
        now_ms = unix_ms(self._clock())

        def act(connection: Connection) -> list[str]:
            check_enrolled(connection, named)
            changed = [device for device in dict.fromkeys(named) if cordons.lift(connection, device)]
            _enter(connection, "device.uncordon", changed, {"by": by, "reason": reason}, now_ms)
            return changed

        changed = await self._ledger.write(act)
        _log.info("devices uncordoned", devices=changed, operator=by, why=reason)
        self._rollouts.look_for_newcomers()
        return changed


def check_enrolled(connection: Connection, named: Sequence[str]) -> None:
    """Raises BadInput unless these are some, not too many, and each is a device of the fleet."""
    if not named:
        raise BadInput("no device is named; name one or more")
    if len(named) > MAX_NAMED:
        raise BadInput(f"{len(named)} devices named; name at most {MAX_NAMED}")
    known = {row.id: row for row in devices.every(connection, named)}
    for device in named:
        row = known.get(device)
        if row is None:
            raise BadInput(f"device {device!r} is not enrolled; `edgewright devices` lists those that are")
        if row.decommissioned_ms is not None:
            raise BadInput(
                f"device {device!r} was decommissioned; `edgewright enroll create --device {device}` makes a token that"
                " takes it back"
            )


def _enter(connection: Connection, action: str, changed: Sequence[str], said: Mapping[str, str], now_ms: int) -> None:
    """Note what `said`, of {by, reason}, says was done to each of these devices."""
    detail = audit.with_reason(_DETAILS[action], said["reason"])
    for device in changed:
        about = {"actor": f"operator {said['by']}", "action": action, "subject": device}
        audit.append(connection, **about, detail=detail, now_ms=now_ms)


_DETAILS: Final = {"device.cordon": "left as it is", "device.uncordon": "rollouts reach it again"}
