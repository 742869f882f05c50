"""The fleet as an operator sees it: the ledger's facts, who is heard of, and where rollouts stand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from sqlalchemy import Connection

from edgewright_contract import __version__
from edgewright_contract.release import Release
from edgewright_contract.v1 import operator_pb2
from edgewright_controller.ledger import Ledger, cordons, devices, releases, rollouts, telemetry
from edgewright_controller.ledger.audit import AuditRow, Wanted
from edgewright_controller.ledger.cordons import CordonRow
from edgewright_controller.ledger.devices import DesiredRow, DeviceRow
from edgewright_controller.ledger.telemetry import LatestRow
from edgewright_controller.service import audit_trail, standing
from edgewright_controller.service.change import BadInput
from edgewright_controller.service.known_labels import KnownLabels
from edgewright_controller.service.presence import Presence

MAX_DEVICES_NAMED: Final = 10_000
# What is shown of one device, the newest of each.
MAX_GENERATIONS: Final = 50
MAX_ROLLOUTS: Final = 20


class Rollouts(Protocol):
    """What is shown of rollouts."""

    async def views(self) -> list[operator_pb2.RolloutView]:
        """Those that run, else the newest that ended."""

    def device_state(self, device: str) -> str:
        """Where the device stands in the running rollout, empty when in none."""


class Shut(Protocol):
    """Which devices are shut out."""

    def shut_devices(self) -> frozenset[str]:
        """Those of which everything is revoked."""


@dataclass(frozen=True)
class _Facts:
    rows: Sequence[DeviceRow]
    desired: Mapping[str, DesiredRow]
    releases: Mapping[str, Release]
    latest: Mapping[str, LatestRow]
    labels: Mapping[str, Mapping[str, str]]
    cordons: Mapping[str, CordonRow]
    stored: int


class Overview:
    """Answers `status`. `broker_connected` tells whether reports can come in."""

    def __init__(
        self,
        fleet: str,
        ledger: Ledger,
        presence: Presence,
        rollouts: Rollouts,
        *,
        revocations: Shut,
        broker_connected: Callable[[], bool],
        clock: Callable[[], datetime],
        store_trouble: Callable[[], str] = lambda: "",
    ) -> None:
        self._fleet, self._ledger, self._presence, self._rollouts = fleet, ledger, presence, rollouts
        self._revocations, self._labels = revocations, KnownLabels()
        self._broker_connected, self._clock = broker_connected, clock
        self._store_trouble = store_trouble

    @property
    def fleet(self) -> str:
        """The fleet's name."""
        return self._fleet

    def audit(self, wanted: Wanted) -> AsyncIterator[AuditRow]:
        """The entries of the audit log that are wanted, in their order. Raises LedgerError."""
        return audit_trail.entries(self._ledger, wanted)

    async def check_enrolled(self, only: Sequence[str]) -> None:
        """Raises BadInput for a device of `only` that there is not, LedgerError."""
        if only:
            _check_count(only)
            rows = await self._ledger.read(lambda c: devices.every(c, list(only)))
            _check_known(only, rows)

    async def status(
        self, only: Sequence[str], limit: int, *, decommissioned: bool = False
    ) -> operator_pb2.StatusResponse:
        """All devices, also those that were decommissioned if `decommissioned`, or those of `only`.

        Raises BadInput for a device that there is not, LedgerError.
        """
        _check_count(only)
        facts = await self._ledger.read(lambda c: self._facts(c, list(only), limit, decommissioned=decommissioned))
        if not limit:
            _check_known(only, facts.rows)
        return operator_pb2.StatusResponse(
            fleet=self._fleet,
            controller_version=__version__,
            devices=[self._view(row, facts) for row in facts.rows],
            rollouts=await self._rollouts.views(),
            broker_connected=self._broker_connected(),
            telemetry_stored=facts.stored,
            store_trouble=self._store_trouble(),
        )

    async def device(self, device: str) -> operator_pb2.ShowDeviceResponse:
        """One device and its past. Raises BadInput when there is no such device, LedgerError."""

        def act(connection: Connection) -> tuple[_Facts, list[DesiredRow], list[str]]:
            facts = self._facts(connection, [device], 0)
            past = devices.history(connection, device)[:MAX_GENERATIONS]
            return facts, past, rollouts.of_device(connection, device, MAX_ROLLOUTS)

        facts, past, had_by = await self._ledger.read(act)
        _check_known([device], facts.rows)
        return operator_pb2.ShowDeviceResponse(
            device=self._view(facts.rows[0], facts), generations=map(_generation, past), rollouts=had_by
        )

    def _view(self, row: DeviceRow, facts: _Facts) -> operator_pb2.DeviceView:
        wanted = facts.desired.get(row.id)
        release = facts.releases.get(wanted.release or "") if wanted else None
        latest, cordon = facts.latest.get(row.id), facts.cordons.get(row.id)
        return operator_pb2.DeviceView(
            device=row.id,
            enrolled=True,
            online=self._presence.online(row.id),
            seen_s_ago=self._seen_s_ago(row),
            desired_generation=wanted.generation if wanted else 0,
            desired_release=(wanted.release or "") if wanted else "",
            model=release.model if release else "",
            profile=release.profile if release else "",
            status=standing.said(row),
            inventory=row.inventory,
            telemetry=latest.telemetry if latest else None,
            rollout_state=self._rollouts.device_state(row.id),
            revoked=row.id in self._revocations.shut_devices(),
            labels=facts.labels.get(row.id),
            cordoned=cordon.words if cordon else "",
            decommissioned=row.decommissioned_ms is not None,
        )

    def _facts(self, connection: Connection, only: list[str], limit: int, *, decommissioned: bool = True) -> _Facts:
        rows = devices.every(connection, only or None, limit, decommissioned=decommissioned or bool(only))
        names = [row.id for row in rows]
        desired = devices.desired(connection, names)
        wanted = {row.release for row in desired.values() if row.release}
        return _Facts(
            rows=rows,
            desired=desired,
            releases={digest: releases.get(connection, digest).release for digest in wanted},
            latest=telemetry.latest(connection, names),
            labels=self._labels.of(connection, names),
            cordons=cordons.every(connection, names),
            stored=telemetry.total(connection),
        )

    def _seen_s_ago(self, row: DeviceRow) -> float:
        ago = self._presence.seen_s_ago(row.id)
        if ago is not None:
            return ago
        if row.seen_ms is None:
            return -1.0
        return max(0.0, self._clock().timestamp() - row.seen_ms / 1000)


def _check_count(only: Sequence[str]) -> None:
    if len(only) > MAX_DEVICES_NAMED:
        raise BadInput(f"{len(only)} devices named; name at most {MAX_DEVICES_NAMED}, or none for all")


def _check_known(only: Sequence[str], rows: Sequence[DeviceRow]) -> None:
    known = {row.id for row in rows}
    missing = [device for device in only if device not in known]
    if missing:
        raise BadInput(f"device {missing[0]!r} is not enrolled; `edgewright devices` lists those that are")


def _generation(row: DesiredRow) -> operator_pb2.GenerationView:
    return operator_pb2.GenerationView(
        generation=row.generation,
        release=row.release or "",
        outcome=row.outcome,
        since_unix_ms=row.since_ms,
        settled_unix_ms=row.settled_ms or 0,
        reason=row.reason,
    )
