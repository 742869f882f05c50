"""Who operates the fleet: adding, login, roles, renewal, removal. Each is one transaction of the ledger, and entered.

The ledger says which role counts, at every call; the certificate's role is only the most that it can be. So taking a
role away takes effect at once, and giving more needs another login. The administrator `admin`, whose files the
controller writes at its start, is the controller's own: who has the host has it, and nobody can remove it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from edgewright_contract import names
from edgewright_controller import log, single_use
from edgewright_controller.enrolment import EnrolmentRefused
from edgewright_controller.ledger import Ledger, audit, certificates, operators
from edgewright_controller.ledger.certificates import OPERATOR, CertificateRow
from edgewright_controller.ledger.operators import LoginToken, OperatorRow
from edgewright_controller.peers import Peer, key_digest, peer
from edgewright_controller.pki import Authority, CsrRefused, requested_key
from edgewright_controller.service.revocations import withdraw_unused
from edgewright_controller.single_use import MAX_VALID_S
from edgewright_controller.unix_time import unix_ms

# From the least to the most.
ROLES: Final = ("viewer", "operator", "admin")
BUILT_IN: Final = "admin"
MAX_RENEWALS: Final = 8
RENEWALS_WITHIN: Final = timedelta(days=7)

_log = log.of(__name__)


class OperatorRefused(ValueError):
    """What is asked of an operator cannot be done; the text says why and what to do."""


class Operators:
    """The fleet's operators. `address`: of the enrolment service, where they log in; set it once that listens.
    `changed` is awaited after certificates were issued or revoked."""

    def __init__(
        self,
        ledger: Ledger,
        authority: Authority,
        roles: dict[str, str],
        changed: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger, self._authority = ledger, authority
        self._roles, self._changed, self._clock = roles, changed, clock
        self._looking = asyncio.Lock()
        self.address = ""

    @classmethod
    async def open(
        cls,
        ledger: Ledger,
        authority: Authority,
        changed: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime],
    ) -> Operators:
        """As the ledger has them now. Raises LedgerError."""
        return cls(ledger, authority, await ledger.read(_roles), changed, clock)

    def role(self, caller: Peer) -> str:
        """The role that counts for an operator's certificate, empty for none."""
        own = BUILT_IN if caller.id == BUILT_IN else self._roles.get(caller.id, "")
        if own not in ROLES or caller.role not in ROLES:
            return ""
        return min(own, caller.role, key=ROLES.index)

    async def add(self, name: str, role: str, valid_s: int, by: str) -> tuple[str, int]:
        """(token, its end in Unix milliseconds) for an operator, who is added, or logs in anew with this role.

        Raises OperatorRefused.
        """
        _check(name, role)
        if not 0 <= valid_s <= MAX_VALID_S:
            raise OperatorRefused(f"a token is good for at most {MAX_VALID_S} seconds, not {valid_s}")
        now = self._clock()
        secret = single_use.new_secret()
        ends_ms = unix_ms(now) + 1000 * (valid_s or MAX_VALID_S)

        def act(connection: Connection) -> None:
            operators.put(connection, OperatorRow(name, role, by, unix_ms(now)))
            operators.put_token(connection, LoginToken(single_use.named(secret), name, ends_ms))
            _enter(connection, by, f"operator.add {name}", role, now)

        await self._ledger.write(act)
        await self._look()
        return single_use.text(self.address, name, self._authority.ca_pem, secret), ends_ms

    async def login(self, secret: str, csr_der: bytes) -> tuple[str, str, bytes]:
        """(name, role, chain) for the holder of a login token and of the request's key. The same again for ten minutes.

        Raises EnrolmentRefused.
        """
        now = self._clock()
        given = await self._ledger.write(lambda c: self._login(c, secret, csr_der, now))
        await self._changed()
        _log.info("operator logged in", operator=given[0], role=given[1])
        return given

    async def renew(self, caller: Peer, csr_der: bytes) -> bytes:
        """A chain for the calling operator's new key, with the role that counts. Raises OperatorRefused, CsrRefused."""
        now = self._clock()
        role = self.role(caller)
        if caller.id == BUILT_IN:
            raise OperatorRefused("the controller renews the files of admin itself, in its state folder")

        def act(connection: Connection) -> bytes:
            since = unix_ms(now - RENEWALS_WITHIN)
            lately = [row for row in certificates.of(connection, OPERATOR, caller.id) if row.issued_ms > since]
            if len(lately) >= MAX_RENEWALS:
                raise OperatorRefused(f"{caller.id} had {len(lately)} certificates in 7 days; use those")
            return self._issue(connection, (caller.id, role), csr_der, "operator.renew", now)

        chain = await self._ledger.write(act)
        await self._changed()
        return chain

    async def set_role(self, name: str, role: str, by: str) -> None:
        """Another role, from the next call on. More than the certificate says needs another login.

        Raises OperatorRefused.
        """
        _check(name, role)
        now = self._clock()

        def act(connection: Connection) -> None:
            row = _known(connection, name)
            operators.put(connection, replace(row, role=role))
            _enter(connection, by, f"operator.role {name}", f"{row.role} → {role}", now)

        await self._ledger.write(act)
        await self._look()

    async def remove(self, name: str, by: str) -> int:
        """Take an operator's role and all certificates; how many. Raises OperatorRefused."""
        _check(name, ROLES[0])
        now = self._clock()

        def act(connection: Connection) -> int:
            _known(connection, name)
            operators.remove(connection, name, unix_ms(now))
            rows = certificates.of(connection, OPERATOR, name)
            serials = [row.serial for row in rows if row.revoked_ms is None and row.not_after_ms > unix_ms(now)]
            gone = certificates.revoke(connection, serials, by=f"operator {by}", why="removed", now_ms=unix_ms(now))
            _enter(connection, by, f"operator.remove {name}", ", ".join(gone), now)
            withdraw_unused(connection, name, f"operator {by}", unix_ms(now))
            return len(gone)

        count = await self._ledger.write(act)
        await self._look()
        await self._changed()
        return count

    async def listed(self) -> list[tuple[OperatorRow, int]]:
        """Each operator, and when its newest good certificate ends (Unix milliseconds, 0: none)."""
        now_ms = unix_ms(self._clock())

        def act(connection: Connection) -> list[tuple[OperatorRow, int]]:
            found = []
            for row in operators.every(connection):
                held = certificates.of(connection, OPERATOR, row.name)
                ends = [one.not_after_ms for one in held if one.revoked_ms is None and one.not_after_ms > now_ms]
                found.append((row, max(ends, default=0)))
            return found

        return [(OperatorRow(BUILT_IN, "admin", "", 0), 0), *await self._ledger.read(act)]

    def _login(self, connection: Connection, secret: str, csr_der: bytes, now: datetime) -> tuple[str, str, bytes]:
        row = operators.token(connection, single_use.named(secret))
        if row is None:
            raise EnrolmentRefused("this login token is not known here; ask an administrator for a new one")
        known = operators.get(connection, row.operator)
        if known is None or known.removed_ms is not None:
            raise EnrolmentRefused(f"operator {row.operator} was removed; ask an administrator")
        try:
            key = key_digest(requested_key(csr_der))
            if row.used_ms is not None:
                if row.chain_pem is None or not single_use.is_repeated(row.used_ms, row.key_sha256, key, now):
                    raise EnrolmentRefused(
                        f"this login token of {row.operator} was used already; ask an administrator for a new one"
                    )
                return row.operator, known.role, row.chain_pem
            if unix_ms(now) >= row.expires_ms:
                raise EnrolmentRefused(f"this login token of {row.operator} has ended; ask for a new one")
            chain = self._issue(connection, (row.operator, known.role), csr_der, "operator.login", now)
        except CsrRefused as error:
            raise EnrolmentRefused(f"{row.operator}: {error}") from error
        operators.put_token(connection, replace(row, used_ms=unix_ms(now), key_sha256=key, chain_pem=chain))
        return row.operator, known.role, chain

    def _issue(self, connection: Connection, who: tuple[str, str], csr_der: bytes, action: str, now: datetime) -> bytes:
        name, role = who
        key = key_digest(requested_key(csr_der))
        if certificates.of_key(connection, key):
            raise CsrRefused("this key had a certificate before; make a new key")
        chain = self._authority.issue_operator(name, role, csr_der, now)
        issued = peer(chain, self._authority.fleet)
        row = CertificateRow(issued.serial, OPERATOR, name, key, unix_ms(now), unix_ms(issued.not_after))
        certificates.put(connection, row)
        _enter(connection, name, f"{action} {name}", f"{role}, certificate {issued.serial}, key {key}", now)
        return chain

    async def _look(self) -> None:
        # One at a time, or what was read before a role was taken could take the place of what was read after.
        async with self._looking:
            self._roles = await self._ledger.read(_roles)


def _roles(connection: Connection) -> dict[str, str]:
    return {row.name: row.role for row in operators.every(connection)}


def _check(name: str, role: str) -> None:
    if not names.is_id(name):
        raise OperatorRefused(f"{name!r} is not an operator's name; one looks like alice")
    if name == BUILT_IN:
        raise OperatorRefused(
            f"{BUILT_IN} is the controller's own administrator; its files are on the host, in operator/"
        )
    if role not in ROLES:
        raise OperatorRefused(f"{role!r} is no role; there are {', '.join(ROLES)}")


def _known(connection: Connection, name: str) -> OperatorRow:
    row = operators.get(connection, name)
    if row is None or row.removed_ms is not None:
        raise OperatorRefused(f"there is no operator {name}; `edgewright operator list` lists them")
    return row


def _enter(connection: Connection, by: str, act: str, detail: str, now: datetime) -> None:
    """`act`: the action and the operator that it is done to."""
    action, _, subject = act.partition(" ")
    audit.append(connection, actor=f"operator {by}", action=action, subject=subject, detail=detail, now_ms=unix_ms(now))
