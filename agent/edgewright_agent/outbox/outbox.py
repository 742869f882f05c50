"""What the rest of the agent sees: say something to the controller, without waiting for disk or network."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgewright_agent.outbox.boot import Clocks, boot_id, read_clocks
from edgewright_agent.outbox.delivery import Delivery, MqttIdentity, OutboxSettings, Say, Settled
from edgewright_contract import __version__, digest, envelope
from edgewright_contract.v1 import agent_pb2, telemetry_pb2

_PROGRESS_EVERY_S: Final = 2.0
_MAX_NAME_BYTES: Final = 256


def worth_sending(last: agent_pb2.DeviceStatus | None, new: agent_pb2.DeviceStatus, elapsed_s: float) -> bool:
    """Whether a status says more than progress in bytes since the last one, or that is `elapsed_s` old enough."""
    if last is None or elapsed_s >= _PROGRESS_EVERY_S:
        return last != new
    settled = agent_pb2.DeviceStatus()
    settled.CopyFrom(new)
    settled.done_bytes, settled.sequence = last.done_bytes, last.sequence
    return settled != last


class Outbox:
    """Spools and publishes. Every method but `stop` returns at once; all may be called from any thread.

    `on_hint(generation)` is called on a thread of the outbox and must return at once, for example with
    `loop.call_soon_threadsafe`. A hint is not authoritative: it is a reason to check in.
    """

    def __init__(
        self,
        state: Path,
        identity: MqttIdentity,
        on_hint: Callable[[int], None],
        clock: Callable[[], Clocks] = read_clocks,
        settings: OutboxSettings | None = None,
    ):
        self._device, self._clock, self._boot_id = identity.device, clock, boot_id()
        self._lock = threading.Lock()
        self._birth = telemetry_pb2.Birth()
        self._status: agent_pb2.DeviceStatus | None = None
        self._status_at = 0.0
        self._delivery = Delivery(state / "spool.sqlite", identity, self, on_hint, settings or OutboxSettings())

    def start(self) -> None:
        """Open the spool and begin to connect, in the background. Neither a full disk nor a missing broker stops it."""
        self._delivery.start()

    def stop(self) -> None:
        """Save what waits, tell the broker goodbye, and end: within about eight seconds."""
        self._delivery.stop()

    def reconnect(self) -> None:
        """Connect anew, with the certificate of now, as soon as what is on its way has arrived. Nothing is lost."""
        self._delivery.reconnect()

    @property
    def epoch(self) -> bytes:
        """The spool's epoch, for the check-in; empty while the spool is not open."""
        return self._delivery.epoch

    @property
    def settled(self) -> int:
        """Up to which number of the epoch nothing is kept any more, for the check-in."""
        return self._delivery.settled

    @property
    def connected(self) -> bool:
        """Whether the broker is connected at this moment."""
        return self._delivery.is_connected

    def depth(self) -> int:
        """How many messages are not yet known to be stored by the controller."""
        return self._delivery.depth()

    def telemetry(self, telemetry: telemetry_pb2.Telemetry) -> None:
        """Say how the device does. The caller chooses the interval."""
        message = self._envelope()
        message.telemetry.CopyFrom(telemetry)
        self._delivery.post(Say(message))

    def event(self, kind: telemetry_pb2.Event.Kind, detail: str) -> None:
        """Say that something happened, in one line; cut after 2,000 bytes."""
        message = self._envelope()
        message.event.kind, message.event.detail = kind, envelope.shortened(detail)
        self._delivery.post(Say(message))

    def update(self, status: agent_pb2.DeviceStatus) -> None:
        """Say where the update stands. Mere progress in bytes is thinned to a message every two seconds."""
        now, status = time.monotonic(), _bounded(status)
        with self._lock:
            if not worth_sending(self._status, status, now - self._status_at):
                return
            self._status, self._status_at = status, now
        message = self._envelope()
        message.update.CopyFrom(status)
        self._delivery.post(Say(message))

    def birth(self, endpoint: str, engine: str, accelerator: str, status: agent_pb2.DeviceStatus | None = None) -> None:
        """Say what serves here: now, and again at the beginning of each connection to come."""
        birth = telemetry_pb2.Birth(
            endpoint=envelope.shortened(endpoint, _MAX_NAME_BYTES),
            engine=envelope.shortened(engine, _MAX_NAME_BYTES),
            accelerator=envelope.shortened(accelerator, _MAX_NAME_BYTES),
        )
        if status is not None:
            birth.status.CopyFrom(_bounded(status))
        with self._lock:
            self._birth = birth
        self.rebirth()

    def rebirth(self) -> None:
        """Say the last birth again."""
        self._delivery.post(Say(self.compose_birth()))

    def stored(self, sequence: int, epoch: bytes | None = None) -> None:
        """The controller has stored everything up to `sequence`, of `epoch` if given: forget it."""
        self._delivery.post(Settled(sequence, epoch))

    def compose_birth(self) -> telemetry_pb2.Envelope:
        """For the delivery, which begins each connection with it."""
        message = self._envelope()
        with self._lock:
            message.birth.CopyFrom(self._birth)
            if self._status is not None:
                message.birth.status.CopyFrom(self._status)
        return message

    def compose_death(self, graceful: bool) -> telemetry_pb2.Envelope:
        """For the delivery, which ends each connection with it, and leaves it with the broker as its will."""
        message = self._envelope()
        message.death.graceful = graceful
        return message

    def _envelope(self) -> telemetry_pb2.Envelope:
        clocks = self._clock()
        with self._lock:
            status = self._status or self._birth.status
        artifact = status.active_artifact
        return telemetry_pb2.Envelope(
            schema=envelope.SCHEMA,
            device_id=self._device,
            boot_id=self._boot_id,
            wall_ms=clocks.wall_ms,
            mono_ms=clocks.mono_ms,
            clock_synced=clocks.synced,
            agent_version=__version__,
            artifact_digest=bytes.fromhex(artifact) if digest.is_sha256(artifact) else b"",
            generation=status.generation,
        )


def _bounded(status: agent_pb2.DeviceStatus) -> agent_pb2.DeviceStatus:
    """A copy whose free texts are cut to what the controller takes."""
    copy = agent_pb2.DeviceStatus()
    copy.CopyFrom(status)
    copy.reason = envelope.shortened(status.reason)
    for name in ("engine", "accelerator", "endpoint"):
        setattr(copy, name, envelope.shortened(getattr(status, name), _MAX_NAME_BYTES))
    return copy
