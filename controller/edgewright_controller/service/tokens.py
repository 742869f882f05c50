"""Enrolment tokens and what they are redeemed for, each in one transaction of the ledger."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from sqlalchemy import Connection

from edgewright_controller import log
from edgewright_controller.enrolment import MAX_VALID_S, Enrolments
from edgewright_controller.ledger import Ledger, audit, certificates, devices
from edgewright_controller.ledger.certificates import DEVICE, CertificateRow
from edgewright_controller.ledger.enrolments import LedgerEnrolments
from edgewright_controller.peers import peer
from edgewright_controller.pki import Authority

_log = log.of(__name__)


class Tokens:
    """Makes and redeems tokens. `address`: of the enrolment service, as devices reach it. `issued` is awaited after a
    certificate was entered in the ledger, or revoked there."""

    def __init__(
        self,
        ledger: Ledger,
        authority: Authority,
        address: str,
        issued: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger, self._authority, self._address = ledger, authority, address
        self._issued, self._clock = issued, clock

    async def create(self, device: str, valid_s: int) -> tuple[str, int]:
        """(token, Unix milliseconds of its end) for `device`; 0 seconds: the longest. Raises EnrolmentRefused."""
        now = self._clock()
        token = await self._ledger.write(lambda c: self._enrolments(c).create(device, valid_s, now))
        return token, _ms(now) + 1000 * (valid_s or MAX_VALID_S)

    async def redeem(self, secret: str, csr_der: bytes) -> tuple[str, bytes]:
        """(device, chain); the device is in the ledger when this returns. Raises EnrolmentRefused."""
        now = self._clock()

        def act(connection: Connection) -> tuple[str, bytes]:
            device, chain = self._enrolments(connection).redeem(secret, csr_der, now)
            issued = peer(chain, self._authority.fleet)
            devices.enrol(connection, device, issued.serial, _ms(now))
            if certificates.get(connection, issued.serial) is None:  # the same token may get the same again
                row = CertificateRow(issued.serial, DEVICE, device, issued.key_sha256, _ms(now), _ms(issued.not_after))
                certificates.put(connection, row)
                actor = f"device {device}"
                detail = f"certificate {issued.serial}, key {issued.key_sha256}"
                audit.append(
                    connection, actor=actor, action="device.enrol", subject=device, detail=detail, now_ms=_ms(now)
                )
            return device, chain

        device, chain = await self._ledger.write(act)
        await self._issued()
        _log.info("device enrolled", device=device)
        return device, chain

    def _enrolments(self, connection: Connection) -> Enrolments:
        return Enrolments(self._authority, LedgerEnrolments(connection), self._address)


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
