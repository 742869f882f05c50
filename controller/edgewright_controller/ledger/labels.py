"""Labels that operators gave to devices, beside those of the manifest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from edgewright_controller.ledger import tables
from edgewright_controller.ledger.among import among


def put(connection: Connection, device: str, labels: Mapping[str, str], *, by: str, now_ms: int) -> None:
    """Give an enrolled device these labels; the others that it has stay."""
    said = {"by": by, "at_ms": now_ms}
    for name, value in labels.items():
        statement = insert(tables.labels).values(device=device, name=name, value=value, **said)
        changed = {"value": value, **said}
        connection.execute(statement.on_conflict_do_update(index_elements=["device", "name"], set_=changed))


def remove(connection: Connection, device: str, names: Iterable[str]) -> list[str]:
    """Take labels away; the names of those that it had."""
    table = tables.labels
    mine = (table.c.device == device, among(table.c.name, names))
    had = list(connection.scalars(select(table.c.name).where(*mine).order_by(table.c.name)))
    connection.execute(delete(table).where(*mine))
    return had


def every(connection: Connection, only: Iterable[str] | None = None) -> dict[str, dict[str, str]]:
    """Device → name → value: of all devices that have labels, or of those of `only`."""
    table = tables.labels
    statement = select(table).order_by(table.c.device, table.c.name)
    if only is not None:
        statement = statement.where(among(table.c.device, only))
    found: dict[str, dict[str, str]] = {}
    for row in connection.execute(statement):
        found.setdefault(row.device, {})[row.name] = row.value
    return found
