"""Rollouts as they were stored last, and how they got there.

`create` and `commit` are the two writes. `commit` stores what a step changed and what devices shall have from then on
in one transaction, so that a crash leaves both or neither. Times are Unix seconds, as the engine counts them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, select, update

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import devices, requests, rollout_document, tables
from edgewright_controller.ledger.among import among
from edgewright_controller.ledger.errors import NotInLedger
from edgewright_controller.rollout import (
    Actions,
    Changes,
    DeviceChange,
    DevicePhase,
    LiftHold,
    RolloutChange,
    RolloutClock,
    RolloutPhase,
    RolloutSpec,
    RolloutState,
    RolloutTarget,
    SetDesired,
    begin,
    restore,
)


@dataclass(frozen=True)
class RolloutRow:
    """One rollout as a list shows it. `about` is what its maker said of it."""

    id: str
    state: RolloutPhase
    ending: RolloutPhase | None
    wave: int
    waves: int
    reason: str
    created_at: float
    created_by: str
    changed_at: float
    ended_at: float | None
    about: Mapping[str, Any]


@dataclass(frozen=True)
class ChangeRow:
    """One change in a rollout's history; `device` None: of the rollout itself. `state` is a phase's value."""

    device: str | None
    state: str
    at: float
    reason: str


def next_id(connection: Connection) -> str:
    """The id for the next rollout: rollout-1, rollout-2, …"""
    return f"rollout-{(connection.scalar(select(func.max(tables.rollouts.c.number))) or 0) + 1}"


def create(connection: Connection, spec: RolloutSpec, *, by: str, about: Mapping[str, Any], now: float) -> RolloutState:
    """Enter a rollout, which then waits for Started. Its id is from `next_id` in the same transaction."""
    state = begin(spec, now)
    number = (connection.scalar(select(func.max(tables.rollouts.c.number))) or 0) + 1
    connection.execute(
        insert(tables.rollouts).values(
            id=spec.id,
            number=number,
            document=rollout_document.encode(spec, about),
            state=state.phase.value,
            wave=state.wave,
            waves=len(spec.waves),
            reason=state.reason,
            created_at=now,
            created_by=by,
            changed_at=now,
            watched=0.0,
            wall=now,
            state_watched=0.0,
            concluded_at=0.0,
        )
    )
    rows = [
        {
            "rollout": spec.id,
            "device": target.device,
            "place": place,
            "wave": number,
            "release": target.release,
            "previous": target.previous,
            "first_generation": target.generation,
            "state": DevicePhase.WAITING.value,
            "generation": target.generation,
            "changed_at": now,
            "deadline": None,
            "detached": False,
            "reason": "",
            "windows": rollout_document.encoded_windows(target.windows, target.delivery),
            "zone": target.zone,
        }
        for number, wave in enumerate(spec.waves, 1)
        for place, target in enumerate(wave)
    ]
    connection.execute(insert(tables.rollout_devices), rows)
    return state


def commit(connection: Connection, rollout: str, changes: Changes, actions: Actions) -> None:
    """Store what a step changed, what it sets as desired and which holds it lifts. Hints and the rest remain for the
    caller, afterwards.

    Raises GenerationTaken when something else has set a device's desired state meanwhile (then nothing is stored; give
    the rollout Superseded for that device).
    """
    if changes.clock is None:
        return
    clock = changes.clock
    table = tables.rollouts
    values = asdict(clock)
    if changes.rollout is not None:
        values |= _of_rollout(connection, rollout, changes.rollout, clock)
    connection.execute(update(table).where(table.c.id == rollout).values(values))
    _store_devices(connection, rollout, changes.devices, clock)
    for action in actions:
        if isinstance(action, LiftHold):
            kind, asked = agent_pb2.DeviceRequest.KIND_RELEASE_HOLD, uuid.uuid4().hex
            now_ms = int(clock.wall * 1000)
            requests.ask(connection, asked, action.device, kind, argument=action.release, now_ms=now_ms)
        elif isinstance(action, SetDesired):
            devices.set_desired(
                connection,
                action.device,
                action.release,
                reason=action.reason,
                now_ms=int(clock.wall * 1000),
                generation=action.generation,
            )


def _of_rollout(connection: Connection, rollout: str, change: RolloutChange, clock: RolloutClock) -> dict[str, Any]:
    before = connection.scalar(select(tables.rollouts.c.state).where(tables.rollouts.c.id == rollout))
    _append(connection, [(rollout, None, change.phase.value, clock.wall, change.reason)])
    values: dict[str, Any] = {
        "state": change.phase.value,
        "ending": change.ending.value if change.ending else None,
        "wave": change.wave,
        "reason": change.reason,
        "halted": change.halted,
        "changed_at": clock.wall,
    }
    if change.phase.value != before:
        values["state_watched"] = clock.watched
    if change.phase.final:
        values["ended_at"] = clock.wall
    return values


def _store_devices(connection: Connection, rollout: str, changes: Iterable[DeviceChange], clock: RolloutClock) -> None:
    rows: list[dict[str, Any]] = [
        {
            "of": change.device,
            "state": change.phase.value,
            "generation": change.generation,
            "changed_at": clock.wall,
            "deadline": change.deadline,
            "detached": change.detached,
            "reason": change.reason,
            "step": change.step,
            "until": change.until,
            "offer_stands": change.offer_stands,
            "tries_again": change.tries_again,
        }
        for change in changes
    ]
    if rows:
        table = tables.rollout_devices
        one = update(table).where(table.c.rollout == rollout, table.c.device == bindparam("of"))
        connection.execute(one, rows)
        _append(connection, [(rollout, row["of"], row["state"], clock.wall, row["reason"]) for row in rows])


def _append(connection: Connection, rows: list[tuple[str, str | None, str, float, str]]) -> None:
    names = ("rollout", "device", "state", "at", "reason")
    connection.execute(insert(tables.rollout_changes), [dict(zip(names, row, strict=True)) for row in rows])


def load(connection: Connection, rollout: str) -> RolloutState:
    """The rollout as it was last stored, ready for the next step. Raises NotInLedger."""
    row = connection.execute(select(tables.rollouts).where(tables.rollouts.c.id == rollout)).one_or_none()
    if row is None:
        raise NotInLedger(f"there is no rollout {rollout!r}")
    table = tables.rollout_devices
    in_order = select(table).where(table.c.rollout == rollout).order_by(table.c.wave, table.c.place)
    waves: list[list[RolloutTarget]] = [[] for _ in range(row.waves)]
    changed = []
    for one in connection.execute(in_order):
        windows, delivery = rollout_document.windows(one.windows)
        target = RolloutTarget(one.device, one.release, one.previous, one.first_generation, windows, one.zone, delivery)
        waves[one.wave - 1].append(target)
        touched = one.state != DevicePhase.WAITING.value or one.generation != one.first_generation or one.detached
        if touched or one.reason:  # one that was skipped, and is to be tried after all, says by whom
            change = DeviceChange(
                device=one.device,
                phase=DevicePhase(one.state),
                generation=one.generation,
                deadline=one.deadline,
                detached=one.detached,
                reason=one.reason,
                step=one.step,
                until=one.until,
                offer_stands=one.offer_stands,
                tries_again=one.tries_again,
            )
            changed.append(change)
    policy, after = rollout_document.policy(row.document), rollout_document.after(row.document)
    spec = RolloutSpec(rollout, tuple(tuple(wave) for wave in waves), policy, after)
    ending = RolloutPhase(row.ending) if row.ending else None
    change_of_all = RolloutChange(RolloutPhase(row.state), row.wave, ending, row.reason, row.halted)
    clock = RolloutClock(row.watched, row.wall, row.concluded_at, row.offered_at, row.next_offer_at)
    return restore(spec, clock, change_of_all, row.state_watched, changed)


def live(connection: Connection) -> list[str]:
    """Rollouts that have not ended, the oldest first: those to load after a restart."""
    table = tables.rollouts
    return list(connection.scalars(select(table.c.id).where(table.c.ended_at.is_(None)).order_by(table.c.number)))


def every(connection: Connection, limit: int = 100) -> list[RolloutRow]:
    """Rollouts, the newest first."""
    statement = select(tables.rollouts).order_by(tables.rollouts.c.number.desc()).limit(limit)
    return [_row(row) for row in connection.execute(statement)]


def get(connection: Connection, rollout: str) -> RolloutRow:
    """One rollout. Raises NotInLedger."""
    row = connection.execute(select(tables.rollouts).where(tables.rollouts.c.id == rollout)).one_or_none()
    if row is None:
        raise NotInLedger(f"there is no rollout {rollout!r}; `edgewright rollout list` shows those that there are")
    return _row(row)


def _row(row: Row[Any]) -> RolloutRow:
    return RolloutRow(
        id=row.id,
        state=RolloutPhase(row.state),
        ending=RolloutPhase(row.ending) if row.ending else None,
        wave=row.wave,
        waves=row.waves,
        reason=row.reason,
        created_at=row.created_at,
        created_by=row.created_by,
        changed_at=row.changed_at,
        ended_at=row.ended_at,
        about=rollout_document.about(row.document),
    )


def counts(connection: Connection, rollout: str) -> dict[DevicePhase, int]:
    """How many devices stand where in a rollout."""
    table = tables.rollout_devices
    grouped = select(table.c.state, func.count()).where(table.c.rollout == rollout).group_by(table.c.state)
    return {DevicePhase(state): count for state, count in connection.execute(grouped)}


def standing(connection: Connection, rollout: str) -> dict[str, tuple[DevicePhase, str]]:
    """Where each device of a rollout stands, and why."""
    table = tables.rollout_devices
    statement = select(table.c.device, table.c.state, table.c.reason).where(table.c.rollout == rollout)
    return {device: (DevicePhase(state), reason) for device, state, reason in connection.execute(statement)}


def changed_at(connection: Connection, rollout: str) -> dict[str, float]:
    """When each device of a rollout came to where it stands."""
    table = tables.rollout_devices
    statement = select(table.c.device, table.c.changed_at).where(table.c.rollout == rollout)
    return {row.device: row.changed_at for row in connection.execute(statement)}


def live_of(connection: Connection, wanted: Iterable[str]) -> dict[str, str]:
    """Which live rollout has each of these devices, for those that are in one: what a new rollout would supersede."""
    table, of = tables.rollout_devices, tables.rollouts
    joined = table.join(of, table.c.rollout == of.c.id)
    mine = (of.c.ended_at.is_(None), table.c.detached.is_(False), among(table.c.device, wanted))
    statement = select(table.c.device, table.c.rollout).select_from(joined).where(*mine).order_by(of.c.number)
    return {row.device: row.rollout for row in connection.execute(statement)}


def skipped_by_hand(connection: Connection, wanted: Mapping[str, str]) -> dict[str, str]:
    """Device → the rollout in which somebody skipped it, for those of `wanted` (device → release) that were to get just
    this release there. Who left a rollout for another reason, as a cordoned device does, is not meant."""
    table, of = tables.rollout_devices, tables.rollouts
    joined = table.join(of, table.c.rollout == of.c.id)
    by_hand = (table.c.state == DevicePhase.SKIPPED.value, table.c.reason.startswith("skipped"))
    columns = (table.c.device, table.c.release, table.c.rollout)
    statement = select(*columns).select_from(joined).where(*by_hand, among(table.c.device, wanted))
    rows = connection.execute(statement.order_by(of.c.number))
    return {row.device: row.rollout for row in rows if row.release == wanted[row.device]}


def of_device(connection: Connection, device: str, limit: int) -> list[str]:
    """The rollouts that have had this device, the newest first."""
    table, of = tables.rollout_devices, tables.rollouts
    joined = table.join(of, table.c.rollout == of.c.id)
    mine = select(of.c.id).select_from(joined).where(table.c.device == device)
    return list(connection.scalars(mine.order_by(of.c.number.desc()).limit(limit)))


def ended(connection: Connection, limit: int, *, device: str = "", since: float = 0.0) -> list[RolloutRow]:
    """Rollouts that have ended since then (Unix seconds), that which did last first; of `device`, if given."""
    table, mine = tables.rollouts, tables.rollout_devices
    statement = select(table).where(table.c.ended_at >= since)
    if device:
        statement = statement.where(table.c.id.in_(select(mine.c.rollout).where(mine.c.device == device)))
    newest_first = statement.order_by(table.c.ended_at.desc(), table.c.number.desc()).limit(limit)
    return [_row(row) for row in connection.execute(newest_first)]


def states(connection: Connection, wanted: Iterable[str]) -> dict[str, RolloutPhase]:
    """Where these rollouts stand."""
    table = tables.rollouts
    statement = select(table.c.id, table.c.state).where(among(table.c.id, wanted))
    return {rollout: RolloutPhase(state) for rollout, state in connection.execute(statement)}


def givers(connection: Connection, device: str) -> list[tuple[int, str]]:
    """(generation, who began the rollout that gave the generations above it) of one device, the highest first."""
    table, of = tables.rollout_devices, tables.rollouts
    joined = table.join(of, table.c.rollout == of.c.id)
    statement = select(table.c.first_generation, of.c.created_by).select_from(joined).where(table.c.device == device)
    newest_first = statement.order_by(table.c.first_generation.desc(), of.c.number.desc())
    return [(generation, by) for generation, by in connection.execute(newest_first)]


def history(connection: Connection, rollout: str) -> list[ChangeRow]:
    """All that happened in a rollout, in order."""
    table = tables.rollout_changes
    statement = select(table).where(table.c.rollout == rollout).order_by(table.c.id)
    return [ChangeRow(row.device, row.state, row.at, row.reason) for row in connection.execute(statement)]
