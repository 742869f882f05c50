"""When this ledger came from a backup. What happened between the backup and the restore, it does not know: certificates
were issued, and metadata was signed, that devices have and the ledger has not.

Whatever is counted and only rises, generations and versions of metadata, goes on from the time of the restore in
seconds. Nobody raises them once a second, so that is above all that the fleet was given before, also after a second
restore from the same backup, and no device has to be believed.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, insert, select

from edgewright_controller.ledger import audit, tables


@dataclass(frozen=True)
class Restoration:
    """One restore: the ledger says what was so at `backup_ms`."""

    restored_ms: int
    backup_ms: int


def every(connection: Connection) -> list[Restoration]:
    """All of them, the newest first; empty for a ledger that never came from a backup."""
    newest_first = select(tables.restorations).order_by(tables.restorations.c.restored_ms.desc())
    return [Restoration(**row._mapping) for row in connection.execute(newest_first)]


def counts_from(connection: Connection) -> int:
    """Above this is what no device has seen: generations and versions that it was given before a restore are not. 0
    for a ledger that never came from a backup."""
    return (connection.scalar(select(func.max(tables.restorations.c.restored_ms))) or 0) // 1000


def enter(connection: Connection, row: Restoration) -> int:
    """The ledger has just been restored; how many tokens and authorised keys were voided.

    Who used them since the backup is not known here, so none of them may let anybody in again.
    """
    connection.execute(insert(tables.restorations).values(row.__dict__))
    voided = sum(
        connection.execute(delete(table).where(table.c.used_ms.is_(None))).rowcount
        for table in (tables.enrolments, tables.operator_tokens, tables.authorised_keys)
    )
    detail = f"from a backup of Unix millisecond {row.backup_ms}; {voided} unused tokens and authorised keys are void"
    audit.append(connection, actor="host restore", action="ledger.restore", detail=detail, now_ms=row.restored_ms)
    return voided
