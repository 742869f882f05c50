"""Takes what devices publish, stores it in batches, and only then tells the broker that it has it.

The broker's session of this client outlives the controller, so what arrives meanwhile waits there, and what
was not acknowledged comes again. The ledger drops doubles by (device, spool epoch, number). An envelope that
may not be stored is counted by its fault and acknowledged, for it would come again for ever. So is what a device says
that is shut out: the broker may hold its connection a moment longer, and one that is not ours for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from edgewright_contract import names
from edgewright_contract.envelope import MAX_ENVELOPE_BYTES, EnvelopeRefused, Refusal, encode_hint, parse
from edgewright_contract.mqtt_link import Incoming, LinkSettings, MqttLink, Outgoing, tls_files
from edgewright_contract.v1 import telemetry_pb2
from edgewright_controller import log
from edgewright_controller.broker import BrokerFiles
from edgewright_controller.reports.connections import Connection, after
from edgewright_controller.reports.ears import Ears, Heard

SESSION_EXPIRY_S: Final = 86_400
MAX_BATCH: Final = 500
GATHER_S: Final = 0.05
_STOP_S: Final = 5.0
_MAX_TAIL: Final = 1_000
_LONGEST_PAUSE_S: Final = 30.0
_MAX_PACKET_BYTES: Final = MAX_ENVELOPE_BYTES + 4096

_log = log.of(__name__)

Report = tuple[str, telemetry_pb2.Envelope, int]
"""(device, checked envelope, when it arrived in Unix milliseconds by the controller's clock)."""


class ReportStore(Protocol):
    """Where reports go. Returns when they are durable, with the number of those that were new."""

    async def store(self, batch: Sequence[Report]) -> int: ...


class ReportWatcher(Protocol):
    """Who wants to know which devices live. Called on the event loop."""

    def seen(self, device: str) -> None:
        """The device has published something just now."""

    def gone(self, device: str) -> None:
        """Its connection to the broker has ended."""


@dataclass
class Counts:
    """Since the start. `stored` are those that were new; `refused` by fault; `shut` those of devices shut out."""

    received: int = 0
    stored: int = 0
    deaths: int = 0
    shut: int = 0
    refused: Counter[Refusal] = field(default_factory=Counter)


class Ingest:
    """The controller's client of the broker, on the running event loop from `start` to `stop`."""

    def __init__(
        self,
        address: str,
        files: BrokerFiles,
        store: ReportStore,
        watcher: ReportWatcher | None = None,
        client_id: str = names.CONTROLLER_CN,
        *,
        shut: Callable[[], frozenset[str]] = frozenset,
    ):
        """`shut`: the devices that may say nothing any more."""
        self._store, self._watcher, self._shut = store, watcher, shut
        self._told_shut: set[str] = set()
        self.counts = Counts()
        self._connections: dict[str, Connection] = {}
        self._tails: dict[asyncio.Queue[Report], frozenset[str]] = {}
        self._ears: Ears | None = None
        self._link: MqttLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._connection = 0
        self._hints: dict[str, int] = {}  # what the broker has not confirmed yet
        self._tokens: dict[int, tuple[str, int]] = {}
        self._last_token = 0
        self._stopping = False
        self._settings = LinkSettings(
            address=address,
            client_id=client_id,
            tls=tls_files(files.chain, files.key, files.ca),
            subscribe=tuple(f"{names.TOPIC_ROOT}/+/up/{leaf}" for leaf in names.UP_LEAVES),
            session_expiry_s=SESSION_EXPIRY_S,
            receive_maximum=MAX_BATCH,
            max_packet_bytes=_MAX_PACKET_BYTES,
            manual_ack=True,
            longest_pause_s=10.0,
        )

    def start(self) -> None:
        """Begin to connect, in the background, for ever. Raises AddressError."""
        loop = asyncio.get_running_loop()
        self._ears = Ears(loop, self._connected, self._confirmed)
        self._link = MqttLink(self._settings, self._ears)
        self._task = loop.create_task(self._run(self._ears), name="ingest")
        self._link.start()

    async def stop(self) -> None:
        """Store what arrived, as far as the store takes it within seconds, and disconnect. The rest comes again."""
        if self._ears is None or self._link is None or self._task is None:
            return
        self._stopping = True
        self._ears.wake()
        await asyncio.wait([self._task], timeout=_STOP_S)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await asyncio.to_thread(self._link.stop)

    @property
    def connected(self) -> bool:
        """Whether the broker is connected at this moment."""
        return self._link is not None and self._link.up

    def is_up(self, device: str) -> bool:
        """Whether the broker holds a connection of this device, as far as is known."""
        connection = self._connections.get(device)
        return connection is not None and connection.up

    def hint(self, device: str, generation: int) -> None:
        """Tell a device, now or when it comes back, that there is a newer generation. Never waits.

        Only the newest hint of a device is kept; while the broker is away, it goes out as soon as it is back.
        """
        self._hints[device] = generation
        self._send_hints([device])

    async def tail(self, devices: Iterable[str] = ()) -> AsyncIterator[Report]:
        """Everything that is stored from now on, of these devices or of all. A slow reader misses the oldest."""
        mine: asyncio.Queue[Report] = asyncio.Queue(_MAX_TAIL)
        self._tails[mine] = frozenset(devices)
        try:
            while True:
                yield await mine.get()
        finally:
            del self._tails[mine]

    async def _run(self, ears: Ears) -> None:
        while not self._stopping:
            await ears.arrival()
            await asyncio.sleep(GATHER_S)  # many reports share a commit
            while batch := ears.take(MAX_BATCH):
                await self._take(batch)

    async def _take(self, batch: list[Heard]) -> None:
        """Check, store, acknowledge, tell: in this order."""
        reports: list[Report] = []
        presence: list[Report | str] = []  # in the order in which it was told: a report, or a device that is gone
        for heard, envelope in self._admitted(self._parsed(batch)):
            message = heard.message
            gone = self._note(envelope, message.retained)
            # The broker repeats what it retains at each subscription, however old. What of it is not stored yet
            # is still in its device's spool.
            if envelope.seq and not message.retained:
                reports.append((envelope.device_id, envelope, heard.recv_ms))
                presence.append(reports[-1])
            presence += [envelope.device_id] if gone else []
        if reports:
            self.counts.stored += await self._stored(reports)
        self._acknowledge([heard.message for heard in batch])
        for told in presence:
            if isinstance(told, str):
                if self._watcher:
                    self._watcher.gone(told)
                continue
            if self._watcher:
                self._watcher.seen(told[0])
            self._show(told)

    def _parsed(self, batch: list[Heard]) -> list[tuple[Heard, telemetry_pb2.Envelope]]:
        """What may be stored; the rest is counted."""
        parsed = []
        for heard in batch:
            message = heard.message
            self.counts.received += 1
            try:
                parsed.append((heard, parse(message.topic, message.payload)))
            except EnvelopeRefused as error:
                self.counts.refused[error.refusal] += 1
                _log.info("report dropped", topic=message.topic[:100], why=str(error))
        return parsed

    def _admitted(
        self, parsed: list[tuple[Heard, telemetry_pb2.Envelope]]
    ) -> list[tuple[Heard, telemetry_pb2.Envelope]]:
        """Without what devices say that are shut out, but for a will: that one's connection has ended, is true."""
        devices = {envelope.device_id for _, envelope in parsed}
        shut = devices & self._shut()
        if new := shut - self._told_shut:  # once for each, not once for each of its words
            _log.warning("what revoked devices say over MQTT is dropped", devices=sorted(new))
        self._told_shut = (self._told_shut - devices) | shut
        if not shut:
            return parsed
        left = [
            (heard, envelope)
            for heard, envelope in parsed
            if envelope.device_id not in shut or (envelope.HasField("death") and not envelope.seq)
        ]
        self.counts.shut += len(parsed) - len(left)
        return left

    def _acknowledge(self, messages: list[Incoming]) -> None:
        if self._link:
            for connection in {message.connection for message in messages}:
                mids = [message.mid for message in messages if message.connection == connection]
                self._link.acknowledge(connection, mids)

    async def _stored(self, reports: list[Report]) -> int:
        """Store until it succeeds: a full disk may become free, and until then the broker keeps the rest."""
        pause_s = 1.0
        while True:
            try:
                return await self._store.store(reports)
            except Exception as error:  # of whatever kind: nothing is lost as long as this goes on
                _log.error("reports cannot be stored", reports=len(reports), again_in_s=pause_s, why=repr(error))
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _note(self, envelope: telemetry_pb2.Envelope, retained: bool) -> bool:
        """Who is connected, by births and deaths; whether this one says that its device is gone."""
        device, death = envelope.device_id, envelope.HasField("death")
        if not death and not envelope.HasField("birth"):
            return False
        known = self._connections.get(device)
        told = after(known, envelope)
        changed = told is not None and told is not known
        if changed and told is not None:
            self._connections[device] = told
        if death and not retained:
            self.counts.deaths += 1
        return death and changed

    def _show(self, report: Report) -> None:
        for tail, devices in self._tails.items():
            if not devices or report[0] in devices:
                if tail.full():
                    tail.get_nowait()
                tail.put_nowait(report)

    def _connected(self, connection: int) -> None:
        self._connection = connection
        self._tokens.clear()
        self._send_hints(list(self._hints))

    def _send_hints(self, devices: list[str]) -> None:
        for device in devices:
            self._last_token += 1
            self._tokens[self._last_token] = (device, self._hints[device])
            payload = encode_hint(self._hints[device])
            message = Outgoing(self._last_token, names.hint_topic(device), payload, retain=True)
            if self._link is None or not self._link.publish(self._connection, message):
                del self._tokens[self._last_token]
                return  # the rest waits in `_hints` for the next connection

    def _confirmed(self, token: int) -> None:
        device, generation = self._tokens.pop(token, ("", 0))
        if self._hints.get(device) == generation:
            del self._hints[device]
