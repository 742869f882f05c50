"""The manifests that were applied: who made the fleet what it is, by which text, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select

from edgewright_controller.ledger import tables

KEPT: Final = 20  # a text may have megabytes; the audit log keeps the digest of each


@dataclass(frozen=True)
class AppliedRow:
    """One manifest that was applied. `number` counts from 1; `folder` is where its relative sources start; `text` is
    TOML; `reason` may be empty."""

    number: int
    at_ms: int
    by: str
    file: str
    folder: str
    text: str
    reason: str


def put(connection: Connection, *, by: str, file: str, folder: str, text: str, reason: str, now_ms: int) -> AppliedRow:
    """Enter a manifest as the one that counts from now on. The oldest beyond `KEPT` are forgotten."""
    table = tables.applied
    number = last_number(connection) + 1
    row = AppliedRow(number, now_ms, by, file, folder, text, reason)
    connection.execute(insert(table).values(row.__dict__))
    connection.execute(delete(table).where(table.c.number <= number - KEPT))
    return row


def last_number(connection: Connection) -> int:
    """The number of the one that was applied last; 0 before the first."""
    return connection.scalar(select(func.max(tables.applied.c.number))) or 0


def last(connection: Connection) -> AppliedRow | None:
    """The one that was applied last; None before the first."""
    row = connection.execute(select(tables.applied).order_by(tables.applied.c.number.desc()).limit(1)).first()
    return AppliedRow(**row._mapping) if row else None
