"""How devices did: their telemetry added up by device, generation, artifact and ten minutes, as it is stored.

A window in which a device changed what it serves says nothing of either version, and is left out; so is one without a
request. Who compares two versions of a device reads here, not in the telemetry, of which there is a hundred times more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Final

from sqlalchemy import Connection, and_, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from edgewright_contract.mandate import MAX_GENERATION
from edgewright_contract.v1 import telemetry_pb2
from edgewright_controller.gates import Slice
from edgewright_controller.ledger import tables
from edgewright_controller.ledger.among import among

SLICE_MS: Final = 600_000
HOUR_SLICES: Final = 6
DAY_SLICES: Final = 24 * HOUR_SLICES
BEFORE_SLICES: Final = 3 * DAY_SLICES  # what is compared with: no day is like the next
_MOST: Final = 1_000_000  # what one window may count: a device must not fill up what is kept of it
_SLOWEST: Final = 0.001  # tokens per second

HourOf = Callable[[str, int], int]
"""Device, hour since 1970 → hour of the day where the device stands."""


@dataclass(frozen=True)
class Compared:
    """Two versions of one device: `artifact`, of `generation`, and `before`, digests in hex. `since_ms`: when it was
    given the new one."""

    device: str
    generation: int
    artifact: str
    before: str
    since_ms: int


def add(connection: Connection, reports: Iterable[tuple[str, telemetry_pb2.Envelope, int]]) -> None:
    """Add reports that were not added before: (device, envelope, when it arrived in Unix milliseconds)."""
    found: dict[tuple[str, int, bytes, int], list[float]] = {}
    for device, envelope, recv_ms in reports:
        told = envelope.telemetry
        idle = not (told.requests or told.errors or told.rejected)
        if idle or told.unsettled or not envelope.artifact_digest or not 0 < envelope.generation <= MAX_GENERATION:
            continue
        key = (device, envelope.generation, envelope.artifact_digest, recv_ms // SLICE_MS)
        sums = found.setdefault(key, [0, 0, 0, 0, 0, 0.0, 0.0])
        for place, count in enumerate((told.requests, told.errors, told.rejected)):
            sums[place] += min(count, _MOST)
        sums[3] = max(sums[3], min(told.engine_restarts, _MOST))
        if _SLOWEST <= told.decode_tokens_per_s <= _MOST:
            speed = log(told.decode_tokens_per_s)
            for place, value in enumerate((1, speed, speed * speed), 4):
                sums[place] += value
    if found:
        table = tables.device_health
        statement = insert(table)
        new = statement.excluded
        more: dict[str, Any] = {name: table.c[name] + new[name] for name in _SUMS if name != "restarts"}
        more["restarts"] = func.max(table.c.restarts, new.restarts)
        rows = [dict(zip((*_KEY, *_SUMS), (*key, *sums), strict=True)) for key, sums in found.items()]
        connection.execute(statement.on_conflict_do_update(index_elements=list(_KEY), set_=more), rows)


_KEY: Final = ("device", "generation", "artifact", "slice")
_SUMS: Final = ("requests", "errors", "rejected", "restarts", "windows", "log_speed", "log_speed_2")


def before(connection: Connection, compared: Sequence[Compared], hour_of: HourOf) -> dict[str, list[Slice]]:
    """By the hour, what each device showed in the days before it was given the new version."""
    wanted = {one.device: one for one in compared}
    table = tables.device_health
    if not wanted:
        return {}
    last = {device: one.since_ms // SLICE_MS for device, one in wanted.items()}
    hour = (table.c.slice // HOUR_SLICES).label("hour")
    within = and_(
        among(table.c.device, wanted),
        table.c.slice >= min(last.values()) - BEFORE_SLICES,
        table.c.slice <= max(last.values()),
    )
    sums = [func.sum(table.c[name]).label(name) for name in _READ]
    grouped = (table.c.device, table.c.generation, table.c.artifact, hour)
    found: dict[str, list[Slice]] = {}
    for row in connection.execute(select(*grouped, *sums).where(within).group_by(*grouped)):
        one, until = wanted[row.device], last[row.device]
        early = until - BEFORE_SLICES <= row.hour * HOUR_SLICES <= until
        if early and row.artifact == bytes.fromhex(one.before) and row.generation < one.generation:
            found.setdefault(row.device, []).append(_slice(row, hour_of(row.device, row.hour)))
    return found


def after(connection: Connection, compared: Sequence[Compared], hour_of: HourOf, now_ms: int) -> dict[str, list[Slice]]:
    """By ten minutes, what each device showed with the new version; of the last day when there is more."""
    wanted = {one.device: one for one in compared}
    table = tables.device_health
    if not wanted:
        return {}
    found: dict[str, list[Slice]] = {device: [] for device in wanted}
    first = max(min(one.since_ms for one in compared), now_ms - DAY_SLICES * SLICE_MS) // SLICE_MS
    within = and_(among(table.c.device, wanted), table.c.slice >= first)
    for row in connection.execute(select(table).where(within)):
        one = wanted[row.device]
        if row.generation == one.generation and row.artifact == bytes.fromhex(one.artifact):
            found[row.device].append(_slice(row, hour_of(row.device, row.slice // HOUR_SLICES)))
    return found


_READ: Final = ("requests", "errors", "windows", "log_speed", "log_speed_2")


def _slice(row: Any, hour: int) -> Slice:
    # A request may fail in the window after the one in which it began.
    return Slice(hour, max(row.requests, row.errors), row.errors, row.windows, row.log_speed, row.log_speed_2)


def prune(connection: Connection, before_ms: int) -> int:
    """Forget the ten minutes that are oldest, when they are of before `before_ms`; how many rows that was."""
    table = tables.device_health
    oldest = connection.scalar(select(func.min(table.c.slice)))
    if oldest is None or oldest >= before_ms // SLICE_MS:
        return 0
    return connection.execute(delete(table).where(table.c.slice == oldest)).rowcount
