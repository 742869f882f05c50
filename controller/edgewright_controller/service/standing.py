"""What the ledger knows of one device at its check-in, and what the check-in adds to it.

Functions of a Connection: each runs in one transaction, so that an answer speaks of one moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from edgewright_contract import digest
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.director import Desired, DirectorMetadata
from edgewright_controller.ledger import audit, devices, releases, requests, restorations, telemetry
from edgewright_controller.ledger.devices import DeviceRow

# As SQLite counts.
MAX_SEQUENCE: Final = (1 << 63) - 1


@dataclass(frozen=True)
class Standing:
    """All that an answer is made of. `stored_sequence`: telemetry of the asked epoch is stored up to here.
    `counts_from`: what this device was given before a restore is not above it (`ledger.restorations`)."""

    desired: Desired
    metadata: DirectorMetadata | None
    inventory_digest: str
    status_sequence: int
    requests: tuple[agent_pb2.DeviceRequest, ...]
    stored_sequence: int
    counts_from: int

    @property
    def generation(self) -> int:
        """The generation that the device should reach."""
        return self.desired.generation


def of(connection: Connection, device: str, spool_epoch: bytes) -> Standing:
    """The device's standing. `spool_epoch` may be empty. Raises NotInLedger."""
    known = devices.get(connection, device)
    return Standing(
        desired=desired(connection, device),
        metadata=devices.metadata(connection, device),
        inventory_digest=known.inventory_digest,
        status_sequence=known.status_sequence,
        requests=tuple(
            agent_pb2.DeviceRequest(id=row.id, kind=row.kind, argument=row.argument)
            for row in requests.open_of(connection, device)
        ),
        stored_sequence=telemetry.stored_sequence(connection, device, spool_epoch) if spool_epoch else 0,
        counts_from=restorations.counts_from(connection),
    )


def desired(connection: Connection, device: str) -> Desired:
    """What the director shall sign for the device; generation 0 and nothing before the first rollout."""
    wanted = devices.desired(connection, [device]).get(device)
    if wanted is None or wanted.release is None:
        return Desired(wanted.generation if wanted else 0)
    row = releases.get(connection, wanted.release)
    return Desired(wanted.generation, row.release, row.target)


def said(row: DeviceRow) -> agent_pb2.DeviceStatus | None:
    """What the device said last, None before its first word since it enrolled: one that enrolled anew is another."""
    return row.status if row.status_sequence else None


def record(connection: Connection, device: str, request: agent_pb2.CheckInRequest, now_ms: int) -> bool:
    """Store what the request brings; whether its status was news. Raises NotInLedger."""
    _take_mandate(connection, device, request.status.generation, now_ms)
    newer = devices.report(connection, device, request.status, now_ms)
    if request.HasField("inventory"):
        named = request.inventory_digest or inventory_digest(request.inventory)
        devices.put_inventory(connection, device, request.inventory, named)
    if request.spool_epoch and request.spool_settled:
        telemetry.settled(connection, device, request.spool_epoch, request.spool_settled)
    for result in request.results:
        requests.answer(connection, device, result, now_ms)
    return newer


def _take_mandate(connection: Connection, device: str, generation: int, now_ms: int) -> None:
    """A device that was offline may have got its generation from a mandate: then that is what it should have."""
    taken = devices.take_mandate(connection, device, generation, now_ms)
    if taken is not None:
        audit.append(
            connection,
            actor=f"device {device}",
            action="mandate.take",
            subject=device,
            release=taken.release or "",
            detail=f"{taken.reason}, generation {taken.generation}",
            now_ms=now_ms,
        )


def has_news(known: Standing, request: agent_pb2.CheckInRequest) -> bool:
    """Whether the request brings anything to store; most check-ins do not."""
    newer = request.status.sequence > known.status_sequence
    settled = bool(request.spool_epoch) and known.stored_sequence < request.spool_settled
    return newer or settled or request.HasField("inventory") or bool(request.results)


def is_ahead(known: Standing, request: agent_pb2.CheckInRequest) -> bool:
    """Whether the device has what a ledger that came from a backup does not know: it would refuse what stands here.

    What an apply gives it will be above what it has. A generation that nobody can have given is no reason.
    """
    return known.generation < request.status.generation <= known.counts_from


def inventory_digest(inventory: agent_pb2.Inventory) -> str:
    """The digest that names an inventory on both ends."""
    return digest.of_bytes(inventory.SerializeToString(deterministic=True))
