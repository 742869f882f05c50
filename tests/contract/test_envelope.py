from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_contract import envelope, names
from edgewright_contract.envelope import EnvelopeRefused, Refusal
from edgewright_contract.v1 import agent_pb2, telemetry_pb2

TOPIC = names.up_topic("jetson-01", "telemetry")


def honest() -> telemetry_pb2.Envelope:
    return telemetry_pb2.Envelope(
        schema=1,
        device_id="jetson-01",
        spool_epoch=b"e" * 16,
        boot_id=b"b" * 16,
        session=3,
        seq=7,
        wall_ms=1_790_000_000_000,
        telemetry=telemetry_pb2.Telemetry(
            requests=5, request_s=telemetry_pb2.Histogram(bounds=[0.1, 1.0], counts=[1, 3, 1], sum=2.5)
        ),
    )


def refusal_of(topic: str, data: bytes) -> Refusal:
    with pytest.raises(EnvelopeRefused) as caught:
        envelope.parse(topic, data)
    return caught.value.refusal


def test_an_honest_envelope_survives_the_round_trip() -> None:
    assert envelope.parse(TOPIC, envelope.encode(honest())) == honest()


def test_the_envelope_of_another_device_is_refused() -> None:
    data = envelope.encode(honest())
    assert envelope.parse(TOPIC, data).device_id == "jetson-01"
    assert refusal_of(names.up_topic("jetson-02", "telemetry"), data) is Refusal.DEVICE


@pytest.mark.parametrize(
    "topic", ["edgewright/v1/jetson-01/up/other", "edgewright/v2/jetson-01/up/state", "x", "edgewright/v1/A/up/state"]
)
def test_other_topics_are_refused(topic: str) -> None:
    assert refusal_of(topic, envelope.encode(honest())) is Refusal.TOPIC


def test_a_body_on_the_wrong_topic_is_refused() -> None:
    assert refusal_of(names.up_topic("jetson-01", "event"), envelope.encode(honest())) is Refusal.BOUNDS


def test_too_many_bytes_are_refused_before_they_are_parsed() -> None:
    assert refusal_of(TOPIC, b"\xff" * (envelope.MAX_ENVELOPE_BYTES + 1)) is Refusal.TOO_LARGE


def test_rubbish_and_an_empty_message_are_refused() -> None:
    assert refusal_of(TOPIC, b"\xff\xff\xff") is Refusal.RUBBISH
    assert refusal_of(TOPIC, b"") is Refusal.SCHEMA


Change = Callable[[telemetry_pb2.Envelope], None]


def _no_body(message: telemetry_pb2.Envelope) -> None:
    message.ClearField("telemetry")


def _death_with_number(message: telemetry_pb2.Envelope) -> None:
    message.death.graceful = True


def _histogram(message: telemetry_pb2.Envelope) -> None:
    message.telemetry.request_s.counts.append(1)


def _nan(message: telemetry_pb2.Envelope) -> None:
    message.telemetry.cpu_percent = float("nan")


def _long_detail(message: telemetry_pb2.Envelope) -> None:
    message.event.detail = "é" * 1001


def _long_reason(message: telemetry_pb2.Envelope) -> None:
    message.update.reason = "x" * 2001


def _many_held(message: telemetry_pb2.Envelope) -> None:
    message.update.held_releases.extend(["r"] * 65)


def _field(name: str, value: object) -> Change:
    return lambda message: setattr(message, name, value)


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (_field("schema", 2), Refusal.SCHEMA),
        (_field("device_id", "Jetson"), Refusal.BOUNDS),
        (_field("spool_epoch", b"short"), Refusal.BOUNDS),
        (_field("boot_id", b""), Refusal.BOUNDS),
        (_field("artifact_digest", b"x" * 31), Refusal.BOUNDS),
        (_field("seq", 0), Refusal.BOUNDS),
        (_field("seq", 1 << 63), Refusal.BOUNDS),
        (_field("session", (1 << 64) - 1), Refusal.BOUNDS),
        (_field("dropped_before", 7), Refusal.BOUNDS),
        (_field("agent_version", "1" * 257), Refusal.BOUNDS),
        (_no_body, Refusal.BOUNDS),
        (_death_with_number, Refusal.BOUNDS),
        (_histogram, Refusal.BOUNDS),
        (_nan, Refusal.BOUNDS),
        (_long_detail, Refusal.BOUNDS),
        (_long_reason, Refusal.BOUNDS),
        (_many_held, Refusal.BOUNDS),
    ],
)
def test_a_field_out_of_bounds_is_refused_on_both_ends(change: Change, refusal: Refusal) -> None:
    message = honest()
    envelope.check(message)
    change(message)
    with pytest.raises(EnvelopeRefused) as caught:
        envelope.encode(message)
    assert caught.value.refusal is refusal


@given(st.binary(max_size=300))
def test_bytes_of_a_stranger_are_parsed_or_refused(data: bytes) -> None:
    try:
        message = envelope.parse(TOPIC, data)
    except EnvelopeRefused:
        return
    assert message.device_id == "jetson-01"


@given(st.text(max_size=50), st.integers(min_value=4, max_value=60))
def test_a_shortened_text_fits_and_is_text(text: str, limit: int) -> None:
    short = envelope.shortened(text, limit)
    assert len(short.encode()) <= limit
    assert short == text or short.endswith("…")


def test_a_hint_survives_the_round_trip_and_rubbish_is_none() -> None:
    assert envelope.parse_hint(envelope.encode_hint(42)) == 42
    for rubbish in (b"", b"-1", b"1e3", b"x", b"9" * 30, "٣".encode()):
        assert envelope.parse_hint(rubbish) is None


def test_every_status_that_the_wire_can_say_is_checked() -> None:
    message = honest()
    message.birth.status.CopyFrom(agent_pb2.DeviceStatus(reason="x" * 2001))
    with pytest.raises(EnvelopeRefused):
        envelope.check(message)
