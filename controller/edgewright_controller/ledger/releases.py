"""Releases by digest, with the signed target that goes with each, and which of them were rolled back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from edgewright_contract import canonical
from edgewright_contract.release import Release, from_json
from edgewright_contract.targets import ImageTarget
from edgewright_controller.ledger import artifacts, build_cards, tables
from edgewright_controller.ledger.among import among
from edgewright_controller.ledger.errors import LedgerError, NotInLedger

_MODELS = "model"


@dataclass(frozen=True)
class ReleaseRow:
    """One release. `target` is what the image repository says of its artifact."""

    digest: str
    release: Release
    target: ImageTarget
    created_ms: int


def put(connection: Connection, release: Release, epoch: int, now_ms: int) -> str:
    """Keep a release, whose artifact must be there; its digest. Again: only a higher epoch changes it.

    Raises NotInLedger when the artifact is not there.
    """
    if artifacts.get(connection, release.artifact) is None:
        raise NotInLedger(f"release of {release.model}: there is no artifact {release.artifact[:12]}")
    statement = insert(tables.releases).values(
        digest=release.digest,
        document=canonical.encode(release.to_json()).decode("ascii"),
        model=release.model,
        profile=release.profile,
        artifact=release.artifact,
        release_epoch=epoch,
        created_ms=now_ms,
    )
    # SQLite's max of two values; an epoch only rises.
    higher = func.max(tables.releases.c.release_epoch, statement.excluded.release_epoch)
    connection.execute(statement.on_conflict_do_update(index_elements=["digest"], set_={"release_epoch": higher}))
    return release.digest


def get(connection: Connection, digest: str) -> ReleaseRow:
    """The release with this digest. Raises NotInLedger."""
    row = connection.execute(_select().where(tables.releases.c.digest == digest)).one_or_none()
    if row is None:
        raise NotInLedger(f"there is no release {digest[:12]}")
    return _row(row)


def find(connection: Connection, prefix: str) -> ReleaseRow:
    """The one release whose digest begins with `prefix`. Raises NotInLedger for none, LedgerError for several."""
    digests = tables.releases.c.digest
    rows = connection.execute(_select().where(digests.startswith(prefix, autoescape=True)).limit(2)).all()
    if not rows:
        raise NotInLedger(f"there is no release {prefix!r}; `edgewright releases list` shows those there are")
    if len(rows) > 1:
        raise LedgerError(f"{prefix!r} begins several releases' digests; give more of it")
    return _row(rows[0])


def every(connection: Connection, *, model: str = "", limit: int = 0) -> list[ReleaseRow]:
    """Releases, the newest first: all, or those of `model`; `limit` 0: no limit."""
    table = tables.releases
    statement = _select().order_by(table.c.created_ms.desc(), table.c.digest)
    if model:
        statement = statement.where(table.c.model == model)
    return [_row(row) for row in connection.execute(statement.limit(limit) if limit else statement)]


def models(connection: Connection) -> list[str]:
    """The models of which there are releases."""
    return list(connection.scalars(select(tables.releases.c.model).distinct().order_by(tables.releases.c.model)))


def of_profile(connection: Connection, profile: str) -> frozenset[str]:
    """The digests of all releases of this profile."""
    table = tables.releases
    return frozenset(connection.scalars(select(table.c.digest).where(table.c.profile == profile)))


def artifacts_of(connection: Connection, digests: Iterable[str]) -> dict[str, str]:
    """Release → its artifact's digest, for those that there are."""
    table = tables.releases
    statement = select(table.c.digest, table.c.artifact).where(among(table.c.digest, digests))
    return {row.digest: row.artifact for row in connection.execute(statement)}


def mark_rolled_back(connection: Connection, digest: str, by: str, now_ms: int, reason: str = "") -> None:
    """Refuse this release from now on, until it is released again."""
    values = {"at_ms": now_ms, "by": by, "reason": reason}
    statement = insert(tables.rolled_back).values(release=digest, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["release"], set_=values))


def unmark_rolled_back(connection: Connection, digest: str) -> None:
    """Allow this release again (`apply --again`)."""
    connection.execute(delete(tables.rolled_back).where(tables.rolled_back.c.release == digest))


def rolled_back(connection: Connection) -> frozenset[str]:
    """The digests that are refused."""
    return frozenset(connection.scalars(select(tables.rolled_back.c.release)))


@dataclass(frozen=True)
class RolledBackRow:
    """Who rolled a release back, when (Unix milliseconds), and why; the reason may be empty."""

    by: str
    at_ms: int
    reason: str


def rollbacks(connection: Connection) -> dict[str, RolledBackRow]:
    """The digests that are refused, each with the rollback that refuses it."""
    rows = connection.execute(select(tables.rolled_back))
    return {row.release: RolledBackRow(row.by, row.at_ms, row.reason) for row in rows}


def _select() -> Select[Any]:
    joined = tables.releases.join(tables.artifacts, tables.releases.c.artifact == tables.artifacts.c.bundle)
    columns = [column for column in tables.artifacts.c if column.name != "size"]
    provenance = build_cards.newest_provenance(tables.releases.c.artifact).scalar_subquery().label("provenance")
    return select(tables.releases, *columns, provenance).select_from(joined)


def _row(row: Row[Any]) -> ReleaseRow:
    value = row._mapping
    release = from_json(json.loads(value["document"]))
    target = ImageTarget(
        kind=_MODELS,
        name=release.model,
        hw_class=release.hw_class,
        runtime=release.runtime,
        bundle=release.artifact,
        bundle_length=value["bundle_length"],
        block_index=value["block_index"],
        block_index_length=value["block_index_length"],
        release_epoch=value["release_epoch"],
        provenance=value["provenance"] or "",
    )
    return ReleaseRow(value["digest"], release, target, value["created_ms"])
