"""Reports on their way into the ledger; a status among them also tells how an update goes."""

from __future__ import annotations

from collections.abc import Sequence

from edgewright_contract.v1 import agent_pb2, telemetry_pb2
from edgewright_controller import log
from edgewright_controller.ledger import Ledger, LedgerError, telemetry
from edgewright_controller.reports import Report
from edgewright_controller.service.check_in import CheckInRefused, CheckIns, UnknownDevice

_log = log.of(__name__)


class LedgerReports:
    """The store behind the ingest."""

    def __init__(self, ledger: Ledger, check_ins: CheckIns) -> None:
        self._ledger, self._check_ins = ledger, check_ins

    async def store(self, batch: Sequence[Report]) -> int:
        """Store a batch; how many were new. Raises LedgerError, then nothing of it is stored."""
        fresh = await self._ledger.write(lambda c: telemetry.store(c, batch))
        newest: dict[str, agent_pb2.DeviceStatus] = {}
        for device, envelope, _ in batch:
            status = _status(envelope)
            if status is not None and (device not in newest or newest[device].sequence < status.sequence):
                newest[device] = status
        for device, status in newest.items():
            try:
                await self._check_ins.status(device, status)
            except (CheckInRefused, UnknownDevice, LedgerError) as error:
                # The report itself is stored; the device says the same again when it checks in.
                _log.warning("status over MQTT not taken", device=device, why=str(error))
        return fresh


def _status(envelope: telemetry_pb2.Envelope) -> agent_pb2.DeviceStatus | None:
    if envelope.HasField("update"):
        return envelope.update
    if envelope.HasField("birth") and envelope.birth.HasField("status"):
        return envelope.birth.status
    return None
