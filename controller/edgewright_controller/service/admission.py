"""Certificates for devices: at enrolment, at renewal, and after an end. Each is one transaction of the ledger.

A certificate is always for a key that the controller saw used: the request is signed by it. What the request says of
names is ignored; who the device is follows from its token, from its key, or from the certificate that it calls with.
So whoever replays a request gets a certificate that is of no use without the key.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection

from edgewright_controller import certificate_policy as policy
from edgewright_controller import log
from edgewright_controller.certificate_policy import ReturnRefused
from edgewright_controller.enrolment import EnrolmentRefused, Enrolments
from edgewright_controller.ledger import Ledger, NotInLedger, audit, authorised_keys, certificates, devices
from edgewright_controller.ledger.certificates import DEVICE, CertificateRow, ChainRow
from edgewright_controller.ledger.enrolments import LedgerEnrolments
from edgewright_controller.peers import Peer, key_digest, peer
from edgewright_controller.pki import Authority, CsrRefused, requested_key
from edgewright_controller.service.tokens import check_not_revoked, check_own
from edgewright_controller.service.unbroken import Unbroken
from edgewright_controller.single_use import REPEAT
from edgewright_controller.unix_time import unix_ms

REPLACED = "replaced"
_SAID = {"device.enrol": "device enrolled", "device.return": "device came back"}

_log = log.of(__name__)


class RenewalRefused(Exception):
    """The device may not have another certificate over this connection; the text says why."""


@dataclass(frozen=True)
class _Given:
    """A chain that a device gets, and how it came to it; `again`: it had it before."""

    device: str
    chain: bytes
    action: str
    again: bool = False
    replaced: Sequence[str] = ()


class Admission:
    """Gives devices their certificates. `address`: of the enrolment service, as devices reach it; `return_within`: how
    long after its certificate's end a device comes back by itself. `issued` is awaited after a certificate was entered
    in the ledger, or revoked there."""

    def __init__(
        self,
        ledger: Ledger,
        authority: Authority,
        address: str,
        *,
        return_within: timedelta,
        issued: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger, self._authority, self._clock = ledger, authority, clock
        self._return_within, self._issued = return_within, issued
        self.address = address
        self._unbroken = Unbroken()

    async def enrol(self, secret: str, csr_der: bytes) -> tuple[str, bytes]:
        """(device, chain) for the holder of a token, or, without one, of a known key. The device is in the ledger when
        this returns. Raises EnrolmentRefused."""
        # A device that leaves in the middle may have replaced another one, which must be denied all the same.
        return await self._unbroken.finish(self._enrol(secret, csr_der))

    async def renew(self, caller: Peer, csr_der: bytes) -> bytes:
        """A chain for the calling device. Raises RenewalRefused, CsrRefused, certificate_policy.TooOften."""
        return await self._unbroken.finish(self._renew(caller, csr_der))

    async def _enrol(self, secret: str, csr_der: bytes) -> tuple[str, bytes]:
        now = self._clock()
        given = await self._ledger.write(
            lambda c: self._by_token(c, secret, csr_der, now) if secret else self._by_key(c, csr_der, now)
        )
        await self._issued()
        _log.info(_SAID[given.action], device=given.device, again=given.again)
        if given.replaced:
            _log.warning("device was replaced", device=given.device, revoked=list(given.replaced))
        return given.device, given.chain

    async def _renew(self, caller: Peer, csr_der: bytes) -> bytes:
        now = self._clock()
        given = await self._ledger.write(lambda c: self._renewed(c, caller, csr_der, now))
        if not given.again:
            await self._issued()
            _log.info("device renewed its certificate", device=given.device)
        return given.chain

    def _by_token(self, connection: Connection, secret: str, csr_der: bytes, now: datetime) -> _Given:
        with contextlib.suppress(CsrRefused):  # what is wrong with it, the token's holder is told below
            # Before the token is used, for it is good with another key; also one that was used with another key since.
            check_not_revoked(connection, key_digest(requested_key(csr_der)))
        enrolments = Enrolments(self._authority, LedgerEnrolments(connection), self.address)
        device, chain = enrolments.redeem(secret, csr_der, now)
        return self._entered(connection, device, chain, now)

    def _by_key(self, connection: Connection, csr_der: bytes, now: datetime) -> _Given:
        try:
            key = key_digest(requested_key(csr_der))
            authorised = authorised_keys.get(connection, key)
            if authorised is not None and authorised.used_ms is None:
                check_not_revoked(connection, key)
                authorised_keys.use(connection, key, unix_ms(now))
                chain = self._authority.issue_device(authorised.device, csr_der, now)
                return self._entered(connection, authorised.device, chain, now)
            return self._returned(connection, key, csr_der, now)
        except (CsrRefused, ReturnRefused) as error:
            raise EnrolmentRefused(str(error)) from error

    def _entered(self, connection: Connection, device: str, chain: bytes, now: datetime) -> _Given:
        """The device enrolled with this chain: as itself, or as another machine that takes its place."""
        issued = peer(chain, self._authority.fleet)
        if certificates.get(connection, issued.serial) is not None:
            return _Given(device, chain, "device.enrol", again=True)
        check_own(connection, device, issued.key_sha256, now)
        gone = policy.replaced(certificates.of(connection, DEVICE, device), issued.key_sha256)
        devices.enrol(connection, device, issued.serial, unix_ms(now), another_machine=bool(gone))
        self._enter(connection, issued, chain, "device.enrol", now)
        actor = f"device {device}"
        revoked = certificates.revoke(
            connection, [row.serial for row in gone], by=actor, why=REPLACED, now_ms=unix_ms(now)
        )
        if revoked:
            detail = f"{REPLACED} by {issued.serial}: {', '.join(revoked)}"
            said = {"actor": actor, "action": "certificate.revoke", "subject": device, "detail": detail}
            audit.append(connection, **said, now_ms=unix_ms(now))
        return _Given(device, chain, "device.enrol", replaced=revoked)

    def _returned(self, connection: Connection, key: str, csr_der: bytes, now: datetime) -> _Given:
        known = [row for row in certificates.of_key(connection, key) if row.kind == DEVICE]
        if not known:
            raise EnrolmentRefused("this key is not known here; ask the operator for a token")
        device = known[0].holder
        kept = certificates.chain(connection, device)
        newest = _newest(connection, device, kept)
        lately = (
            unix_ms(now - REPEAT) <= newest.issued_ms
            and newest.revoked_ms is None
            and unix_ms(now) < newest.not_after_ms
        )
        if kept is not None and kept.key_sha256 == key and lately:
            return _Given(device, kept.chain_pem, "device.return", again=True)
        policy.check_return(newest, key, now, self._return_within)
        chain = self._authority.issue_device(device, csr_der, now)
        issued = peer(chain, self._authority.fleet)
        devices.renewed(connection, device, issued.serial)
        self._enter(connection, issued, chain, "device.return", now)
        return _Given(device, chain, "device.return")

    def _renewed(self, connection: Connection, caller: Peer, csr_der: bytes, now: datetime) -> _Given:
        device, key = caller.id, key_digest(requested_key(csr_der))
        try:
            devices.get(connection, device)
        except NotInLedger as error:
            raise RenewalRefused(str(error)) from error
        shown = certificates.get(connection, caller.serial)
        if shown is not None and shown.revoked_ms is not None:
            raise RenewalRefused(f"the certificate of {device} was revoked ({shown.revoked_why}); enrol with a token")
        kept = certificates.chain(connection, device)
        known = certificates.of_key(connection, key)
        if kept is not None and kept.key_sha256 == key and all(row.revoked_ms is None for row in known):
            return _Given(device, kept.chain_pem, "certificate.renew", again=True)
        if known or key == caller.key_sha256:
            raise CsrRefused(f"{device}: this key had a certificate before; a renewal is for a new key")
        policy.check_pace(device, certificates.of(connection, DEVICE, device), now)
        chain = self._authority.issue_device(device, csr_der, now)
        issued = peer(chain, self._authority.fleet)
        devices.renewed(connection, device, issued.serial)
        self._enter(connection, issued, chain, "certificate.renew", now)
        return _Given(device, chain, "certificate.renew")

    def _enter(self, connection: Connection, issued: Peer, chain: bytes, action: str, now: datetime) -> None:
        device, serial, key = issued.id, issued.serial, issued.key_sha256
        certificates.put(
            connection, CertificateRow(serial, DEVICE, device, key, unix_ms(now), unix_ms(issued.not_after))
        )
        certificates.put_chain(connection, ChainRow(device, serial, key, chain))
        said = {"actor": f"device {device}", "action": action, "subject": device}
        audit.append(connection, **said, detail=f"certificate {serial}, key {key}", now_ms=unix_ms(now))


def _newest(connection: Connection, device: str, kept: ChainRow | None) -> CertificateRow:
    """The certificate that the device got last; two may have been issued in one millisecond."""
    last = certificates.get(connection, kept.serial) if kept else None
    return last or certificates.of(connection, DEVICE, device)[0]
