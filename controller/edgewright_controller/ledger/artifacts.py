"""What was built, under which key, and how large it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects.sqlite import insert

from edgewright_controller.ledger import tables
from edgewright_controller.ledger.among import among


@dataclass(frozen=True)
class ArtifactRow:
    """An artifact in the store. `bundle` is its identity; lengths and sizes in bytes."""

    bundle: str
    size: int
    bundle_length: int
    block_index: str
    block_index_length: int


@dataclass(frozen=True)
class BuildRow:
    """What a build key gave. `size` in bytes. `recipe` is its JSON, None for what an older controller built."""

    build_key: str
    bundle: str
    size: int
    runtime: str
    made_ms: int
    recipe: str | None = None


def put(connection: Connection, artifact: ArtifactRow) -> None:
    """Keep an artifact; a newer block index replaces the older one."""
    values = asdict(artifact)
    statement = insert(tables.artifacts).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["bundle"], set_=values))


def get(connection: Connection, bundle: str) -> ArtifactRow | None:
    """The artifact with this bundle digest."""
    row = connection.execute(select(tables.artifacts).where(tables.artifacts.c.bundle == bundle)).one_or_none()
    return ArtifactRow(**row._mapping) if row else None


def beginning(connection: Connection, prefix: str) -> list[str]:
    """The digests of artifacts that begin like this, at most two."""
    digests = tables.artifacts.c.bundle
    statement = select(digests).where(digests.startswith(prefix, autoescape=True)).limit(2)
    return list(connection.scalars(statement))


def put_build(connection: Connection, build: BuildRow) -> None:
    """Keep what a build gave; its artifact must be there. The same key again replaces it."""
    values = asdict(build)
    statement = insert(tables.builds).values(values)
    connection.execute(statement.on_conflict_do_update(index_elements=["build_key"], set_=values))


def builds(connection: Connection, keys: Iterable[str] | None = None) -> dict[str, BuildRow]:
    """Builds by key: those of `keys` that were made, or all."""
    statement = select(tables.builds)
    if keys is not None:
        statement = statement.where(among(tables.builds.c.build_key, keys))
    return {row.build_key: BuildRow(**row._mapping) for row in connection.execute(statement)}


def recipe(connection: Connection, bundle: str) -> str | None:
    """The recipe (JSON) of the newest build that gave this artifact; None when that is not known."""
    table = tables.builds
    made = select(table.c.recipe).where(table.c.bundle == bundle, table.c.recipe.is_not(None))
    return connection.scalar(made.order_by(table.c.made_ms.desc()).limit(1))
