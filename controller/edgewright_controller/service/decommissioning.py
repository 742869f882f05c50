"""A device leaves the fleet for good: its certificates end, no rollout waits for it, and lists leave it out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from sqlalchemy import Connection

from edgewright_controller import log
from edgewright_controller.ledger import Ledger, NotInLedger, audit, cordons, devices
from edgewright_controller.ledger.certificates import DEVICE
from edgewright_controller.service.change import BadInput, ChangeRefused
from edgewright_controller.service.revocations import NothingToRevoke, Revocations
from edgewright_controller.service.unbroken import Unbroken
from edgewright_controller.unix_time import unix_ms

_log = log.of(__name__)


class Rollouts(Protocol):
    """What rollouts do about it."""

    async def leave(self, devices: Sequence[str], reason: str, *, waiting_only: bool) -> None:
        """Go on without these devices."""


class Decommissioning:
    """Takes devices out of the fleet. One that enrols anew, with a new token, is back in it."""

    def __init__(
        self, ledger: Ledger, revocations: Revocations, rollouts: Rollouts, clock: Callable[[], datetime]
    ) -> None:
        self._ledger, self._revocations, self._rollouts, self._clock = ledger, revocations, rollouts, clock
        self._unbroken = Unbroken()

    async def decommission(self, device: str, *, by: str, reason: str) -> int:
        """Take `device` out; how many certificates were revoked.

        Raises BadInput when there is no such device, ChangeRefused when it is out already, LedgerError; after that it
        may be said again.
        """
        return await self._unbroken.finish(self._decommission(device, by, reason))

    async def _decommission(self, device: str, by: str, reason: str) -> int:
        now_ms = unix_ms(self._clock())

        def act(connection: Connection) -> bool:
            changed = devices.decommission(connection, device, now_ms)
            if changed:
                cordons.lift(connection, device)
                said = {"actor": f"operator {by}", "action": "device.decommission", "subject": device}
                detail = audit.with_reason("out of the fleet", reason)
                audit.append(connection, **said, detail=detail, now_ms=now_ms)
            return changed

        try:
            changed = await self._ledger.write(act)
        except NotInLedger as error:
            raise BadInput(str(error)) from error
        # What comes now is done again for one that is out: the last time may have ended in the middle.
        await self._rollouts.leave([device], f"decommissioned by {by}", waiting_only=False)
        why = f"decommissioned: {reason}" if reason else "decommissioned"
        try:
            revoked = await self._revocations.revoke(DEVICE, device, by=f"operator {by}", why=why)
        except NothingToRevoke:
            revoked = 0
        if not changed and not revoked:
            raise ChangeRefused(
                f"device {device} was decommissioned before; `edgewright enroll create --device {device}` makes a token"
                " that takes it back"
            )
        _log.warning("device decommissioned", device=device, operator=by, why=reason, certificates=revoked)
        return revoked
