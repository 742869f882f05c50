"""The client certificates that were issued: whose each is, until when it is good, and whether it was revoked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, exists, insert, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert as upsert

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


@dataclass(frozen=True)
class ChainRow:
    """The newest certificate of a device, with the chain (PEM) that it was given."""

    device: str
    serial: str
    key_sha256: str
    chain_pem: bytes


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


def of_key(connection: Connection, key_sha256: str) -> list[CertificateRow]:
    """All certificates for this key, the newest first."""
    table = tables.certificates
    statement = select(table).where(table.c.key_sha256 == key_sha256)
    newest_first = statement.order_by(table.c.issued_ms.desc(), table.c.serial)
    return [CertificateRow(**row._mapping) for row in connection.execute(newest_first)]


def put_chain(connection: Connection, row: ChainRow) -> None:
    """Keep the chain that a device was just given, in place of the one before."""
    statement = upsert(tables.newest_chains).values(row.__dict__)
    connection.execute(statement.on_conflict_do_update(index_elements=["device"], set_=row.__dict__))


def forget_chain(connection: Connection, device: str) -> None:
    """The device has a newer certificate than the one that was kept, and its chain is not known here."""
    connection.execute(delete(tables.newest_chains).where(tables.newest_chains.c.device == device))


def chain(connection: Connection, device: str) -> ChainRow | None:
    """What `put_chain` kept last, None before the first."""
    table = tables.newest_chains
    row = connection.execute(select(table).where(table.c.device == device)).one_or_none()
    return ChainRow(**row._mapping) if row else None


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


def of_revoked(connection: Connection, now_ms: int) -> list[CertificateRow]:
    """Every certificate of those holders who have one that is revoked and has not ended by itself."""
    table = tables.certificates
    holders = select(table.c.kind, table.c.holder).where(table.c.revoked_ms.is_not(None), table.c.not_after_ms > now_ms)
    statement = select(table).where(tuple_(table.c.kind, table.c.holder).in_(holders))
    return [CertificateRow(**row._mapping) for row in connection.execute(statement)]


def shut(connection: Connection, kind: str) -> frozenset[str]:
    """Holders to whom certificates were issued, all of which are revoked."""
    table, other = tables.certificates, tables.certificates.alias()
    left = exists().where(other.c.kind == table.c.kind, other.c.holder == table.c.holder, other.c.revoked_ms.is_(None))
    statement = select(table.c.holder).distinct().where(table.c.kind == kind, table.c.revoked_ms.is_not(None), ~left)
    return frozenset(connection.scalars(statement))
