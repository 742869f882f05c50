"""Enrolment tokens in the ledger, behind the interface that `enrolment` asks for."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from edgewright_controller.enrolment import EnrolmentRow
from edgewright_controller.ledger import tables


@dataclass(frozen=True)
class LedgerEnrolments:
    """An EnrolmentStore on one transaction."""

    connection: Connection

    def get(self, secret_sha256: str) -> EnrolmentRow | None:
        """The token of this secret, None when there is none."""
        table = tables.enrolments
        row = self.connection.execute(select(table).where(table.c.secret_sha256 == secret_sha256)).one_or_none()
        return EnrolmentRow(**row._mapping) if row else None

    def put(self, row: EnrolmentRow) -> None:
        """Keep `row` in place of the one with the same secret_sha256, if any."""
        values = asdict(row)
        statement = insert(tables.enrolments).values(values)
        self.connection.execute(statement.on_conflict_do_update(index_elements=["secret_sha256"], set_=values))


def withdraw(connection: Connection, by: str) -> int:
    """Forget the tokens of this operator that nobody has used; how many."""
    table = tables.enrolments
    return connection.execute(delete(table).where(table.c.by == by, table.c.used_ms.is_(None))).rowcount
