"""Devices that are left as they are until somebody lifts that: no rollout reaches them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from edgewright_controller.ledger import tables
from edgewright_controller.ledger.among import among


@dataclass(frozen=True)
class CordonRow:
    """One cordoned device: by whom, since when (Unix milliseconds), and why."""

    device: str
    by: str
    at_ms: int
    reason: str

    @property
    def words(self) -> str:
        """By whom and why, for a person."""
        return f"{self.by}: {self.reason}" if self.reason else self.by


def put(connection: Connection, row: CordonRow) -> bool:
    """Cordon an enrolled device. False when it is cordoned already: then the first one's word stands."""
    statement = insert(tables.cordons).values(row.__dict__).on_conflict_do_nothing()
    return connection.execute(statement).rowcount == 1


def lift(connection: Connection, device: str) -> bool:
    """The device is as others again. False when it was not cordoned."""
    return connection.execute(delete(tables.cordons).where(tables.cordons.c.device == device)).rowcount == 1


def every(connection: Connection, only: Iterable[str] | None = None) -> dict[str, CordonRow]:
    """The cordoned devices, by id: all, or those of `only`."""
    statement = select(tables.cordons).order_by(tables.cordons.c.device)
    if only is not None:
        statement = statement.where(among(tables.cordons.c.device, only))
    return {row.device: CordonRow(**row._mapping) for row in connection.execute(statement)}
