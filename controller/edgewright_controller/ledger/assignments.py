"""Which release the manifest that was applied last has for each of its devices, enrolled or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection, delete, or_, select
from sqlalchemy.dialects.sqlite import insert

from edgewright_controller.ledger import tables
from edgewright_controller.ledger.among import among


def put(connection: Connection, given: Mapping[str, str | None], devices: Collection[str], now_ms: int) -> None:
    """Enter what an apply gives: device → release, None for nothing. `devices`: all of its manifest; others are
    forgotten, and those of them that the apply was not for keep what an earlier one gave."""
    table = tables.assignments
    nothing = [device for device, release in given.items() if release is None]
    connection.execute(delete(table).where(or_(~among(table.c.device, devices), among(table.c.device, nothing))))
    for device, release in given.items():
        if release is not None:
            statement = insert(table).values(device=device, release=release, at_ms=now_ms)
            changed = {"release": release, "at_ms": now_ms}
            connection.execute(statement.on_conflict_do_update(index_elements=["device"], set_=changed))


def every(connection: Connection) -> dict[str, str]:
    """Device → release."""
    table = tables.assignments
    return {row.device: row.release for row in connection.execute(select(table).order_by(table.c.device))}


def never_given(connection: Connection) -> dict[str, str]:
    """The same, of those enrolled devices that were never to have anything."""
    table, given, of = tables.assignments, tables.desired, tables.devices
    enrolled = select(of.c.id).where(of.c.decommissioned_ms.is_(None))
    statement = select(table).where(table.c.device.in_(enrolled), table.c.device.not_in(select(given.c.device)))
    return {row.device: row.release for row in connection.execute(statement.order_by(table.c.device))}
