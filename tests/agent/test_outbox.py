from __future__ import annotations

import queue
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgewright_agent.outbox import Outbox, OutboxSettings
from edgewright_agent.outbox.boot import Clocks, boot_id, read_clocks
from edgewright_agent.outbox.sending import Pace
from edgewright_contract import envelope, names
from edgewright_contract.mqtt_link import tls_files
from edgewright_contract.v1 import agent_pb2, telemetry_pb2
from tests.agent.real_mosquitto import Listening, RealMosquitto, until
from tests.agent.throwaway_ca import ThrowawayCa

QUICK = OutboxSettings(pace=Pace(backlog_per_s=200, again_after_s=0.5), first_pause_s=0.1, longest_pause_s=0.3)
ALL = tuple(f"{names.TOPIC_ROOT}/+/up/{leaf}" for leaf in names.UP_LEAVES)


@dataclass(frozen=True)
class Identity:
    device: str
    key_path: Path
    certificate_path: Path
    ca_path: Path
    mqtt_address: str

    def tls_context(self) -> ssl.SSLContext:
        return tls_files(self.certificate_path, self.key_path, self.ca_path)()


@pytest.fixture
def ca(tmp_path: Path) -> ThrowawayCa:
    return ThrowawayCa(tmp_path / "ca")


@pytest.fixture
def broker(tmp_path: Path, ca: ThrowawayCa) -> Iterator[RealMosquitto]:
    broker = RealMosquitto(tmp_path / "broker", ca)
    broker.start()
    yield broker
    broker.kill()


@pytest.fixture
def identity(ca: ThrowawayCa, broker: RealMosquitto) -> Identity:
    leaf = ca.device("jetson-01")
    return Identity("jetson-01", leaf.key, leaf.certificate, leaf.ca, broker.address)


@pytest.fixture
def hints() -> list[int]:
    return []


@pytest.fixture
def make(tmp_path: Path, identity: Identity, hints: list[int]) -> Iterator[Callable[[], Outbox]]:
    made: list[Outbox] = []

    def outbox() -> Outbox:
        made.append(Outbox(tmp_path, identity, hints.append, settings=QUICK))
        made[-1].start()
        return made[-1]

    yield outbox
    for each in made:
        each.stop()


@pytest.fixture
def controller(ca: ThrowawayCa, broker: RealMosquitto) -> Iterator[Listening]:
    listening = Listening(broker.address, ca.device(names.CONTROLLER_CN), names.CONTROLLER_CN, ALL)
    until(lambda: bool(listening.connections), "the controller to connect")
    yield listening
    listening.link.stop()


def next_said(listening: Listening, deadline_s: float = 60.0) -> tuple[telemetry_pb2.Envelope, bool]:
    message = listening.heard.get(timeout=deadline_s)
    return envelope.parse(message.topic, message.payload), message.retained


def until_said(listening: Listening, body: str) -> telemetry_pb2.Envelope:
    while True:
        said, _ = next_said(listening)
        if said.WhichOneof("body") == body:
            return said


def collect(listening: Listening, bodies: str, count: int, deadline_s: float = 60.0) -> dict[int, int]:
    """How often each number of this kind was heard, once `count` different ones were."""
    times: dict[int, int] = {}
    deadline = time.monotonic() + deadline_s
    while len(times) < count:
        said, _ = next_said(listening, max(0.1, deadline - time.monotonic()))
        if said.WhichOneof("body") == bodies:
            times[said.seq] = times.get(said.seq, 0) + 1
    return times


def test_a_birth_begins_a_connection_and_a_graceful_death_ends_it(
    make: Callable[[], Outbox], controller: Listening
) -> None:
    outbox = make()
    birth = until_said(controller, "birth")
    assert (birth.device_id, birth.session) == ("jetson-01", 1)
    assert birth.boot_id == boot_id()
    outbox.stop()
    death = until_said(controller, "death")
    assert death.death.graceful
    assert (death.session, death.seq) == (1, 0)


def test_what_serves_here_is_said_again_with_each_connection(
    make: Callable[[], Outbox], controller: Listening, broker: RealMosquitto
) -> None:
    outbox = make()
    outbox.birth("http://127.0.0.1:8080/v1", "xllamacpp 1", "cpu", agent_pb2.DeviceStatus(active_model="smollm2"))
    while (birth := until_said(controller, "birth")).birth.engine != "xllamacpp 1":
        pass
    assert birth.birth.status.active_model == "smollm2"
    broker.kill()
    broker.start()
    while (birth := until_said(controller, "birth")).session == 1:
        pass
    assert birth.birth.engine == "xllamacpp 1"


def test_a_renewed_certificate_is_shown_soon_and_nothing_is_lost(
    make: Callable[[], Outbox], controller: Listening, ca: ThrowawayCa, identity: Identity
) -> None:
    outbox = make()
    until_said(controller, "birth")
    outbox.event(telemetry_pb2.Event.KIND_LINK_BACK, "before")
    identity.certificate_path.write_bytes(b"")  # so that it tells whether the files are read again
    outbox.reconnect()
    outbox.event(telemetry_pb2.Event.KIND_LINK_BACK, "after")
    until(lambda: not outbox.connected, "the old connection to end")
    ca.device("jetson-01")  # a new pair, at the same place
    outbox.reconnect()
    bodies, details = [], set[str]()
    while details != {"before", "after"}:
        said, _ = next_said(controller)
        bodies.append(said.WhichOneof("body"))
        details |= {said.event.detail} - {""}
    assert outbox.connected
    assert "death" not in bodies  # it was no loss, and nobody is told of one


def test_telemetry_events_and_updates_arrive_in_their_topics(make: Callable[[], Outbox], controller: Listening) -> None:
    outbox = make()
    until_said(controller, "birth")
    outbox.telemetry(telemetry_pb2.Telemetry(requests=3))
    assert until_said(controller, "telemetry").telemetry.requests == 3
    outbox.event(telemetry_pb2.Event.KIND_DISK_FULL, "é" * 5000)
    detail = until_said(controller, "event").event.detail
    assert len(detail.encode()) <= envelope.MAX_TEXT_BYTES
    status = agent_pb2.DeviceStatus(generation=7, active_artifact="ab" * 32, reason="x" * 5000)
    outbox.update(status)
    said = until_said(controller, "update")
    assert said.generation == 7
    assert said.artifact_digest == bytes.fromhex("ab" * 32)


def test_a_hint_is_heard_at_once_and_by_a_device_that_comes_later(
    make: Callable[[], Outbox], controller: Listening, hints: list[int]
) -> None:
    controller.say(names.hint_topic("jetson-01"), envelope.encode_hint(4), retain=True)
    controller.say(names.hint_topic("jetson-02"), envelope.encode_hint(9), retain=True)
    outbox = make()
    until(lambda: hints == [4], "the retained hint")
    controller.say(names.hint_topic("jetson-01"), b"rubbish", retain=True)
    controller.say(names.hint_topic("jetson-01"), envelope.encode_hint(5), retain=True)
    until(lambda: hints == [4, 5], "the new hint, and nothing else")
    assert outbox.connected


def test_what_is_said_while_the_broker_is_away_arrives_when_it_is_back(
    make: Callable[[], Outbox], controller: Listening, broker: RealMosquitto
) -> None:
    outbox = make()
    outbox.event(telemetry_pb2.Event.KIND_ENGINE_STARTED, "before")
    assert until_said(controller, "event").event.detail == "before"
    broker.stop()
    began = time.monotonic()
    for number in range(40):
        outbox.event(telemetry_pb2.Event.KIND_LINK_LOST, str(number))
    assert time.monotonic() - began < 10, "saying something never waits for the broker"
    until(lambda: outbox.depth() >= 42, "everything in the spool")
    broker.start()
    # A plain client has no dedupe: the first event, unsettled, may come twice.
    assert len(collect(controller, "event", 41)) >= 41


def test_what_the_controller_stored_leaves_the_spool_and_what_the_broker_took_does_not(
    make: Callable[[], Outbox], controller: Listening
) -> None:
    outbox = make()
    for _ in range(5):
        outbox.event(telemetry_pb2.Event.KIND_LINK_BACK, "")
    collect(controller, "event", 5)
    until(lambda: outbox.depth() == 6, "a birth and five events")
    outbox.stored(6, epoch=b"x" * 16)
    outbox.stored(3, epoch=outbox.epoch)
    until(lambda: outbox.depth() == 3, "what is stored to leave")
    outbox.stored(6)
    until(lambda: outbox.depth() == 0, "the rest to leave")


def test_nothing_said_is_lost_when_the_broker_is_killed_mid_stream(
    make: Callable[[], Outbox], controller: Listening, broker: RealMosquitto
) -> None:
    outbox = make()
    heard: set[int] = set()

    def check_in() -> bool:
        """As the controller does: say up to which number nothing is missing."""
        while not controller.heard.empty():
            heard.add(next_said(controller)[0].seq)
        mark = 0
        while mark + 1 in heard:
            mark += 1
        outbox.stored(mark)
        return mark >= 300 and outbox.depth() == 0

    for number in range(300):
        outbox.event(telemetry_pb2.Event.KIND_LINK_LOST, str(number))
        if number in (60, 180):
            enough = number - 30
            until(lambda enough=enough: not check_in() and len(heard) > enough, "some to arrive")  # type: ignore[misc]  # mypy infers no lambda defaults
            broker.kill()
            broker.start()
    until(check_in, "everything to be stored, and the spool to be empty", deadline_s=40)


def test_a_restart_sends_what_was_never_sent_and_with_the_same_numbers(
    make: Callable[[], Outbox], controller: Listening, broker: RealMosquitto
) -> None:
    broker.stop()
    outbox = make()
    for number in range(10):
        outbox.event(telemetry_pb2.Event.KIND_LINK_LOST, str(number))
    outbox.stop()
    broker.start()
    again = make()
    numbers = collect(controller, "event", 10)
    assert list(numbers.values()) == [1] * 10
    assert again.epoch == outbox.epoch


def test_the_newest_status_is_what_the_broker_keeps(
    make: Callable[[], Outbox], controller: Listening, broker: RealMosquitto, ca: ThrowawayCa
) -> None:
    outbox = make()
    outbox.update(agent_pb2.DeviceStatus(reason="first"))
    assert until_said(controller, "update").update.reason == "first"
    broker.stop()
    for reason in ("second", "third"):
        outbox.update(agent_pb2.DeviceStatus(reason=reason))
    broker.start()
    collect(controller, "update", 3)
    controller.link.stop()
    # A client of its own: the controller's would first be told again what it had not acknowledged.
    topics = (names.up_topic("jetson-01", "update"),)
    late = Listening(broker.address, ca.device("service.late"), "service.late", topics)
    try:
        said, retained = next_said(late)
    finally:
        late.link.stop()
    assert retained
    assert said.update.reason == "third"


def test_the_will_that_the_broker_holds_names_the_connection_and_waits_for_a_quick_return(
    make: Callable[[], Outbox], controller: Listening
) -> None:
    outbox = make()
    until_said(controller, "birth")
    will = outbox._delivery.will()
    assert will is not None
    assert (will.delay_s, will.retain, will.topic) == (15, True, names.up_topic("jetson-01", "state"))
    said = envelope.parse(will.topic, will.payload)
    assert (said.death.graceful, said.session, said.seq) == (False, 2, 0)


def test_without_a_broker_everything_waits_in_the_spool(tmp_path: Path, ca: ThrowawayCa) -> None:
    leaf = ca.device("jetson-01")
    outbox = Outbox(tmp_path, Identity("jetson-01", leaf.key, leaf.certificate, leaf.ca, ""), lambda _: None)
    outbox.start()
    outbox.telemetry(telemetry_pb2.Telemetry())
    until(lambda: outbox.epoch != b"" and outbox.depth() == 1, "the spool")
    assert not outbox.connected
    outbox.stop()


def test_a_disk_that_cannot_be_written_stops_nobody(tmp_path: Path, identity: Identity) -> None:
    outbox = Outbox(tmp_path / "missing", identity, lambda _: None)
    outbox.start()
    began = time.monotonic()
    for _ in range(5_000):
        outbox.telemetry(telemetry_pb2.Telemetry())
    assert time.monotonic() - began < 5
    until(lambda: outbox.depth() == 1_000, "the bound on what waits in memory")
    assert outbox.epoch == b""
    outbox.stop()


def test_an_idle_outbox_costs_next_to_nothing(make: Callable[[], Outbox], controller: Listening) -> None:
    outbox = make()
    until(lambda: outbox.connected, "the connection")
    until_said(controller, "birth")
    used = []
    for _ in range(3):  # other threads of this process may be ending meanwhile, so the quietest time counts
        before = time.process_time()
        with pytest.raises(queue.Empty):
            controller.heard.get(timeout=3)
        used.append(time.process_time() - before)
    assert min(used) < 0.01 * 3, "under one per cent of a core, with the listening client"


def test_the_clocks_are_read_without_privileges() -> None:
    first, second = read_clocks(), read_clocks()
    assert isinstance(first, Clocks)
    assert second.mono_ms >= first.mono_ms
    assert len(boot_id()) == 16
    assert boot_id() == boot_id()
