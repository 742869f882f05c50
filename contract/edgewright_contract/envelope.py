"""A telemetry envelope from bytes and back, checked the same way on both ends.

A device never publishes what the controller would refuse, because both call `check`: a refused envelope
would keep its place in the device's spool for ever. The topic decides whose an envelope is, since the
broker's access list binds topics to certificates; what the envelope says of itself must agree.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import Final

from google.protobuf.message import DecodeError

from edgewright_contract import names
from edgewright_contract.v1 import agent_pb2, telemetry_pb2

SCHEMA: Final = 1
MAX_ENVELOPE_BYTES: Final = 64 << 10
MAX_TEXT_BYTES: Final = 2_000  # Event.detail and DeviceStatus.reason
EPOCH_BYTES: Final = 16
LEAVES: Final = {"birth": "state", "death": "state", "telemetry": "telemetry", "event": "event", "update": "update"}

_MAX_NAME_BYTES = 256
_MAX_HELD_RELEASES = 64
_MAX_HISTOGRAM_BOUNDS = 64
_MAX_NUMBER = (1 << 63) - 1  # what every database can hold
_HINT_BYTES = 20


class Refusal(Enum):
    """Why an envelope is refused; each is counted apart."""

    TOO_LARGE = "too large"
    TOPIC = "not a topic that devices publish on"
    RUBBISH = "not an envelope"
    SCHEMA = "a schema that this version does not read"
    DEVICE = "the envelope of another device"
    BOUNDS = "a field out of bounds"


class EnvelopeRefused(ValueError):
    """The bytes are not an envelope that may be stored; `refusal` says of which sort the fault is."""

    def __init__(self, refusal: Refusal, detail: str):
        super().__init__(f"{refusal.value}: {detail}")
        self.refusal = refusal


def encode(envelope: telemetry_pb2.Envelope) -> bytes:
    """The bytes to publish. Raises EnvelopeRefused for what the other end would refuse."""
    check(envelope)
    data = envelope.SerializeToString()
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeRefused(Refusal.TOO_LARGE, f"{len(data)} bytes; at most {MAX_ENVELOPE_BYTES}")
    return data


def parse(topic: str, data: bytes) -> telemetry_pb2.Envelope:
    """The envelope that arrived on `topic`. Raises EnvelopeRefused."""
    place = names.parse_up_topic(topic)
    if place is None:
        raise EnvelopeRefused(Refusal.TOPIC, repr(topic[:100]))
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeRefused(Refusal.TOO_LARGE, f"{len(data)} bytes; at most {MAX_ENVELOPE_BYTES}")
    try:
        envelope = telemetry_pb2.Envelope.FromString(data)
    except DecodeError as error:
        raise EnvelopeRefused(Refusal.RUBBISH, str(error)) from error
    device, leaf = place
    check(envelope)
    if envelope.device_id != device:
        raise EnvelopeRefused(Refusal.DEVICE, f"{envelope.device_id!r} on the topic of {device!r}")
    if leaf_of(envelope) != leaf:
        raise EnvelopeRefused(Refusal.BOUNDS, f"a {envelope.WhichOneof('body')} on the topic {leaf!r}")
    return envelope


def leaf_of(envelope: telemetry_pb2.Envelope) -> str:
    """The last part of the topic that an envelope with this body goes out on."""
    body = envelope.WhichOneof("body")
    if body is None:
        raise EnvelopeRefused(Refusal.BOUNDS, "there is no body")
    return LEAVES[body]


def check(envelope: telemetry_pb2.Envelope) -> None:
    """Raise EnvelopeRefused unless every field is within its bounds."""
    if envelope.schema != SCHEMA:
        raise EnvelopeRefused(Refusal.SCHEMA, f"schema {envelope.schema}, not {SCHEMA}")
    if not names.is_id(envelope.device_id):
        raise EnvelopeRefused(Refusal.BOUNDS, f"{envelope.device_id[:100]!r} is not a device id")
    for name, value in (("spool_epoch", envelope.spool_epoch), ("boot_id", envelope.boot_id)):
        if len(value) != EPOCH_BYTES:
            raise EnvelopeRefused(Refusal.BOUNDS, f"{name} has {len(value)} bytes, not {EPOCH_BYTES}")
    if len(envelope.artifact_digest) not in (0, 32):
        raise EnvelopeRefused(Refusal.BOUNDS, f"artifact_digest has {len(envelope.artifact_digest)} bytes, not 32")
    for name in ("session", "seq", "wall_ms", "mono_ms", "dropped_before", "generation"):
        if getattr(envelope, name) > _MAX_NUMBER:
            raise EnvelopeRefused(Refusal.BOUNDS, f"{name} is {getattr(envelope, name)}; at most {_MAX_NUMBER}")
    if envelope.dropped_before >= max(envelope.seq, 1):
        raise EnvelopeRefused(Refusal.BOUNDS, f"{envelope.dropped_before} dropped before number {envelope.seq}")
    _check_text("agent_version", envelope.agent_version, _MAX_NAME_BYTES)
    body = envelope.WhichOneof("body")
    if (envelope.seq == 0) != (body == "death"):
        raise EnvelopeRefused(
            Refusal.BOUNDS, f"a {body} with number {envelope.seq}; a death has 0, all others have one"
        )
    if body == "birth":
        for name in ("endpoint", "engine", "accelerator"):
            _check_text(name, getattr(envelope.birth, name), _MAX_NAME_BYTES)
        _check_status(envelope.birth.status)
    elif body == "update":
        _check_status(envelope.update)
    elif body == "event":
        _check_text("detail", envelope.event.detail, MAX_TEXT_BYTES)
    elif body == "telemetry":
        _check_telemetry(envelope.telemetry)
    leaf_of(envelope)


def shortened(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """`text` in at most `limit` bytes of UTF-8, cut between characters."""
    data = text.encode("utf-8", "replace")
    return text if len(data) <= limit else data[: limit - 3].decode("utf-8", "ignore") + "…"


def encode_hint(generation: int) -> bytes:
    """The payload of the hint topic: the newest generation, in decimal."""
    return str(generation).encode("ascii")


def parse_hint(data: bytes) -> int | None:
    """The generation in a hint, None when it is none. A hint is never authoritative: it causes a check-in."""
    return int(data) if len(data) <= _HINT_BYTES and data.isdigit() and int(data) <= _MAX_NUMBER else None


def _check_text(name: str, text: str, limit: int) -> None:
    if len(text.encode()) > limit:
        raise EnvelopeRefused(Refusal.BOUNDS, f"{name} has {len(text.encode())} bytes; at most {limit}")


def _check_status(status: agent_pb2.DeviceStatus) -> None:
    _check_text("reason", status.reason, MAX_TEXT_BYTES)
    for name in ("release", "active_release", "active_artifact", "previous_release", "active_model"):
        _check_text(name, getattr(status, name), _MAX_NAME_BYTES)
    for name in ("engine", "accelerator", "endpoint"):
        _check_text(name, getattr(status, name), _MAX_NAME_BYTES)
    if len(status.held_releases) > _MAX_HELD_RELEASES or len(status.unconfined) > _MAX_HELD_RELEASES:
        raise EnvelopeRefused(Refusal.BOUNDS, f"a list of more than {_MAX_HELD_RELEASES} in the status")
    for name in ("generation", "done_bytes", "total_bytes", "sequence", "started_unix_ms"):
        if getattr(status, name) > _MAX_NUMBER:
            raise EnvelopeRefused(Refusal.BOUNDS, f"{name} is {getattr(status, name)}; at most {_MAX_NUMBER}")


def _check_telemetry(telemetry: telemetry_pb2.Telemetry) -> None:
    _check_text("model", telemetry.model, _MAX_NAME_BYTES)
    numbers = [telemetry.decode_tokens_per_s, telemetry.cpu_percent, telemetry.temperature_c]
    for name, histogram in (
        ("request_s", telemetry.request_s),
        ("time_to_first_token_s", telemetry.time_to_first_token_s),
    ):
        bounds, counts = len(histogram.bounds), len(histogram.counts)
        if bounds > _MAX_HISTOGRAM_BOUNDS or counts != (bounds + 1 if bounds or counts else 0):
            raise EnvelopeRefused(Refusal.BOUNDS, f"{name}: {counts} counts for {bounds} bounds")
        numbers += [histogram.sum, *histogram.bounds]
    if not all(math.isfinite(number) for number in numbers):
        raise EnvelopeRefused(Refusal.BOUNDS, "a number is infinite or not one")
