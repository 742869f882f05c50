"""The client certificates that were issued: whose each is, until when it is good, and whether it was revoked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, insert, select, update

from edgewright_controller.ledger import tables

DEVICE, OPERATOR = "device", "operator"


@dataclass(frozen=True)
class CertificateRow:
    """One certificate. `serial` is lower-case hex; `key_sha256` of its SubjectPublicKeyInfo, empty when issued before
    it was kept; times are Unix milliseconds. `revoked_ms` None: not revoked."""

    serial: str
    kind: str
    holder: str
    key_sha256: str
    issued_ms: int
    not_after_ms: int
    revoked_ms: int | None = None
    revoked_by: str = ""
    revoked_why: str = ""


def put(connection: Connection, row: CertificateRow) -> None:
    """Enter a certificate that was just issued."""
    connection.execute(insert(tables.certificates).values(row.__dict__))


def of(connection: Connection, kind: str, holder: str) -> list[CertificateRow]:
    """All certificates of a holder, the newest first."""
    table = tables.certificates
    statement = select(table).where(table.c.kind == kind, table.c.holder == holder)
    newest_first = statement.order_by(table.c.issued_ms.desc(), table.c.serial)
    return [CertificateRow(**row._mapping) for row in connection.execute(newest_first)]


def get(connection: Connection, serial: str) -> CertificateRow | None:
    """The certificate of this serial, None when none was entered."""
    table = tables.certificates
    row = connection.execute(select(table).where(table.c.serial == serial)).one_or_none()
    return CertificateRow(**row._mapping) if row else None


def revoke(connection: Connection, serials: Iterable[str], *, by: str, why: str, now_ms: int) -> list[str]:
    """Revoke these, from now on and for ever; the serials of those that were not revoked before."""
    table, revoked = tables.certificates, []
    for serial in serials:
        statement = update(table).where(table.c.serial == serial, table.c.revoked_ms.is_(None))
        values = {"revoked_ms": now_ms, "revoked_by": by, "revoked_why": why}
        if connection.execute(statement.values(values)).rowcount:
            revoked.append(serial)
    return revoked


def revoked(connection: Connection, now_ms: int) -> dict[str, CertificateRow]:
    """What is revoked and has not ended by itself, by serial."""
    table = tables.certificates
    statement = select(table).where(table.c.revoked_ms.is_not(None), table.c.not_after_ms > now_ms)
    return {row.serial: CertificateRow(**row._mapping) for row in connection.execute(statement)}
