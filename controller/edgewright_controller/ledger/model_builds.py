"""Which builds a model has: those that its manifests asked for, also one that was refused, with the reason."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from sqlalchemy import Connection, select, update
from sqlalchemy.dialects.sqlite import insert

from edgewright_controller.ledger import tables


@dataclass(frozen=True)
class ModelBuildRow:
    """One build of one model. `recipe` is JSON; `refused` is why it was, empty when it was not or is not made yet."""

    model: str
    build_key: str
    runtime: str
    quantization: str
    recipe: str
    at_ms: int
    refused: str = ""


def put(connection: Connection, row: ModelBuildRow) -> None:
    """Enter that the model has this build. One that is entered stays as it is."""
    connection.execute(insert(tables.model_builds).values(asdict(row)).on_conflict_do_nothing())


def judged(connection: Connection, build_key: str, refused: str, at_ms: int) -> None:
    """Say of all models that have this build why it was refused, or, with an empty reason, that it was not."""
    table = tables.model_builds
    connection.execute(update(table).where(table.c.build_key == build_key).values(refused=refused, at_ms=at_ms))


def of_model(connection: Connection, model: str) -> list[ModelBuildRow]:
    """The model's builds, the newest first."""
    table = tables.model_builds
    statement = select(table).where(table.c.model == model).order_by(table.c.at_ms.desc(), table.c.build_key)
    return [ModelBuildRow(**row._mapping) for row in connection.execute(statement)]


def models(connection: Connection) -> list[str]:
    """The models that have any."""
    table = tables.model_builds
    return list(connection.scalars(select(table.c.model).distinct().order_by(table.c.model)))
