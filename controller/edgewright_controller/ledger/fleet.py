"""Which fleet this ledger is of. Bound at the first start, for good: every certificate names it."""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from edgewright_controller.ledger import tables
from edgewright_controller.ledger.errors import FleetMismatch


def name(connection: Connection) -> str | None:
    """The fleet, None before the first `bind`."""
    return connection.scalar(select(tables.fleet.c.name))


def bind(connection: Connection, fleet: str, now_ms: int) -> None:
    """Make this the ledger of `fleet`; nothing when it is already. Raises FleetMismatch for another."""
    bound = name(connection)
    if bound is None:
        connection.execute(insert(tables.fleet).values(name=fleet, bound_ms=now_ms))
    elif bound != fleet:
        raise FleetMismatch(
            f"this state folder belongs to fleet {bound!r}, not {fleet!r}; use a state folder per fleet"
        )
