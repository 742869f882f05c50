"""What was measured on each build, also on one that was refused: judged again whenever limits change."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, Select, select, update
from sqlalchemy.dialects.sqlite import insert

from edgewright_controller.ledger import tables
from edgewright_controller.ledger.among import among


@dataclass(frozen=True)
class BuildCardRow:
    """What the gate measured on what a key gave, and how it judged then. `artifact` is the bundle's digest; only one
    that `passed` is in the store. `measures` and `card` are JSON, `provenance` a sha256; the latter two follow when
    the artifact was stored. `measures` is empty when there was no gate."""

    build_key: str
    artifact: str
    measures: str
    passed: bool
    made_ms: int
    card: str | None = None
    provenance: str | None = None


def put(connection: Connection, row: BuildCardRow) -> None:
    """Keep what was measured; the same key again replaces it."""
    values = asdict(row)
    statement = insert(tables.build_cards).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["build_key"], set_=values))


def put_card(connection: Connection, build_key: str, card: str, provenance: str | None) -> bool:
    """Add the report card and the digest of the provenance statement. False when nothing was measured for the key."""
    table = tables.build_cards
    added = update(table).where(table.c.build_key == build_key).values(card=card, provenance=provenance)
    return connection.execute(added).rowcount == 1


def get(connection: Connection, build_key: str) -> BuildCardRow | None:
    """What was measured for this key."""
    return every(connection, [build_key]).get(build_key)


def provenance(connection: Connection, artifact: str) -> str:
    """The digest of the newest statement of how this artifact was made; empty when there is none."""
    return connection.scalar(newest_provenance(artifact)) or ""


def newest_provenance(artifact: str | ColumnElement[str]) -> Select[tuple[str]]:
    """The statement that finds it, for other statements too."""
    table = tables.build_cards
    said = select(table.c.provenance).where(table.c.artifact == artifact, table.c.passed)
    return said.where(table.c.provenance.is_not(None)).order_by(table.c.made_ms.desc(), table.c.build_key).limit(1)


def every(connection: Connection, keys: Iterable[str] | None = None) -> dict[str, BuildCardRow]:
    """What was measured, by key: for those of `keys`, or for all."""
    statement = select(tables.build_cards)
    if keys is not None:
        statement = statement.where(among(tables.build_cards.c.build_key, keys))
    return {row.build_key: BuildCardRow(**row._mapping) for row in connection.execute(statement)}


def of_artifact(connection: Connection, artifact: str) -> BuildCardRow | None:
    """The newest of those that passed with this artifact."""
    table = tables.build_cards
    statement = select(table).where(table.c.artifact == artifact, table.c.passed)
    row = connection.execute(statement.order_by(table.c.made_ms.desc()).limit(1)).one_or_none()
    return BuildCardRow(**row._mapping) if row else None
