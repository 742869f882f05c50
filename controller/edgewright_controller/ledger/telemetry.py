"""What devices report: stored once, however often it arrives, and a mark up to which nothing is missing.

A device numbers its envelopes within a spool epoch and keeps each until the mark passes its number. The mark passes
a gap only when a later envelope says that the numbers right before its own were dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, or_, select, update
from sqlalchemy.dialects.sqlite import insert

from edgewright_contract.v1 import telemetry_pb2
from edgewright_controller.ledger import device_health, devices, tables
from edgewright_controller.ledger.among import among

_STORED: Final = "telemetry_stored"
_TELEMETRY: Final = "telemetry"
_WALK_ROWS: Final = 1000

Report = tuple[str, telemetry_pb2.Envelope, int]
"""(device, envelope, when it arrived in Unix milliseconds). The envelope was checked (`envelope.parse`)."""

_Key = tuple[str, bytes, int]


@dataclass(frozen=True)
class LatestRow:
    """The newest telemetry of a device."""

    device: str
    recv_ms: int
    telemetry: telemetry_pb2.Telemetry


def store(connection: Connection, batch: Iterable[Report]) -> int:
    """Store a batch and move the marks; how many envelopes were new. Those without a number (wills) are left out."""
    numbered = [report for report in batch if report[1].seq > 0]
    told = [_row(*report) for report in numbered]
    if not told:
        return 0
    marks = _marks(connection, {row["device"] for row in told})
    # What lies below its mark was stored once, whether or not it is still kept.
    rows = [row for row in told if row["seq"] > marks.get((row["device"], row["spool_epoch"]), 0)]
    new: set[_Key] = set()
    if rows:
        new = _insert(connection, rows)
        _count(connection, len(new))
        device_health.add(connection, _first_of_each(numbered, new))
        _learn_of_drops(connection, rows)
        _keep_latest(connection, rows)
        _move_marks(connection, {(row["device"], row["spool_epoch"]) for row in rows}, marks)
    heard: dict[str, int] = {}
    for row in told:
        heard[row["device"]] = max(row["recv_ms"], heard.get(row["device"], 0))
    devices.seen(connection, heard)
    return len(new)


def stored_sequence(connection: Connection, device: str, spool_epoch: bytes) -> int:
    """Up to which number everything of this epoch is stored, or dropped by the device; 0 when nothing is."""
    table = tables.watermarks
    statement = select(table.c.seq).where(table.c.device == device, table.c.spool_epoch == spool_epoch)
    return connection.scalar(statement) or 0


def settled(connection: Connection, device: str, spool_epoch: bytes, seq: int) -> None:
    """The device keeps nothing up to `seq` any more, since that was stored once: by a ledger that came from a backup it
    may have been forgotten, and would be waited for in vain. A lower number than the mark changes nothing."""
    before = stored_sequence(connection, device, spool_epoch)
    if seq > before:
        row = {"device": device, "spool_epoch": spool_epoch, "seq": _walk(connection, device, spool_epoch, seq)}
        statement = insert(tables.watermarks).values(row)
        connection.execute(
            statement.on_conflict_do_update(index_elements=["device", "spool_epoch"], set_={"seq": row["seq"]})
        )


def latest(connection: Connection, only: Iterable[str] | None = None) -> dict[str, LatestRow]:
    """The newest telemetry by device: of all, or of those of `only` that sent some."""
    table = tables.latest_telemetry
    statement = select(table.c.device, table.c.recv_ms, table.c.payload)
    if only is not None:
        statement = statement.where(among(table.c.device, only))
    return {
        device: LatestRow(device, recv_ms, telemetry_pb2.Envelope.FromString(payload).telemetry)
        for device, recv_ms, payload in connection.execute(statement)
    }


def total(connection: Connection) -> int:
    """How many envelopes were ever stored, each counted once."""
    return connection.scalar(select(tables.counters.c.value).where(tables.counters.c.name == _STORED)) or 0


def prune(connection: Connection, before_ms: int, abandoned_before_ms: int, limit: int = 10_000) -> int:
    """Forget at most `limit` envelopes that arrived before `before_ms`; how many.

    What lies above its mark is kept until `abandoned_before_ms`: the device may send it again, and it must not be
    counted twice.
    """
    table, marks = tables.telemetry, tables.watermarks
    same = and_(marks.c.device == table.c.device, marks.c.spool_epoch == table.c.spool_epoch)
    below = select(marks.c.seq).where(same, marks.c.seq >= table.c.seq).exists()
    old = or_(and_(table.c.recv_ms < before_ms, below), table.c.recv_ms < abandoned_before_ms)
    key = (table.c.device, table.c.spool_epoch, table.c.seq)
    victims = [tuple(row) for row in connection.execute(select(*key).where(old).order_by(table.c.recv_ms).limit(limit))]
    if victims:
        matched = and_(*(column == bindparam(f"of_{column.name}") for column in key))
        names = [f"of_{column.name}" for column in key]
        connection.execute(delete(table).where(matched), [dict(zip(names, row, strict=True)) for row in victims])
    return len(victims)


def _row(device: str, envelope: telemetry_pb2.Envelope, recv_ms: int) -> dict[str, Any]:
    return {
        "device": device,
        "spool_epoch": envelope.spool_epoch,
        "seq": envelope.seq,
        "recv_ms": recv_ms,
        "dropped_before": envelope.dropped_before,
        "kind": envelope.WhichOneof("body") or "",
        "payload": envelope.SerializeToString(),
    }


def _insert(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> set[_Key]:
    """Store what is not there yet; the keys of that."""
    table = tables.telemetry
    by_key = {(row["device"], row["spool_epoch"], row["seq"]): row for row in reversed(rows)}  # of doubles, the first
    before = connection.begin_nested()
    fresh = connection.execute(insert(table).on_conflict_do_nothing(), list(by_key.values())).rowcount
    if fresh == len(by_key):
        before.commit()
        return set(by_key)
    # Some were there, as happens now and then. Which ones can be asked only without those that came just now.
    before.rollback()
    epochs = table.c.device.in_({device for device, _, _ in by_key})
    known = connection.execute(select(table.c.device, table.c.spool_epoch, table.c.seq).where(epochs, _within(by_key)))
    new = by_key.keys() - {(row.device, row.spool_epoch, row.seq) for row in known}
    if new:
        connection.execute(insert(table), [by_key[key] for key in sorted(new)])
    return set(new)


def _within(keys: Iterable[_Key]) -> ColumnElement[bool]:
    numbers = [seq for _, _, seq in keys]
    return tables.telemetry.c.seq.between(min(numbers), max(numbers))


def _first_of_each(reports: Iterable[Report], new: set[_Key]) -> Iterable[Report]:
    """The reports behind the new rows, each once."""
    left = set(new)
    for device, envelope, recv_ms in reports:
        key = (device, envelope.spool_epoch, envelope.seq)
        if key in left and envelope.HasField("telemetry"):
            left.remove(key)
            yield device, envelope, recv_ms


def _count(connection: Connection, fresh: int) -> None:
    statement = insert(tables.counters).values(name=_STORED, value=fresh)
    more = tables.counters.c.value + statement.excluded.value
    connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": more}))


def _learn_of_drops(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """An envelope that is sent again may know of drops that it did not know of the first time."""
    told = [
        {"of": row["device"], "epoch": row["spool_epoch"], "number": row["seq"], "told": row["dropped_before"]}
        for row in rows
        if row["dropped_before"]
    ]
    if told:
        table = tables.telemetry
        same = and_(
            table.c.device == bindparam("of"),
            table.c.spool_epoch == bindparam("epoch"),
            table.c.seq == bindparam("number"),
            table.c.dropped_before < bindparam("told"),
        )
        connection.execute(update(table).where(same).values(dropped_before=bindparam("told")), told)


def _keep_latest(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    columns = ("device", "spool_epoch", "seq", "recv_ms", "payload")
    told = [{name: row[name] for name in columns} for row in rows if row["kind"] == _TELEMETRY]
    if told:
        table = tables.latest_telemetry
        statement = insert(table)
        new = statement.excluded
        # A backlog drains behind live reports, so within an epoch the number decides, not the arrival.
        newer = or_(
            and_(table.c.spool_epoch == new.spool_epoch, table.c.seq < new.seq),
            and_(table.c.spool_epoch != new.spool_epoch, table.c.recv_ms <= new.recv_ms),
        )
        values = {name: new[name] for name in columns[1:]}
        connection.execute(statement.on_conflict_do_update(index_elements=["device"], set_=values, where=newer), told)


def _marks(connection: Connection, of_devices: set[str]) -> dict[tuple[str, bytes], int]:
    table = tables.watermarks
    found = connection.execute(select(table).where(table.c.device.in_(of_devices)))
    return {(row.device, row.spool_epoch): row.seq for row in found}


def _move_marks(connection: Connection, epochs: set[tuple[str, bytes]], known: Mapping[tuple[str, bytes], int]) -> None:
    table = tables.watermarks
    moved = []
    for device, epoch in sorted(epochs):
        before = known.get((device, epoch), 0)
        after = _walk(connection, device, epoch, before)
        if after > before:
            moved.append({"device": device, "spool_epoch": epoch, "seq": after})
    if moved:
        statement = insert(table)
        raised = {"seq": statement.excluded.seq}
        connection.execute(
            statement.on_conflict_do_update(index_elements=["device", "spool_epoch"], set_=raised), moved
        )


def _walk(connection: Connection, device: str, epoch: bytes, mark: int) -> int:
    """From `mark` on, as far as no number is missing."""
    table = tables.telemetry
    mine = and_(table.c.device == device, table.c.spool_epoch == epoch)
    while True:
        following = select(table.c.seq, table.c.dropped_before).where(mine, table.c.seq > mark)
        rows = connection.execute(following.order_by(table.c.seq).limit(_WALK_ROWS)).all()
        for seq, dropped in rows:
            if seq - dropped > mark + 1:
                return mark
            mark = seq
        if len(rows) < _WALK_ROWS:
            return mark
