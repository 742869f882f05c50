"""Operators: who they are, which role each has, and the tokens with which they log in for the first time."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from edgewright_controller.ledger import tables


@dataclass(frozen=True)
class OperatorRow:
    """One operator. `removed_ms` None: has its role. Times are Unix milliseconds."""

    name: str
    role: str
    by: str
    added_ms: int
    removed_ms: int | None = None


@dataclass(frozen=True)
class LoginToken:
    """One token, by the sha256 of its secret. The last three are None until it is used."""

    secret_sha256: str
    operator: str
    expires_ms: int
    used_ms: int | None = None
    key_sha256: str | None = None
    chain_pem: bytes | None = None


def put(connection: Connection, row: OperatorRow) -> None:
    """Keep `row` in place of the one of the same name, if any."""
    values = asdict(row)
    statement = insert(tables.operators).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))


def get(connection: Connection, name: str) -> OperatorRow | None:
    """The operator of this name, also one who was removed; None when there never was one."""
    row = connection.execute(select(tables.operators).where(tables.operators.c.name == name)).one_or_none()
    return OperatorRow(**row._mapping) if row else None


def every(connection: Connection) -> list[OperatorRow]:
    """Those who have a role, by name."""
    table = tables.operators
    statement = select(table).where(table.c.removed_ms.is_(None)).order_by(table.c.name)
    return [OperatorRow(**row._mapping) for row in connection.execute(statement)]


def remove(connection: Connection, name: str, now_ms: int) -> None:
    """Take the operator's role, and the tokens that it has not used."""
    table, tokens = tables.operators, tables.operator_tokens
    connection.execute(update(table).where(table.c.name == name).values(removed_ms=now_ms))
    connection.execute(delete(tokens).where(tokens.c.operator == name, tokens.c.used_ms.is_(None)))


def put_token(connection: Connection, row: LoginToken) -> None:
    """Keep `row` in place of the one of the same secret, if any."""
    values = asdict(row)
    statement = insert(tables.operator_tokens).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["secret_sha256"], set_=values))


def token(connection: Connection, secret_sha256: str) -> LoginToken | None:
    """The token of this secret, None when there is none."""
    table = tables.operator_tokens
    row = connection.execute(select(table).where(table.c.secret_sha256 == secret_sha256)).one_or_none()
    return LoginToken(**row._mapping) if row else None


def withdraw(connection: Connection, by: str) -> int:
    """Remove the unused tokens of all whom `by` has added; how many."""
    table, tokens = tables.operators, tables.operator_tokens
    added = select(table.c.name).where(table.c.by == by)
    statement = delete(tokens).where(tokens.c.used_ms.is_(None), tokens.c.operator.in_(added))
    return connection.execute(statement).rowcount
