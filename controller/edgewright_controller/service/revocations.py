"""Who may no longer speak, in this process's memory, and the one way in which it grows.

What was revoked stands in the ledger. Every call looks here, and every stream that stands waits here, so a revocation
takes effect at the next call and ends what is going on.

A certificate that the ledger does not know may be shown all the same: after a restore from a backup there are such, and
the fleet must not be locked out by its own controller. But one that its holder had before the newest revocation of that
holder is refused too, known or not: whoever revokes a device means all that it had.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final

from sqlalchemy import Connection

from edgewright_controller import log
from edgewright_controller.ledger import Ledger, audit, authorised_keys, certificates, enrolments, operators
from edgewright_controller.ledger.certificates import DEVICE, OPERATOR, CertificateRow
from edgewright_controller.peers import Peer
from edgewright_controller.pki_forms import SKEW
from edgewright_controller.service.unbroken import Unbroken
from edgewright_controller.unix_time import unix_ms

# How often a stream that stands is looked at again, although nothing was revoked: its caller's certificate may end.
LOOK_EVERY_S: Final = 60.0

_log = log.of(__name__)


class NothingToRevoke(Exception):
    """The holder has no certificate that could be revoked; the text says so and what to look at."""


@dataclass(frozen=True)
class Denials:
    """What is revoked, at one moment. `newest`: (kind, holder) → when its newest revocation was, and the serials that
    it may show all the same. `shut_devices`: those of which everything is revoked, also what has ended since."""

    revoked: Mapping[str, CertificateRow]
    newest: Mapping[tuple[str, str], tuple[datetime, frozenset[str]]]
    shut_devices: frozenset[str]

    def reason(self, peer: Peer) -> str:
        """Why `peer` is refused, for its eyes; empty when it is not."""
        row = self.revoked.get(peer.serial)
        if row is None:
            since, good = self.newest.get((peer.kind, peer.id), (None, frozenset()))
            # The certificate's first moment lies a little before its issue, for clocks that are behind.
            if since is None or peer.serial in good or peer.not_before + SKEW > since:
                return ""
        why = f" ({row.revoked_why})" if row is not None and row.revoked_why else ""
        return f"the certificate of {peer.kind} {peer.id} was revoked{why}; {_cure(peer.kind)}"


def denials(connection: Connection, now_ms: int) -> Denials:
    """What the ledger says is revoked and would be good otherwise."""
    by_holder: dict[tuple[str, str], list[CertificateRow]] = {}
    for row in certificates.of_revoked(connection, now_ms):
        by_holder.setdefault((row.kind, row.holder), []).append(row)
    newest: dict[tuple[str, str], tuple[datetime, frozenset[str]]] = {}
    for holder, rows in by_holder.items():
        since = max(row.revoked_ms for row in rows if row.revoked_ms is not None)
        good = frozenset(row.serial for row in rows if row.revoked_ms is None and row.not_after_ms > now_ms)
        newest[holder] = (datetime.fromtimestamp(since / 1000, timezone.utc), good)
    return Denials(certificates.revoked(connection, now_ms), newest, certificates.shut(connection, DEVICE))


class Revocations:
    """The denials of this process. `open` reads them; everything else runs on the event loop."""

    def __init__(self, ledger: Ledger, current: Denials, clock: Callable[[], datetime]) -> None:
        self._ledger, self._clock = ledger, clock
        self.current = current
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._reading = asyncio.Lock()
        self._unbroken = Unbroken()

    @classmethod
    async def open(cls, ledger: Ledger, clock: Callable[[], datetime]) -> Revocations:
        """As the ledger has them now. Raises LedgerError."""
        return cls(ledger, await ledger.read(lambda c: denials(c, unix_ms(clock()))), clock)

    def listen(self, told: Callable[[], None]) -> None:
        """Have `told` called after each change. It must not block."""
        self._listeners.append(told)

    async def revoke(self, kind: str, holder: str, *, by: str, why: str) -> int:
        """Revoke all certificates that `holder` has; how many. `by`: as the audit log names actors.

        What an operator gave out and nobody has used yet, tokens and authorised keys, is withdrawn with it. Raises
        NothingToRevoke, LedgerError.
        """
        # Whoever asked may leave; what is revoked must be denied all the same.
        return await self._unbroken.finish(self._revoke(kind, holder, by=by, why=why))

    async def _revoke(self, kind: str, holder: str, *, by: str, why: str) -> int:
        def act(connection: Connection) -> list[str]:
            now_ms = unix_ms(self._clock())
            rows = certificates.of(connection, kind, holder)
            # Also those that ended: a device may come back by the key of its last one (`certificate_policy`).
            serials = [
                row.serial for row in rows if row.revoked_ms is None and (kind == DEVICE or row.not_after_ms > now_ms)
            ]
            done = certificates.revoke(connection, serials, by=by, why=why, now_ms=now_ms)
            if done:
                detail = f"{', '.join(done)}: {why}" if why else ", ".join(done)
                audit.append(
                    connection, actor=by, action=f"{kind}.revoke", subject=holder, detail=detail, now_ms=now_ms
                )
                if kind == OPERATOR:
                    withdraw_unused(connection, holder, by, now_ms)
            return done

        done = await self._ledger.write(act)
        if not done:
            raise NothingToRevoke(f"{kind} {holder} has no certificate that could be revoked; {_look(kind)}")
        await self.refresh()
        _log.warning("certificates revoked", kind=kind, holder=holder, count=len(done), by=by, why=why)
        return len(done)

    async def refresh(self) -> None:
        """Read the ledger again, since something may have been revoked or issued; ends what may not go on.

        Call it after every transaction that revokes. Raises LedgerError.
        """
        async with self._reading:  # or what was read before a revocation could take the place of what was read after
            before, self.current = self.current, await self._ledger.read(lambda c: denials(c, unix_ms(self._clock())))
        if self.current.revoked.keys() - before.revoked.keys():
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()
            for told in self._listeners:
                told()

    def reason(self, peer: Peer) -> str:
        """Why `peer` is refused, for its eyes; empty when it is not."""
        return self.current.reason(peer)

    async def until_denied(self, peer: Peer) -> str:
        """Why `peer` may not go on, once that is so: it was revoked, or its certificate ended."""
        while not (reason := self.current.reason(peer)):
            left = (peer.not_after - self._clock()).total_seconds()
            if left <= 0:
                return f"the certificate of {peer.kind} {peer.id} ended while the call ran; renew it"
            change = asyncio.ensure_future(self._changed.wait())
            try:
                await asyncio.wait({change}, timeout=min(LOOK_EVERY_S, left))
            finally:
                change.cancel()
        return reason

    def shut_devices(self) -> frozenset[str]:
        """Devices that may say nothing any more, by whatever way: all that they had is revoked."""
        return self.current.shut_devices


def revoked_serials(current: Denials) -> Mapping[int, datetime]:
    """Serial number → when it was revoked, for a revocation list."""
    return {
        int(serial, 16): datetime.fromtimestamp((row.revoked_ms or 0) / 1000, timezone.utc)
        for serial, row in current.revoked.items()
    }


def withdraw_unused(connection: Connection, operator: str, by: str, now_ms: int) -> None:
    """Void what an operator gave out and nobody has used: with it, somebody who was just shut out could let a machine
    of their own in, or a friend."""
    tokens = enrolments.withdraw(connection, operator) + operators.withdraw(connection, operator)
    keys = authorised_keys.withdraw(connection, operator)
    if tokens or keys:
        said = {"actor": by, "action": "enrolment.withdraw", "subject": operator}
        detail = f"unused: {tokens} tokens, {keys} authorised keys"
        audit.append(connection, **said, detail=detail, now_ms=now_ms)


def _cure(kind: str) -> str:
    if kind == "device":
        return "enrol it again, with the token that `edgewright enroll create` prints"
    return "ask an administrator of the fleet"


def _look(kind: str) -> str:
    return "`edgewright devices` lists those enrolled" if kind == DEVICE else "`edgewright operator list` lists them"
