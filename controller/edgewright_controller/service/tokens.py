"""What an administrator gives out so that a device may enrol: tokens, and the word that a key is a device's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from edgewright_contract import names
from edgewright_controller.enrolment import EnrolmentRefused, Enrolments, KeyRevoked, key_in
from edgewright_controller.ledger import Ledger, audit, authorised_keys, certificates, devices
from edgewright_controller.ledger.authorised_keys import AuthorisedKey
from edgewright_controller.ledger.enrolments import LedgerEnrolments
from edgewright_controller.pki import Authority
from edgewright_controller.single_use import MAX_VALID_S
from edgewright_controller.unix_time import unix_ms


@dataclass(frozen=True)
class Invitation:
    """A token's text. Times in Unix milliseconds: its end (0: none), and when `device` enrolled before (0: never)."""

    token: str
    expires_ms: int
    enrolled_ms: int
    key_sha256: str = ""


class Tokens:
    """Each call is one transaction. `address`: of the enrolment service, as devices reach it."""

    def __init__(self, ledger: Ledger, authority: Authority, address: str, clock: Callable[[], datetime]) -> None:
        self._ledger, self._authority, self._address, self._clock = ledger, authority, address, clock

    async def create(self, device: str, valid_s: int, by: str) -> Invitation:
        """A token for `device`, by an operator; 0 seconds: the longest. Raises EnrolmentRefused."""
        now = self._clock()

        def act(connection: Connection) -> Invitation:
            token = self._enrolments(connection).create(device, valid_s, now, by)
            ends_ms = unix_ms(now) + 1000 * (valid_s or MAX_VALID_S)
            actor = f"operator {by}"
            audit.append(connection, actor=actor, action="enrolment.create", subject=device, now_ms=unix_ms(now))
            return Invitation(token, ends_ms, _enrolled_ms(connection, device))

        return await self._ledger.write(act)

    async def authorise(self, device: str, public_key_pem: str, by: str) -> Invitation:
        """Let the holder of this key enrol as `device`, once, by an operator. Raises EnrolmentRefused."""
        now = self._clock()
        if not names.is_id(device):
            raise EnrolmentRefused(f"{device!r} is not a device id; one looks like jetson-01")
        key = key_in(public_key_pem)

        def act(connection: Connection) -> Invitation:
            before = authorised_keys.get(connection, key)
            if before is not None and before.device != device and before.used_ms is None:
                raise EnrolmentRefused(
                    f"the key {key[:12]} is authorised for {before.device} already, not for {device}"
                )
            check_not_revoked(connection, key)
            check_own(connection, device, key, now)
            if before is None or before.used_ms is not None:
                authorised_keys.put(connection, AuthorisedKey(key, device, by, unix_ms(now)))
                said = {"actor": f"operator {by}", "action": "key.authorise", "subject": device}
                audit.append(connection, **said, detail=f"key {key}", now_ms=unix_ms(now))
            token = self._enrolments(connection).without_secret(device)
            return Invitation(token, 0, _enrolled_ms(connection, device), key)

        return await self._ledger.write(act)

    def _enrolments(self, connection: Connection) -> Enrolments:
        return Enrolments(self._authority, LedgerEnrolments(connection), self._address)


def check_not_revoked(connection: Connection, key_sha256: str) -> None:
    """Raise KeyRevoked when a certificate of this key was revoked: whoever has the old one has the key, perhaps."""
    for row in certificates.of_key(connection, key_sha256):
        if row.revoked_ms is not None:
            raise KeyRevoked(
                f"the key {key_sha256[:12]} was revoked with a certificate of {row.holder}, and is good for none any"
                " more; with a token the device makes another key by itself"
            )


def check_own(connection: Connection, device: str, key_sha256: str, now: datetime) -> None:
    """Raise EnrolmentRefused when this key speaks for somebody else at this moment."""
    for row in certificates.of_key(connection, key_sha256):
        if row.holder != device and row.revoked_ms is None and row.not_after_ms > unix_ms(now):
            raise EnrolmentRefused(
                f"the key {key_sha256[:12]} is that of {row.kind} {row.holder}; {device} needs a key of its own,"
                " in a state folder of its own"
            )


def _enrolled_ms(connection: Connection, device: str) -> int:
    rows = devices.every(connection, [device])
    return rows[0].enrolled_ms if rows else 0
