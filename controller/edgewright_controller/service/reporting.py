"""Reports on their way into the ledger; a status among them also tells how an update goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from edgewright_contract.v1 import agent_pb2, telemetry_pb2
from edgewright_controller import log
from edgewright_controller.ledger import Ledger, LedgerError, telemetry
from edgewright_controller.reports import Report
from edgewright_controller.service.check_in import CheckInRefused, CheckIns, UnknownDevice

_log = log.of(__name__)


class LedgerReports:
    """The store behind the ingest."""

    def __init__(
        self,
        ledger: Ledger,
        check_ins: CheckIns,
        shut: Callable[[Collection[str]], Collection[str]] = lambda _devices: (),
    ) -> None:
        """`shut` says which of these devices may say nothing any more."""
        self._ledger, self._check_ins, self._shut = ledger, check_ins, shut

    async def store(self, batch: Sequence[Report]) -> int:
        """Store a batch; how many were new. Raises LedgerError, then nothing of it is stored.

        What a device says whose certificates are revoked is dropped, though its connection may stand for a moment.
        """
        shut = self._shut({device for device, _, _ in batch})
        if shut:
            _log.warning("reports of revoked devices dropped", devices=sorted(shut))
            batch = [report for report in batch if report[0] not in shut]
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
