"""What the controller asks of a device besides its desired state. Open until the device has answered."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, insert, literal_column, select, update

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import tables
from edgewright_controller.ledger.among import among

OPEN, SUCCEEDED, FAILED = "open", "succeeded", "failed"


@dataclass(frozen=True)
class RequestRow:
    """One request. `state`: open, succeeded or failed; `detail` is the device's answer."""

    id: str
    device: str
    kind: agent_pb2.DeviceRequest.Kind
    argument: str
    state: str
    detail: str
    created_ms: int
    ended_ms: int | None


def ask(
    connection: Connection, request: str, device: str, kind: agent_pb2.DeviceRequest.Kind, *, argument: str, now_ms: int
) -> None:
    """Ask `device` at its next check-ins, until it answers. `request` is an id that was never used."""
    row = RequestRow(request, device, kind, argument, OPEN, "", now_ms, None)
    connection.execute(insert(tables.requests).values({**row.__dict__, "kind": int(kind)}))


def open_of(connection: Connection, device: str) -> list[RequestRow]:
    """What `device` has not answered, the oldest first."""
    table = tables.requests
    statement = (
        select(table)
        .where(table.c.device == device, table.c.state == OPEN)
        .order_by(table.c.created_ms, literal_column("rowid"))
    )
    return [RequestRow(**row._mapping) for row in connection.execute(statement)]


def answers(connection: Connection, ids: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Where each of these requests stands, and the device's answer, for those that were ever asked."""
    table = tables.requests
    found = connection.execute(select(table.c.id, table.c.state, table.c.detail).where(among(table.c.id, ids)))
    return {row.id: (row.state, row.detail) for row in found}


def newest(
    connection: Connection, devices: Iterable[str], kinds: Iterable[agent_pb2.DeviceRequest.Kind]
) -> dict[str, RequestRow]:
    """The request of one of these kinds that each of these devices was asked last, for those that ever were."""
    table = tables.requests
    statement = (
        select(table)
        .where(among(table.c.device, devices), table.c.kind.in_([int(kind) for kind in kinds]))
        .order_by(table.c.created_ms, literal_column("rowid"))
    )
    return {row.device: RequestRow(**row._mapping) for row in connection.execute(statement)}


def answer(connection: Connection, device: str, result: agent_pb2.RequestResult, now_ms: int) -> bool:
    """Close a request of this device; False when it is not open (answered twice, or another device's)."""
    table = tables.requests
    mine = (table.c.id == result.id, table.c.device == device, table.c.state == OPEN)
    state = SUCCEEDED if result.succeeded else FAILED
    changed = connection.execute(update(table).where(*mine).values(state=state, detail=result.detail, ended_ms=now_ms))
    return changed.rowcount == 1
