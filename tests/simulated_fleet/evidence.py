"""What is on the disks: the controller's ledger and the devices' states, read from outside, whoever runs or is dead."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, case, create_engine, func, select
from sqlalchemy.pool import NullPool

from edgewright_agent import status
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import audit, tables
from edgewright_controller.ledger.audit import AuditRow
from edgewright_controller.rollout import DevicePhase, RolloutPhase
from tests.simulated_fleet.device import TRAIL, Trail


@dataclass(frozen=True)
class Part:
    """Where one device stands in a rollout. `detached`: another rollout has it."""

    phase: DevicePhase
    generation: int
    release: str
    previous: str
    detached: bool
    reason: str


@dataclass(frozen=True)
class Rollout:
    """One rollout, with each of its devices."""

    id: str
    number: int
    phase: RolloutPhase
    ended: bool
    reason: str
    parts: Mapping[str, Part]


@dataclass(frozen=True)
class Known:
    """What the ledger says of a device: what it should have, and the last that it said."""

    release: str
    generation: int
    status: agent_pb2.DeviceStatus
    sequence: int


@dataclass(frozen=True)
class Reports:
    """Of one spool of a device: the mark, up to which none is missing, how many of those are stored, and how many the
    device had to drop."""

    mark: int
    below_mark: int
    dropped: int


@dataclass(frozen=True)
class LedgerFound:
    """All of it, in one transaction. `reports` by (device, spool epoch)."""

    rollouts: Sequence[Rollout]
    devices: Mapping[str, Known]
    reports: Mapping[tuple[str, bytes], Reports]
    audit: Sequence[AuditRow]


@dataclass(frozen=True)
class Disk:
    """What a device remembers: its state (see status.read), and the trail that a simulated one leaves."""

    state: Mapping[str, Any]
    trail: Sequence[Mapping[str, Any]]

    @property
    def told(self) -> int:
        """The highest sequence of a status that the controller has taken."""
        return max((line["sequence"] for line in self.trail if line["what"] == "told"), default=0)

    @property
    def resting(self) -> bool:
        """Whether no update is under way."""
        return bool(self.state["step"] == "idle")


def read_ledger(path: Path) -> LedgerFound:
    """The ledger as it is committed now."""
    with _reading(path) as connection:
        return LedgerFound(
            _rollouts(connection),
            _devices(connection),
            _reports(connection),
            tuple(audit.entries(connection)),
        )


def live(path: Path) -> list[str]:
    """The rollouts that have not ended, as the ledger has them."""
    with _reading(path) as connection:
        table = tables.rollouts
        return list(connection.scalars(select(table.c.id).where(table.c.ended_at.is_(None)).order_by(table.c.number)))


def newest_rollout(path: Path) -> int:
    """The number of the newest rollout, 0 before the first."""
    with _reading(path) as connection:
        return connection.scalar(select(func.max(tables.rollouts.c.number))) or 0


def heard(path: Path) -> set[str]:
    """The devices that have enrolled and said how they stand."""
    with _reading(path) as connection:
        return set(connection.scalars(select(tables.devices.c.id).where(tables.devices.c.status.is_not(None))))


def _reading(path: Path) -> Connection:
    return create_engine(f"sqlite:///file:{path}?mode=ro&uri=true", poolclass=NullPool).connect()


def read_disk(state: Path) -> Disk:
    """What the device in this folder remembers now."""
    return Disk(status.read(state), Trail.read(state / TRAIL))


def highest_in_spool(state: Path) -> int:
    """The highest number of a report that the device keeps, since nobody has said that it is stored; 0: none."""
    with sqlite3.connect(f"file:{state / 'spool.sqlite'}?mode=ro", uri=True) as connection:
        return int(connection.execute("SELECT COALESCE(MAX(seq), 0) FROM envelope").fetchone()[0])


def _rollouts(connection: Connection) -> list[Rollout]:
    of, parts = tables.rollouts, tables.rollout_devices
    by_rollout: dict[str, dict[str, Part]] = {}
    for row in connection.execute(select(parts)):
        part = Part(
            DevicePhase(row.state), row.generation, row.release or "", row.previous or "", row.detached, row.reason
        )
        by_rollout.setdefault(row.rollout, {})[row.device] = part
    rows = connection.execute(select(of).order_by(of.c.number))
    return [
        Rollout(
            row.id,
            row.number,
            RolloutPhase(row.state),
            row.ended_at is not None,
            row.reason,
            by_rollout.get(row.id, {}),
        )
        for row in rows
    ]


def _devices(connection: Connection) -> dict[str, Known]:
    wanted = tables.desired
    newest = select(wanted.c.device, func.max(wanted.c.generation).label("generation")).group_by(wanted.c.device)
    top = newest.subquery()
    joined = select(wanted).join(top, (wanted.c.device == top.c.device) & (wanted.c.generation == top.c.generation))
    given = {row.device: (row.release or "", row.generation) for row in connection.execute(joined)}
    return {
        row.id: Known(
            *given.get(row.id, ("", 0)), agent_pb2.DeviceStatus.FromString(row.status or b""), row.status_sequence
        )
        for row in connection.execute(select(tables.devices))
    }


def _reports(connection: Connection) -> dict[tuple[str, bytes], Reports]:
    table, marks = tables.telemetry, tables.watermarks
    same = (marks.c.device == table.c.device) & (marks.c.spool_epoch == table.c.spool_epoch)
    key = (table.c.device, table.c.spool_epoch)
    below = func.sum(case((table.c.seq <= marks.c.seq, 1), else_=0))
    counted = select(*key, func.max(marks.c.seq), below, func.sum(table.c.dropped_before))
    return {
        (device, epoch): Reports(mark or 0, count, dropped)
        for device, epoch, mark, count, dropped in connection.execute(
            counted.select_from(table.outerjoin(marks, same)).group_by(*key)
        )
    }
