"""Offline mandates that were drawn up, and the generations that they keep for themselves.

Nobody knows which devices a mandate has reached. So its generation is taken for good: whatever those devices get from
the network later has a higher one, and one that says the mandate's own can have it from nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, Select, func, insert, or_, select

from edgewright_controller.ledger import restorations, tables


@dataclass(frozen=True)
class MandateRow:
    """One mandate. `number` counts those of the fleet; exactly one of `device` and `profile` is given."""

    number: int
    device: str | None
    profile: str | None
    generation: int
    release: str
    issued_ms: int
    expires_ms: int
    by: str


def next_number(connection: Connection) -> int:
    """The number of the next mandate."""
    return (connection.scalar(select(func.max(tables.mandates.c.number))) or 0) + 1


def put(connection: Connection, row: MandateRow) -> None:
    """Keep a mandate, and its generation for it."""
    connection.execute(insert(tables.mandates).values(row.__dict__))


def every(connection: Connection) -> list[MandateRow]:
    """All mandates, the newest first."""
    newest_first = select(tables.mandates).order_by(tables.mandates.c.number.desc())
    return [MandateRow(**row._mapping) for row in connection.execute(newest_first)]


def are_there(connection: Connection) -> bool:
    """Whether any mandate was ever drawn up."""
    return connection.execute(select(tables.mandates.c.number).limit(1)).first() is not None


def reserved(connection: Connection, device: str, release: str | None = None) -> int:
    """The highest generation of a mandate that `device` may take now, or once `release` makes it another profile's."""
    table = tables.mandates
    theirs = or_(table.c.device == device, table.c.profile.in_(_profiles(device, release)))
    return connection.scalar(select(func.max(table.c.generation)).where(theirs)) or 0


def highest(connection: Connection) -> int:
    """The highest generation that any device of the fleet was ever given, or may have been before a restore, or that
    a mandate keeps."""
    tops = [connection.scalar(select(func.max(table.c.generation))) for table in (tables.desired, tables.mandates)]
    return max(restorations.counts_from(connection), *(top or 0 for top in tops))


def of_generation(connection: Connection, device: str, generation: int) -> MandateRow | None:
    """The mandate that may have given `device` this generation."""
    table = tables.mandates
    theirs = or_(table.c.device == device, table.c.profile.in_(_profiles(device, None)))
    found = connection.execute(select(table).where(table.c.generation == generation, theirs)).first()
    return MandateRow(**found._mapping) if found else None


def _profiles(device: str, release: str | None) -> Select[tuple[str]]:
    """The profile of what the device should have, and that of `release`."""
    desired, known = tables.desired, tables.releases
    newest = select(desired.c.release).where(desired.c.device == device).order_by(desired.c.generation.desc()).limit(1)
    return select(known.c.profile).where(or_(known.c.digest == release, known.c.digest == newest.scalar_subquery()))
