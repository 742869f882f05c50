"""Keys of devices that may enrol without a token: each once, as one device."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from edgewright_controller.ledger import tables


@dataclass(frozen=True)
class AuthorisedKey:
    """A key by the sha256 of its SubjectPublicKeyInfo. `used_ms` None: it did not enrol yet."""

    key_sha256: str
    device: str
    by: str
    authorised_ms: int
    used_ms: int | None = None


def get(connection: Connection, key_sha256: str) -> AuthorisedKey | None:
    """What was said of this key last, None when nothing ever was."""
    table = tables.authorised_keys
    row = connection.execute(select(table).where(table.c.key_sha256 == key_sha256)).one_or_none()
    return AuthorisedKey(**row._mapping) if row else None


def put(connection: Connection, row: AuthorisedKey) -> None:
    """Let this key enrol once from now on, whatever it did before."""
    statement = insert(tables.authorised_keys).values(row.__dict__)
    connection.execute(statement.on_conflict_do_update(index_elements=["key_sha256"], set_=row.__dict__))


def use(connection: Connection, key_sha256: str, now_ms: int) -> None:
    """The key enrolled; it does not do so again."""
    table = tables.authorised_keys
    connection.execute(update(table).where(table.c.key_sha256 == key_sha256).values(used_ms=now_ms))


def withdraw(connection: Connection, by: str) -> int:
    """Forget the keys that this operator authorised and that have not enrolled; how many."""
    table = tables.authorised_keys
    return connection.execute(delete(table).where(table.c.by == by, table.c.used_ms.is_(None))).rowcount
