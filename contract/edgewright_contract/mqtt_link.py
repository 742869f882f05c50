"""One MQTT 5 connection over mutual TLS that is kept alive on a thread of its own, for either end.

paho's own loops are not used. They select() on at most 1,024 descriptors, start over without telling how
often, and let other threads write to the socket at the wrong moment. Here one thread owns the client; other
threads hand it work through `publish` and `acknowledge`, and hear of everything through a `Listener`.
Each connection gets a fresh client: nothing is left over from the one before, and renewed certificates are
read. What was not confirmed when a connection ended is the caller's to send again.

paho is an optional dependency of the contract: both ends install it.
"""

from __future__ import annotations

import logging
import random
import selectors
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

KEEPALIVE_S: Final = 60
CONNECT_DEADLINE_S: Final = 5.0
STEADY_S: Final = 30.0  # a connection that lasted so long resets the pause before the next
LINGER_S: Final = 2.0
_WAKE_S: Final = 15.0
_MAX_WORK: Final = 10_000

_log = logging.getLogger(__name__)
_random = random.SystemRandom()


@dataclass(frozen=True)
class LinkSettings:
    """How one end connects. `address` is host:port; `tls` makes the context of each connection anew (`tls_files`)."""

    address: str
    client_id: str
    tls: Callable[[], ssl.SSLContext]
    subscribe: tuple[str, ...]
    session_expiry_s: int
    receive_maximum: int
    max_packet_bytes: int
    manual_ack: bool = False
    first_pause_s: float = 1.0
    longest_pause_s: float = 60.0


@dataclass(frozen=True)
class Outgoing:
    """A message to publish with QoS 1. `token` comes back through `Listener.published`."""

    token: int
    topic: str
    payload: bytes
    retain: bool = False
    expiry_s: int = 0
    delay_s: int = 0  # of a will


@dataclass(frozen=True)
class Incoming:
    """A message that arrived. With manual acknowledgement, `acknowledge` takes it back as it is."""

    connection: int
    mid: int
    topic: str
    payload: bytes
    retained: bool


class Listener(Protocol):
    """Hears of everything on the link's thread, so it must return soon. What it raises ends the connection."""

    def will(self) -> Outgoing | None:
        """What the broker publishes if the coming connection is lost. Asked before each attempt to connect."""

    def connected(self, connection: int) -> None:
        """Connection number `connection` stands and its subscriptions are asked for."""

    def disconnected(self, connection: int) -> None:
        """It is gone; what was handed over and not confirmed may be lost."""

    def published(self, connection: int, token: int) -> None:
        """The broker took the message. That does not mean that it survives the broker."""

    def received(self, message: Incoming) -> None:
        """A message arrived."""


class AddressError(ValueError):
    """The text is not host:port."""


def split_address(address: str) -> tuple[str, int]:
    """(host, port) of "host:port" or "[v6 address]:port". Raises AddressError."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise AddressError(f"{address!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def tls_files(certificate: Path, key: Path, ca: Path) -> Callable[[], ssl.SSLContext]:
    """For `LinkSettings.tls`: these PEM files, as they are when a connection begins."""

    def read() -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(ca))
        context.load_cert_chain(certificate, key)
        return context

    return read


def paused(attempt: int, first_s: float, longest_s: float, draw: float) -> float:
    """Seconds to wait before attempt number `attempt` (from 0) is repeated; `draw` from 0 to 1 spreads a fleet."""
    return float(min(longest_s, first_s * 2 ** min(attempt, 20)) * (0.5 + 0.5 * draw))


class MqttLink:
    """Connects, reconnects with a growing pause, and never gives up until `stop`."""

    def __init__(self, settings: LinkSettings, listener: Listener):
        self._settings, self._listener = settings, listener
        self._host, self._port = split_address(settings.address)
        self._work: deque[tuple[int, Callable[[Client], None]]] = deque()
        self._tokens: dict[int, int] = {}
        self._connection = 0
        self._up = False
        self._stopping, self._leaving, self._hurry = threading.Event(), threading.Event(), threading.Event()
        self._wake_r, self._wake_w = socket.socketpair()
        self._wake_r.setblocking(False)
        self._wake_w.setblocking(False)
        self._thread = threading.Thread(target=self._run, name=f"mqtt {settings.client_id}", daemon=True)
        self._complaint = ""

    @property
    def up(self) -> bool:
        """Whether the broker is connected at this moment."""
        return self._up

    def start(self) -> None:
        """Begin to connect. Returns at once, whether or not there is a broker."""
        self._thread.start()

    def stop(self, deadline_s: float = 5.0) -> None:
        """Send what was handed over, for LINGER_S at most, disconnect, and end the thread."""
        self._stopping.set()
        self._hurry.set()
        self._wake()
        if self._thread.is_alive():
            self._thread.join(deadline_s)
        if not self._thread.is_alive():
            self._wake_r.close()
            self._wake_w.close()

    def reconnect(self) -> None:
        """Send what was handed over, for LINGER_S at most, disconnect, and connect again at once."""
        self._leaving.set()
        self._hurry.set()
        self._wake()

    def publish(self, connection: int, message: Outgoing) -> bool:
        """Hand over a message for this connection; False when it is no longer the one that stands."""

        def act(client: Client) -> None:
            values: dict[str, int | str] = {"ContentType": "application/x-protobuf"}
            if message.expiry_s:
                values["MessageExpiryInterval"] = message.expiry_s
            properties = _properties(PacketTypes.PUBLISH, values)
            sent = client.publish(message.topic, message.payload, qos=1, retain=message.retain, properties=properties)
            if sent.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
                self._tokens[sent.mid] = message.token

        return self._hand_over(connection, act)

    def acknowledge(self, connection: int, mids: list[int]) -> bool:
        """Acknowledge messages of this connection; False when the broker will deliver them again anyway."""

        def act(client: Client) -> None:
            for mid in mids:
                client.ack(mid, 1)

        return self._hand_over(connection, act)

    def _hand_over(self, connection: int, act: Callable[[Client], None]) -> bool:
        if not self._up or connection != self._connection or len(self._work) >= _MAX_WORK:
            return False
        self._work.append((connection, act))
        self._wake()
        return True

    def _wake(self) -> None:
        try:
            self._wake_w.send(b"w")
        except (BlockingIOError, OSError):
            return  # a full pair is awake already; a closed one has nobody to wake

    def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._one_connection()
            except Exception as error:  # whatever happens, a device must not fall silent for ever
                self._complain(f"{self._settings.address}: {str(error) or type(error).__name__}")
            attempt = 0 if time.monotonic() - began > STEADY_S else attempt + 1
            pause = paused(
                attempt - 1 if attempt else 0,
                self._settings.first_pause_s,
                self._settings.longest_pause_s,
                _random.random(),
            )
            self._hurry.wait(pause)
            if not self._stopping.is_set():
                self._hurry.clear()

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:  # once for each new reason, not once for each attempt
            _log.warning("MQTT broker %s", complaint)
        self._complaint = complaint

    def _one_connection(self) -> None:
        """From CONNECT until the connection is gone, or `stop`. Raises OSError when there is none."""
        self._leaving.clear()  # whoever wanted another connection gets it now
        self._connection += 1
        self._tokens.clear()
        self._work.clear()
        client = self._client()
        settings = self._settings
        connect = _properties(
            PacketTypes.CONNECT,
            {
                "SessionExpiryInterval": settings.session_expiry_s,
                "ReceiveMaximum": settings.receive_maximum,
                "MaximumPacketSize": settings.max_packet_bytes,
            },
        )
        try:
            client.connect(self._host, self._port, KEEPALIVE_S, clean_start=False, properties=connect)
            self._converse(client)
        finally:
            stood, self._up = self._up, False
            if client.socket() is not None:
                client.disconnect()
            if stood:
                self._listener.disconnected(self._connection)

    def _client(self) -> Client:
        settings = self._settings
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            reconnect_on_failure=False,
            manual_ack=settings.manual_ack,
        )
        client.tls_set_context(settings.tls())
        client.connect_timeout = CONNECT_DEADLINE_S
        client.max_inflight_messages_set(20)  # paho ignores the broker's Receive Maximum; 20 is what every broker takes
        client.max_queued_messages_set(100)
        if will := self._listener.will():
            properties = _properties(PacketTypes.WILLMESSAGE, {"WillDelayInterval": will.delay_s})
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain, properties=properties)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _converse(self, client: Client) -> None:
        answer_by = time.monotonic() + CONNECT_DEADLINE_S
        leave_by: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_r, selectors.EVENT_READ)
            stream = client.socket()
            if stream is None:
                return  # the other end has closed it already, as on a certificate that it does not take
            selector.register(stream, selectors.EVENT_READ)
            while client.socket() is not None:
                now = time.monotonic()
                if self._stopping.is_set() or self._leaving.is_set():
                    leave_by = leave_by or now + LINGER_S
                    unsaid = self._work or self._tokens or client.want_write()
                    if not (self._up and unsaid) or now > leave_by:
                        return
                if not self._up and now > answer_by:
                    raise TimeoutError("no answer to CONNECT")
                writing = selectors.EVENT_WRITE if client.want_write() else 0
                selector.modify(stream, selectors.EVENT_READ | writing)
                wait = _WAKE_S if self._up and leave_by is None else 0.2
                buffered = isinstance(stream, ssl.SSLSocket) and stream.pending() > 0
                for key, events in selector.select(0 if buffered else wait):
                    if key.fileobj is self._wake_r:
                        self._wake_r.recv(4096)
                    elif events & selectors.EVENT_WRITE:
                        client.loop_write()
                self._read(client, stream)
                self._do_work(client)
                client.loop_misc()

    def _read(self, client: Client, stream: object) -> None:
        # One packet at a time as paho does, but all that TLS has decrypted: select does not see those bytes.
        while client.socket() is not None:
            client.loop_read()
            if not (isinstance(stream, ssl.SSLSocket) and client.socket() is not None and stream.pending() > 0):
                return

    def _do_work(self, client: Client) -> None:
        while self._work and client.socket() is not None:
            connection, act = self._work.popleft()
            if connection == self._connection:
                act(client)

    def _on_connect(
        self, client: Client, data: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if reason.is_failure:
            self._complain(f"{self._settings.address} refuses {self._settings.client_id}: {reason}")
            return
        if self._settings.subscribe:
            client.subscribe([(topic, 1) for topic in self._settings.subscribe])
        self._complaint = ""
        self._up = True
        self._listener.connected(self._connection)

    def _on_disconnect(
        self, client: Client, data: object, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        if self._stopping.is_set() or self._leaving.is_set():
            return
        if self._up:
            self._complain(f"{self._settings.address}: connection lost: {reason}")
        else:
            # With TLS 1.3, a client's certificate is refused after the handshake has ended for the client.
            self._complain(
                f"{self._settings.address} closes the connection before it answers; it does not take the certificate"
                f" of {self._settings.client_id}, or ends just now"
            )

    def _on_publish(
        self, client: Client, data: object, mid: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        token = self._tokens.pop(mid, None)
        if reason.is_failure:
            self._complain(f"{self._settings.address} refuses a message of {self._settings.client_id}: {reason}")
        if token is not None:
            self._listener.published(self._connection, token)

    def _on_message(self, client: Client, data: object, message: MQTTMessage) -> None:
        self._listener.received(
            Incoming(self._connection, message.mid, message.topic, bytes(message.payload), message.retain)
        )


def _properties(packet: int, values: Mapping[str, int | str]) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]  # paho leaves this one class without types
    for name, value in values.items():
        setattr(properties, name, value)
    return properties
