"""Who did what to which device and release: entries that are only ever appended, each bound to the one before.

An entry's hash is sha256 over the canonical JSON of all that it says and of the hash before it, so nothing can be
changed, taken out or put in between without every later hash telling. Append inside the transaction of the act itself:
then there is no act without its entry, and no entry without its act.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, func, insert, select

from edgewright_contract import canonical, digest
from edgewright_controller.ledger import tables
from edgewright_controller.ledger.among import among

FIRST: Final = "0" * 64
MAX_DETAIL_CHARACTERS: Final = 2_000
_WHY: Final = "; why: "


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


@dataclass(frozen=True)
class Wanted:
    """Which entries: of this subject, by this actor ("operator alice", or "alice" of whatever kind), since this time,
    and only so many of the newest. Empty and 0: all."""

    subject: str = ""
    actor: str = ""
    since_ms: int = 0
    last: int = 0


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


def with_reason(detail: str, reason: str) -> str:
    """A detail that ends with an operator's reason, which a long detail does not push out. See `parted`."""
    if not reason:
        return detail
    why = _WHY + reason
    return detail[: MAX_DETAIL_CHARACTERS - len(why)] + why


def parted(detail: str) -> tuple[str, str]:
    """What was done, and the operator's reason; empty when none was given."""
    what, _, why = detail.partition(_WHY)
    return what, why


def entries(connection: Connection, above: int = 0, limit: int = 0) -> Iterator[AuditRow]:
    """Entries with a number above `above`, in their order; `limit` 0: all."""
    statement = select(tables.audit).where(tables.audit.c.number > above).order_by(tables.audit.c.number)
    for row in connection.execute(statement.limit(limit) if limit else statement):
        yield AuditRow(**row._mapping)


def last_number(connection: Connection) -> int:
    """The number of the newest entry, 0 when there is none."""
    return connection.scalar(select(func.max(tables.audit.c.number))) or 0


def found(connection: Connection, wanted: Wanted, above: int, to: int, limit: int) -> list[AuditRow]:
    """The first `limit` wanted entries with a number above `above` and not above `to`."""
    between = (tables.audit.c.number > above, tables.audit.c.number <= to)
    statement = select(tables.audit).where(*_conditions(wanted), *between).order_by(tables.audit.c.number)
    return [AuditRow(**row._mapping) for row in connection.execute(statement.limit(limit))]


def before_the_last(connection: Connection, wanted: Wanted) -> int:
    """The number above which just the last of the wanted entries lie."""
    numbers = select(tables.audit.c.number).where(*_conditions(wanted)).order_by(tables.audit.c.number.desc())
    newest = list(connection.scalars(numbers.limit(wanted.last)))
    return newest[-1] - 1 if newest else 0


def newest(
    connection: Connection,
    limit: int,
    *,
    subjects: Collection[str] | None = None,
    since_ms: int = 0,
    without: Sequence[str] = (),
) -> list[AuditRow]:
    """The newest entries first: about one of `subjects` (None: about anything), not of actions that begin so."""
    table = tables.audit
    conditions: list[ColumnElement[bool]] = [table.c.at_ms >= since_ms]
    conditions += [~table.c.action.startswith(beginning, autoescape=True) for beginning in without]
    if subjects is not None:
        conditions.append(among(table.c.subject, subjects))
    statement = select(table).where(*conditions).order_by(table.c.number.desc()).limit(limit)
    return [AuditRow(**row._mapping) for row in connection.execute(statement)]


def _conditions(wanted: Wanted) -> list[ColumnElement[bool]]:
    table, conditions = tables.audit, []
    if wanted.subject:
        conditions.append(table.c.subject == wanted.subject)
    if wanted.actor:
        exact = wanted.actor if " " in wanted.actor else None
        named = [exact] if exact else [f"{kind} {wanted.actor}" for kind in ("operator", "device", "host")]
        conditions.append(table.c.actor.in_([*named, wanted.actor]))
    if wanted.since_ms:
        conditions.append(table.c.at_ms >= wanted.since_ms)
    return conditions


@dataclass(frozen=True)
class Broken:
    """Where a chain does not hold: the entry's number, and what is wrong."""

    number: int
    what: str


def first_fault(rows: Iterable[AuditRow], head: str = "") -> Broken | int:
    """Check a whole log, from its first entry on: how many entries it has, or where it breaks first.

    `head` is the hash of an entry that was noted earlier: it must still be there. Without it, entries that were cut off
    at the end cannot be missed by anybody.
    """
    previous, count, seen = FIRST, 0, not head
    for row in rows:
        if row.number != count + 1:
            return Broken(count + 1, f"it is missing; the next one is {row.number}")
        if row.previous != previous:
            return Broken(row.number, "it does not follow the entry before it")
        if row.hash != row.expected_hash:
            return Broken(row.number, "it was changed")
        previous, count, seen = row.hash, row.number, seen or row.hash == head
    return (
        count
        if seen
        else Broken(count + 1, f"the entry with the hash {head} is gone: the log was cut off, or rewritten")
    )
