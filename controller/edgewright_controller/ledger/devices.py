"""Devices: who they are, what they should have, what they said last.

The history of what a device should have is kept, with how each generation ended on it; so "the release before this
one that worked here" is a question to the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from edgewright_contract.mandate import MAX_GENERATION
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.director import DirectorMetadata
from edgewright_controller.ledger import mandates, restorations, rolled_back_on, tables
from edgewright_controller.ledger.among import among
from edgewright_controller.ledger.errors import GenerationTaken, NotInLedger
from edgewright_controller.unix_time import unix_ms

SETTLED = (agent_pb2.OUTCOME_SUCCEEDED, agent_pb2.OUTCOME_FAILED, agent_pb2.OUTCOME_HELD)


@dataclass(frozen=True)
class DeviceRow:
    """One enrolled device. `inventory` and `status` are as last sent; None: never. `seen_ms` None: never.
    `decommissioned_ms`: since when it is out of the fleet for good, None: it is not."""

    id: str
    enrolled_ms: int
    certificate_serial: str
    inventory: agent_pb2.Inventory | None = field(compare=False)
    inventory_digest: str
    seen_ms: int | None
    status: agent_pb2.DeviceStatus | None = field(compare=False)
    status_sequence: int
    decommissioned_ms: int | None = None


@dataclass(frozen=True)
class DesiredRow:
    """What a device should have since `since_ms`. `release` None: nothing. `outcome` is the device's own word."""

    device: str
    generation: int
    release: str | None
    since_ms: int
    reason: str
    outcome: agent_pb2.Outcome
    settled_ms: int | None


def enrol(
    connection: Connection, device: str, certificate_serial: str, now_ms: int, *, another_machine: bool = False
) -> None:
    """Enter a device, or enter it anew with another certificate.

    A device that enrols anew may have lost its disk, so its statuses may count from the start again. What
    `another_machine` was, and what it served, says nothing of the one that takes its place. One that was decommissioned
    is of the fleet again.
    """
    values: dict[str, Any] = {
        "certificate_serial": certificate_serial,
        "enrolled_ms": now_ms,
        "status_sequence": 0,
        "decommissioned_ms": None,
    }
    if another_machine:
        values |= {"status": None, "inventory": None, "inventory_digest": "", "seen_ms": None}
        rolled_back_on.forget(connection, device)
    statement = upsert(tables.devices).values({"id": device, "inventory_digest": "", **values})
    connection.execute(statement.on_conflict_do_update(index_elements=["id"], set_=values))


def decommission(connection: Connection, device: str, now_ms: int) -> bool:
    """Take a device out of the fleet for good, until it enrols anew. False when it is out already.

    Raises NotInLedger.
    """
    row = get(connection, device)
    if row.decommissioned_ms is not None:
        return False
    table = tables.devices
    connection.execute(update(table).where(table.c.id == device).values(decommissioned_ms=now_ms))
    return True


def sequence_unknown(connection: Connection, device: str) -> None:
    """Take the device's next status as news, whatever its number: it may have begun to count anew."""
    table = tables.devices
    connection.execute(update(table).where(table.c.id == device).values(status_sequence=0))


def renewed(connection: Connection, device: str, certificate_serial: str) -> None:
    """The same device has another certificate."""
    table = tables.devices
    connection.execute(update(table).where(table.c.id == device).values(certificate_serial=certificate_serial))


def get(connection: Connection, device: str) -> DeviceRow:
    """One device. Raises NotInLedger."""
    rows = every(connection, [device])
    if not rows:
        raise NotInLedger(f"there is no device {device!r}; `edgewright devices` lists those enrolled")
    return rows[0]


def every(
    connection: Connection, only: Iterable[str] | None = None, limit: int = 0, *, decommissioned: bool = True
) -> list[DeviceRow]:
    """Devices by id: all, or those of `only` that there are; `limit` 0: no limit. `decommissioned`: those too."""
    statement = select(tables.devices).order_by(tables.devices.c.id)
    if not decommissioned:
        statement = statement.where(tables.devices.c.decommissioned_ms.is_(None))
    if only is not None:
        statement = statement.where(among(tables.devices.c.id, only))
    if limit:
        statement = statement.limit(limit)
    return [_device(row._mapping) for row in connection.execute(statement)]


def _device(value: Mapping[Any, Any]) -> DeviceRow:
    parsed = dict(value)
    if value["inventory"] is not None:
        parsed["inventory"] = agent_pb2.Inventory.FromString(value["inventory"])
    if value["status"] is not None:
        parsed["status"] = agent_pb2.DeviceStatus.FromString(value["status"])
    return DeviceRow(**parsed)


def seen(connection: Connection, times_ms: Mapping[str, int]) -> None:
    """When each device was last heard of. An earlier time than the one known changes nothing."""
    table = tables.devices
    later = func.max(func.coalesce(table.c.seen_ms, 0), bindparam("heard"))
    if times_ms:
        statement = update(table).where(table.c.id == bindparam("heard_of")).values(seen_ms=later)
        connection.execute(statement, [{"heard_of": device, "heard": time} for device, time in times_ms.items()])


def report(connection: Connection, device: str, status: agent_pb2.DeviceStatus, now_ms: int) -> bool:
    """Keep what a device says of itself, unless it is old news; whether it was news.

    The outcome of a generation is kept with the generation, if the status speaks of the release that was wanted.
    Raises NotInLedger.
    """
    known = connection.scalar(select(tables.devices.c.status_sequence).where(tables.devices.c.id == device))
    if known is None:
        raise NotInLedger(f"there is no device {device!r}; enrol it again")
    if status.sequence <= known:
        return False
    values = {"status": status.SerializeToString(), "status_sequence": status.sequence, "seen_ms": now_ms}
    connection.execute(update(tables.devices).where(tables.devices.c.id == device).values(values))
    if status.outcome in SETTLED:
        table = tables.desired
        told = and_(table.c.device == device, table.c.generation == status.generation)
        same = func.coalesce(table.c.release, "") == status.release
        outcome = {"outcome": int(status.outcome), "settled_ms": now_ms}
        connection.execute(update(table).where(told, same).values(outcome))
    return True


def put_inventory(connection: Connection, device: str, inventory: agent_pb2.Inventory, digest: str) -> None:
    """Keep what a device is; `digest` is the device's own, which it repeats at each check-in."""
    values = {"inventory": inventory.SerializeToString(deterministic=True), "inventory_digest": digest}
    connection.execute(update(tables.devices).where(tables.devices.c.id == device).values(values))


def set_desired(
    connection: Connection,
    device: str,
    release: str | None,
    *,
    reason: str,
    now_ms: int,
    generation: int | None = None,
) -> DesiredRow:
    """What `device` should have from now on, as a new generation: the next one, or `generation`.

    Raises GenerationTaken when `generation` is not above every one that was set before, or that a mandate may give.
    """
    current = generation_of(connection, device, release)
    if generation is not None and generation <= current:
        raise GenerationTaken(device, generation, current)
    return _set(connection, device, generation or current + 1, release, reason=reason, now_ms=now_ms)


def generation_of(connection: Connection, device: str, release: str | None = None) -> int:
    """The highest generation that was ever set, or that a mandate may have given, or that may have been set between a
    backup and its restore; 0 when none.

    `release`: what it is to have next, which may make it a device of a profile that has mandates.
    """
    return generations_of(connection, {device: release})[device]


def generations_of(connection: Connection, wanted: Mapping[str, str | None]) -> dict[str, int]:
    """`generation_of` for many devices at once; `wanted` has what each is to have next."""
    table = tables.desired
    highest = select(table.c.device, func.max(table.c.generation).label("top")).where(among(table.c.device, wanted))
    known: dict[str, int] = {row.device: row.top for row in connection.execute(highest.group_by(table.c.device))}
    least = restorations.counts_from(connection)
    # Most fleets have drawn up no mandate, and then there is no need to ask for each device.
    mandated = wanted if mandates.are_there(connection) else {}
    kept = {device: mandates.reserved(connection, device, release) for device, release in mandated.items()}
    return {device: max(known.get(device, 0), kept.get(device, 0), least) for device in wanted}


def take_mandate(connection: Connection, device: str, generation: int, now_ms: int) -> DesiredRow | None:
    """What `device` says that it has, when only an offline mandate can have given it that: from now on it should.

    None when the ledger knows the generation, or a later one, or no such mandate.
    """
    if not _set_generation(connection, device) < generation <= MAX_GENERATION:
        return None
    mandate = mandates.of_generation(connection, device, generation)
    if mandate is None:
        return None
    reason = f"mandate {mandate.number}"
    return _set(connection, device, generation, mandate.release, reason=reason, now_ms=now_ms)


def _set(
    connection: Connection, device: str, generation: int, release: str | None, *, reason: str, now_ms: int
) -> DesiredRow:
    row = DesiredRow(device, generation, release, now_ms, reason, agent_pb2.OUTCOME_UNSPECIFIED, None)
    connection.execute(insert(tables.desired).values({**row.__dict__, "outcome": 0}))
    return row


def _set_generation(connection: Connection, device: str) -> int:
    table = tables.desired
    return connection.scalar(select(func.max(table.c.generation)).where(table.c.device == device)) or 0


def desired(connection: Connection, only: Iterable[str] | None = None) -> dict[str, DesiredRow]:
    """What each device should have now: all devices that were ever given something, or those of `only`."""
    table = tables.desired
    newest = select(table.c.device, func.max(table.c.generation).label("generation")).group_by(table.c.device)
    if only is not None:
        newest = newest.where(among(table.c.device, only))
    last = newest.subquery()
    statement = select(table).join(last, and_(table.c.device == last.c.device, table.c.generation == last.c.generation))
    return {row.device: DesiredRow(**row._mapping) for row in connection.execute(statement)}


def given_ms(connection: Connection, generations: Mapping[str, int]) -> dict[str, int]:
    """When each device was given this generation of its, for those that were."""
    table = tables.desired
    mine = select(table.c.device, table.c.generation, table.c.since_ms).where(among(table.c.device, generations))
    rows = connection.execute(mine)
    return {row.device: row.since_ms for row in rows if row.generation == generations[row.device]}


def history(connection: Connection, device: str) -> list[DesiredRow]:
    """All that `device` was to have, the newest first."""
    statement = select(tables.desired).where(tables.desired.c.device == device)
    newest_first = statement.order_by(tables.desired.c.generation.desc())
    return [DesiredRow(**row._mapping) for row in connection.execute(newest_first)]


def last_good(connection: Connection, only: Iterable[str] | None = None) -> dict[str, str | None]:
    """The release of the newest generation that succeeded, by device; None: it was to have nothing.

    Devices on which nothing ever succeeded are absent.
    """
    table = tables.desired
    succeeded = select(table).where(table.c.outcome == int(agent_pb2.OUTCOME_SUCCEEDED))
    if only is not None:
        succeeded = succeeded.where(among(table.c.device, only))
    in_order = succeeded.order_by(table.c.device, table.c.generation)
    return {row.device: row.release for row in connection.execute(in_order)}


def succeeded(connection: Connection, only: Iterable[str]) -> dict[str, list[str]]:
    """The releases that have succeeded on each of these devices, that of the newest generation first."""
    table = tables.desired
    statement = (
        select(table.c.device, table.c.release)
        .where(table.c.outcome == int(agent_pb2.OUTCOME_SUCCEEDED), table.c.release.is_not(None))
        .where(among(table.c.device, only))
        .order_by(table.c.device, table.c.generation.desc())
    )
    found: dict[str, list[str]] = {}
    for device, release in connection.execute(statement):
        found.setdefault(device, []).append(release)
    return found


def good_before(connection: Connection, leaving: Mapping[str, str | None]) -> dict[str, str]:
    """The release that each of these devices would go back to, leaving what `leaving` has for it; without those that
    have none.

    That is the newest that succeeded there, is not what it leaves, and was rolled back neither everywhere nor there.
    """
    everywhere = set(connection.scalars(select(tables.rolled_back.c.release)))
    there = rolled_back_on.releases_of(connection, leaving)
    found: dict[str, str] = {}
    for device, good in succeeded(connection, leaving).items():
        refused = {leaving[device], *there.get(device, ())}
        back = next((release for release in good if release not in refused and release not in everywhere), None)
        if back is not None:
            found[device] = back
    return found


def put_metadata(connection: Connection, device: str, made: DirectorMetadata) -> None:
    """Keep the director's newest metadata of a device."""
    values = {
        "version": made.version,
        "timestamp": made.timestamp,
        "snapshot": made.snapshot,
        "targets": made.targets,
        "expires_ms": unix_ms(made.expires),
        "inputs": made.inputs,
    }
    statement = upsert(tables.director_metadata).values(device=device, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["device"], set_=values))


def metadata(connection: Connection, device: str) -> DirectorMetadata | None:
    """The director's newest metadata of a device, None before the first."""
    table = tables.director_metadata
    row = connection.execute(select(table).where(table.c.device == device)).one_or_none()
    if row is None:
        return None
    expires = datetime.fromtimestamp(row.expires_ms / 1000, timezone.utc)
    return DirectorMetadata(row.timestamp, row.snapshot, row.targets, row.version, expires, row.inputs)
