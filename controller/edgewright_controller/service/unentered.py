"""Certificates that were issued between a backup and its restore: entered in the ledger when their holders show them.

The authority signed them, so the gate lets them in; but a ledger that has not heard of them could not revoke them, nor
know their devices. Only such are entered: whose first moment lies between the two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from edgewright_controller import log
from edgewright_controller.ledger import Ledger, NotInLedger, audit, certificates, devices, restorations
from edgewright_controller.ledger.certificates import DEVICE, CertificateRow
from edgewright_controller.ledger.restorations import Restoration
from edgewright_controller.peers import Peer
from edgewright_controller.pki_forms import SKEW
from edgewright_controller.unix_time import unix_ms

MAX_SEEN: Final = 200_000
_SKEW_MS: Final = int(SKEW.total_seconds() * 1000)

_log = log.of(__name__)


class Unentered:
    """Looks at each certificate once. `entered` is awaited after one was entered."""

    def __init__(
        self,
        ledger: Ledger,
        known: Sequence[Restoration],
        entered: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger, self._restorations, self._entered, self._clock = ledger, known, entered, clock
        self._seen: set[str] = set()

    @classmethod
    async def open(
        cls, ledger: Ledger, entered: Callable[[], Awaitable[None]], clock: Callable[[], datetime]
    ) -> Unentered:
        """With the restorations that the ledger knows. Raises LedgerError."""
        return cls(ledger, await ledger.read(restorations.every), entered, clock)

    async def see(self, caller: Peer) -> None:
        """`caller`, whom the gate admitted as a device, is here. Raises LedgerError."""
        if not self._restorations or caller.serial in self._seen:
            return
        if self._is_between(caller) and await self._ledger.read(lambda c: certificates.get(c, caller.serial)) is None:
            now_ms = unix_ms(self._clock())
            if await self._ledger.write(lambda c: _enter(c, caller, now_ms)):
                await self._entered()
                _log.warning("certificate from between backup and restore entered", device=caller.id)
        if len(self._seen) >= MAX_SEEN:
            self._seen.clear()
        self._seen.add(caller.serial)

    def _is_between(self, caller: Peer) -> bool:
        issued = _issued_ms(caller)
        # Clocks differ, those of two hosts all the more.
        return any(one.backup_ms - _SKEW_MS <= issued <= one.restored_ms + _SKEW_MS for one in self._restorations)


def _enter(connection: Connection, caller: Peer, now_ms: int) -> bool:
    """Whether it was entered, and not by another call meanwhile."""
    device, issued_ms = caller.id, _issued_ms(caller)
    if certificates.get(connection, caller.serial) is not None:
        return False
    try:
        devices.get(connection, device)
        what = "certificate.enter"
    except NotInLedger:
        devices.enrol(connection, device, caller.serial, issued_ms)
        what = "device.enter"
    newer = all(row.issued_ms < issued_ms for row in certificates.of(connection, DEVICE, device))
    row = CertificateRow(caller.serial, DEVICE, device, caller.key_sha256, issued_ms, unix_ms(caller.not_after))
    certificates.put(connection, row)
    if newer:
        devices.renewed(connection, device, caller.serial)
        devices.sequence_unknown(connection, device)
        certificates.forget_chain(connection, device)
    detail = f"certificate {caller.serial}, key {caller.key_sha256}, issued between a backup and its restore"
    audit.append(connection, actor=f"device {device}", action=what, subject=device, detail=detail, now_ms=now_ms)
    return True


def _issued_ms(caller: Peer) -> int:
    # Its first moment lies a little before its issue, for clocks that are behind.
    return unix_ms(caller.not_before + SKEW)
