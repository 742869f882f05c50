"""Who did what to which device and release: entries that are only ever appended, each bound to the one before.

An entry's hash is sha256 over the canonical JSON of all that it says and of the hash before it, so nothing can be
changed, taken out or put in between without every later hash telling. Append inside the transaction of the act itself:
then there is no act without its entry, and no entry without its act.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import Connection, insert, select

from edgewright_contract import canonical, digest
from edgewright_controller.ledger import tables

FIRST: Final = "0" * 64
MAX_DETAIL_CHARACTERS: Final = 2_000


@dataclass(frozen=True)
class AuditRow:
    """One entry. `actor`: "operator admin", "device jetson-01" or "controller"; `subject`: the device, operator or
    rollout that it was done to; `release` is a digest or empty."""

    number: int
    at_ms: int
    actor: str
    action: str
    subject: str
    release: str
    detail: str
    previous: str
    hash: str

    @property
    def expected_hash(self) -> str:
        """What `hash` is when nothing of the entry was changed."""
        said = asdict(self)
        del said["hash"]
        return digest.of_bytes(canonical.encode(said))


def append(
    connection: Connection,
    *,
    actor: str,
    action: str,
    now_ms: int,
    subject: str = "",
    release: str = "",
    detail: str = "",
) -> AuditRow:
    """Enter what is done in this transaction. `action` is a verb and its object: "certificate.revoke"."""
    table = tables.audit
    last = connection.execute(select(table.c.number, table.c.hash).order_by(table.c.number.desc()).limit(1)).first()
    number, previous = (last.number + 1, last.hash) if last else (1, FIRST)
    said = AuditRow(number, now_ms, actor, action, subject, release, detail[:MAX_DETAIL_CHARACTERS], previous, "")
    row = AuditRow(**{**asdict(said), "hash": said.expected_hash})
    connection.execute(insert(table).values(asdict(row)))
    return row


def entries(connection: Connection, above: int = 0, limit: int = 0) -> Iterator[AuditRow]:
    """Entries with a number above `above`, in their order; `limit` 0: all."""
    statement = select(tables.audit).where(tables.audit.c.number > above).order_by(tables.audit.c.number)
    for row in connection.execute(statement.limit(limit) if limit else statement):
        yield AuditRow(**row._mapping)
