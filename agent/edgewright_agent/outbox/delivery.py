"""The thread that owns the spool: it numbers and saves what was said, and hands it to the link at its pace.

The link has a thread of its own and only puts what it hears into the same queue, so nothing here needs a lock.
Order matters in one place: a message is saved before it is published, so that its number can never be used
for another one after a power cut.
"""

from __future__ import annotations

import logging
import queue
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from edgewright_agent.outbox.sending import Pace, Sending
from edgewright_agent.outbox.spool import Spool, SpoolFailed, SpoolLimits
from edgewright_contract import envelope, names
from edgewright_contract.mqtt_link import Incoming, LinkSettings, MqttLink, Outgoing
from edgewright_contract.v1 import telemetry_pb2

SESSION_EXPIRY_S: Final = 60
WILL_DELAY_S: Final = 15
TELEMETRY_EXPIRY_S: Final = 86_400
_RETAINED: Final = ("state", "update")  # leaves whose newest message the broker keeps for whoever comes later
_MAX_WAITING: Final = 1_000
_RETRY_DISK_S: Final = 30.0
_EXPIRE_EVERY_S: Final = 3_600.0
_STOP_DEADLINE_S: Final = 8.0
_DEATH_TOKEN: Final = 0
_MAX_HINT_BYTES: Final = 1_024

_log = logging.getLogger(__name__)


class MqttIdentity(Protocol):
    """What the outbox needs of the device's identity. An empty `mqtt_address` means: there is no broker."""

    @property
    def device(self) -> str: ...
    @property
    def mqtt_address(self) -> str: ...
    def tls_context(self) -> ssl.SSLContext: ...


class Composer(Protocol):
    """Makes the envelopes that the delivery itself has to send. Called on any thread."""

    def compose_birth(self) -> telemetry_pb2.Envelope: ...
    def compose_death(self, graceful: bool) -> telemetry_pb2.Envelope: ...


@dataclass(frozen=True)
class OutboxSettings:
    """What tests and small devices change. Pauses are those between attempts to reach the broker, in seconds."""

    spool: SpoolLimits = field(default_factory=SpoolLimits)
    pace: Pace = field(default_factory=Pace)
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0


@dataclass(frozen=True)
class Say:
    """Save and publish this."""

    message: telemetry_pb2.Envelope


@dataclass(frozen=True)
class Connected:
    """The link stands."""

    connection: int


@dataclass(frozen=True)
class Disconnected:
    """It is gone."""

    connection: int


@dataclass(frozen=True)
class Confirmed:
    """The broker has a message."""

    connection: int
    seq: int


@dataclass(frozen=True)
class Settled:
    """The controller has stored everything up to `seq` of `epoch` (None: of the spool's present one)."""

    seq: int
    epoch: bytes | None


@dataclass(frozen=True)
class Stop:
    """Save, say goodbye, end."""


Item = Say | Connected | Disconnected | Confirmed | Settled | Stop


class Delivery:
    """Runs from `start` to `stop`. `post` may be called from any thread and never waits."""

    def __init__(
        self,
        path: Path,
        identity: MqttIdentity,
        composer: Composer,
        on_hint: Callable[[int], None],
        settings: OutboxSettings,
    ):
        self._path, self._identity, self._composer = path, identity, composer
        self._on_hint, self._settings = on_hint, settings
        self._items: queue.SimpleQueue[Item] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._spool: Spool | None = None
        self._link: MqttLink | None = None
        self._sending = Sending(settings.pace)
        self._connection = 0  # that stands; 0: none
        self._session = 0
        self._overflowed = 0
        self._overflow_lock = threading.Lock()
        self._unsaved: deque[telemetry_pb2.Envelope] = deque()
        self._lost = 0
        self._spooled = 0
        self._retry_disk_at = 0.0
        self._expire_at = 0.0
        self._complaint = ""

    def start(self) -> None:
        """Open the spool and begin to connect, in the background."""
        self._thread.start()

    def stop(self) -> None:
        """End within _STOP_DEADLINE_S. What could not be sent stays in the spool."""
        if self._thread.is_alive():
            self._items.put(Stop())
            self._thread.join(_STOP_DEADLINE_S)

    def reconnect(self) -> None:
        """End the connection that stands, if any, for one with the certificate of now."""
        if self._link is not None:
            self._link.reconnect()

    def post(self, item: Item) -> None:
        """Queue an item. What is said while a thousand items wait, because the disk hangs, is dropped and counted."""
        if isinstance(item, Say) and self._items.qsize() >= _MAX_WAITING:
            with self._overflow_lock:
                self._overflowed += 1
        else:
            self._items.put(item)

    @property
    def epoch(self) -> bytes:
        """The spool's epoch; empty until it is open."""
        spool = self._spool
        return spool.epoch if spool else b""

    @property
    def settled(self) -> int:
        """Up to which number the spool keeps nothing any more."""
        spool = self._spool
        return spool.settled if spool else 0

    @property
    def is_connected(self) -> bool:
        """Whether the broker is connected at this moment."""
        return self._link is not None and self._link.up

    @property
    def session(self) -> int:
        """The number of the present or last connection."""
        return self._session

    def depth(self) -> int:
        """How many messages are not yet known to be stored by the controller, without those said just now."""
        return self._spooled + len(self._unsaved)

    # What the link tells, on its thread.

    def will(self) -> Outgoing | None:
        """The death that the broker publishes if the coming connection is lost."""
        assert self._spool is not None, "the link starts after the spool"
        try:
            self._session = self._spool.next_session(self._session)
        except SpoolFailed:
            self._session += 1  # a full disk must not keep the device off the air; the spool learns of it later
        return self._death(graceful=False)

    def connected(self, connection: int) -> None:
        self._items.put(Connected(connection))

    def disconnected(self, connection: int) -> None:
        self._items.put(Disconnected(connection))

    def published(self, connection: int, token: int) -> None:
        if token != _DEATH_TOKEN:
            self._items.put(Confirmed(connection, token))

    def received(self, message: Incoming) -> None:
        generation = envelope.parse_hint(message.payload)
        if message.topic == names.hint_topic(self._identity.device) and generation is not None:
            self._on_hint(generation)

    # All else is on the delivery's own thread.

    def _run(self) -> None:
        stopping = False
        while not stopping:
            stopping = self._take(self._next_items())
            self._save()
            self._publish()
        self._leave()

    def _next_items(self) -> list[Item]:
        """The items that wait; at least one, unless something else is due before it comes."""
        now = time.monotonic()
        dues = [self._sending.due_s(now) if self._connection else None]
        if self._spool is None or self._unsaved:
            dues.append(max(0.0, self._retry_disk_at - now))
        items: list[Item] = []
        try:
            items.append(self._items.get(timeout=min((due for due in dues if due is not None), default=None)))
            while len(items) < _MAX_WAITING:
                items.append(self._items.get_nowait())
        except queue.Empty:
            return items
        return items

    def _take(self, items: list[Item]) -> bool:
        """Act on each; True when one of them was Stop."""
        stopping = False
        for item in items:
            if isinstance(item, Say):
                if self._connection or not item.message.HasField("birth"):  # a birth comes with the connection anyway
                    self._accept(item.message)
            elif isinstance(item, Connected):
                self._begin(item.connection)
            elif isinstance(item, Disconnected):
                self._connection = 0
            elif isinstance(item, Confirmed):
                if item.connection == self._connection:
                    self._sending.confirmed(item.seq, time.monotonic())
            elif isinstance(item, Settled):
                self._settle(item)
            else:
                stopping = True
        return stopping

    def _accept(self, message: telemetry_pb2.Envelope) -> None:
        message.seq, message.spool_epoch, message.session = 1, bytes(envelope.EPOCH_BYTES), self._session
        try:
            envelope.check(message)
        except envelope.EnvelopeRefused as error:
            _log.error("a message was not sent: %s", error)
            return
        self._unsaved.append(message)
        if len(self._unsaved) > _MAX_WAITING:
            self._unsaved.popleft()
            self._lost += 1

    def _begin(self, connection: int) -> None:
        """The birth first, then the newest status, then what is made from now on, and the backlog beside it."""
        self._save()
        spool = self._spool
        if spool is None:
            return
        self._connection = connection
        try:
            update = spool.newest("update")
            self._accept(self._composer.compose_birth())
            self._save()
            birth = spool.newest("state")
            self._sending.connected([seq for seq in (birth, update) if seq], end=birth)
        except SpoolFailed as error:
            self._complain(error)

    def _settle(self, item: Settled) -> None:
        if self._spool is None or (item.epoch is not None and item.epoch != self._spool.epoch):
            return
        try:
            self._spool.settle(item.seq)
            self._spooled = self._spool.depth()
            self._sending.settled(item.seq, time.monotonic())
        except SpoolFailed as error:
            self._complain(error)

    def _save(self) -> None:
        """Number and save what is not saved yet. When the disk refuses, it waits in memory, up to a bound."""
        now = time.monotonic()
        if (self._spool is not None and not self._unsaved) or now < self._retry_disk_at:
            return
        try:
            if self._spool is None:
                self._open()
            spool = self._spool
            assert spool is not None
            if self._unsaved:
                with self._overflow_lock:
                    self._lost, self._overflowed = self._lost + self._overflowed, 0
                seqs = spool.add(self._unsaved, self._lost)
                last = self._unsaved[-1]
                self._unsaved.clear()
                self._lost = 0
                for seq in seqs if self._connection else []:
                    self._sending.made(seq)
                if last.clock_synced and now >= self._expire_at:
                    self._expire_at = now + _EXPIRE_EVERY_S
                    spool.expire(last.wall_ms)
            self._spooled, self._complaint = spool.depth(), ""
        except SpoolFailed as error:
            self._complain(error)
            self._retry_disk_at = now + _RETRY_DISK_S

    def _open(self) -> None:
        """Open the spool, and the link over it. Raises SpoolFailed."""
        self._spool = Spool.open(self._path, self._settings.spool)
        identity, settings = self._identity, self._settings
        if identity.mqtt_address:
            link = LinkSettings(
                address=identity.mqtt_address,
                client_id=identity.device,
                tls=identity.tls_context,
                subscribe=(names.hint_topic(identity.device),),
                session_expiry_s=SESSION_EXPIRY_S,
                receive_maximum=20,
                max_packet_bytes=_MAX_HINT_BYTES,
                first_pause_s=settings.first_pause_s,
                longest_pause_s=settings.longest_pause_s,
            )
            self._link = MqttLink(link, self)
            self._link.start()

    def _publish(self) -> None:
        """Hand the link whatever is due now."""
        spool, link = self._spool, self._link
        if spool is None or link is None:
            return
        try:
            while self._connection and (seq := self._sending.choose(time.monotonic(), spool.after)) is not None:
                stored = spool.get(seq)
                if stored is None:  # settled or dropped meanwhile
                    self._sending.refused(seq)
                    continue
                retain = stored.leaf in _RETAINED and seq == spool.newest(stored.leaf)
                topic = names.up_topic(self._identity.device, stored.leaf)
                expiry_s = TELEMETRY_EXPIRY_S if stored.leaf == "telemetry" else 0
                if not link.publish(self._connection, Outgoing(seq, topic, stored.payload, retain, expiry_s)):
                    self._connection = 0  # gone; the link is about to say so
        except SpoolFailed as error:
            self._complain(error)

    def _leave(self) -> None:
        if self._link is not None:
            if self._connection:
                self._link.publish(self._connection, self._death(graceful=True))
            self._link.stop()
        if self._spool is not None:
            self._spool.close()

    def _death(self, graceful: bool) -> Outgoing:
        message = self._composer.compose_death(graceful)
        message.session, message.spool_epoch = self._session, self.epoch
        topic = names.up_topic(self._identity.device, "state")
        return Outgoing(_DEATH_TOKEN, topic, envelope.encode(message), retain=True, delay_s=WILL_DELAY_S)

    def _complain(self, error: SpoolFailed) -> None:
        if str(error) != self._complaint:
            _log.warning("telemetry waits in memory: %s", error)
        self._complaint = str(error)
