"""What single devices were rolled back from, when others were not: only there the release is refused.

A rollback of the whole fleet is entered in `releases`, and refuses its release everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from edgewright_controller.ledger import tables
from edgewright_controller.ledger.among import among
from edgewright_controller.ledger.releases import RolledBackRow


def mark(connection: Connection, device: str, release: str, by: str, now_ms: int, *, reason: str = "") -> None:
    """Refuse this release to this device from now on, until it is released there again."""
    values = {"at_ms": now_ms, "by": by, "reason": reason}
    statement = insert(tables.rolled_back_on).values(device=device, release=release, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["device", "release"], set_=values))


def unmark(connection: Connection, device: str, release: str) -> None:
    """Allow it there again (`apply --again`)."""
    table = tables.rolled_back_on
    connection.execute(delete(table).where(table.c.device == device, table.c.release == release))


def forget(connection: Connection, device: str) -> None:
    """Another machine has taken this device's place: what was wrong on the old one says nothing of it."""
    connection.execute(delete(tables.rolled_back_on).where(tables.rolled_back_on.c.device == device))


def releases_of(connection: Connection, only: Iterable[str] | None = None) -> dict[str, frozenset[str]]:
    """The digests refused to each device for itself: all such devices, or those of `only`."""
    table = tables.rolled_back_on
    statement = select(table.c.device, table.c.release)
    if only is not None:
        statement = statement.where(among(table.c.device, only))
    found: dict[str, set[str]] = {}
    for device, release in connection.execute(statement):
        found.setdefault(device, set()).add(release)
    return {device: frozenset(digests) for device, digests in found.items()}


def rollbacks(connection: Connection) -> dict[str, dict[str, RolledBackRow]]:
    """Of all devices: what is refused to each for itself, by digest, with the rollback that refuses it."""
    found: dict[str, dict[str, RolledBackRow]] = {}
    for row in connection.execute(select(tables.rolled_back_on)):
        found.setdefault(row.device, {})[row.release] = RolledBackRow(row.by, row.at_ms, row.reason)
    return found


def refused(connection: Connection, wanted: Mapping[str, str | None]) -> dict[str, str]:
    """Of what devices shall get, by device: that which was rolled back, everywhere or just there."""
    everywhere = frozenset(connection.scalars(select(tables.rolled_back.c.release)))
    there = releases_of(connection, wanted)
    none: frozenset[str] = frozenset()
    return {
        device: release
        for device, release in wanted.items()
        if release is not None and (release in everywhere or release in there.get(device, none))
    }
