from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import ssl
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select

from edgewright_agent.outbox import Outbox, OutboxSettings
from edgewright_agent.outbox.sending import Pace
from edgewright_contract import envelope, names
from edgewright_contract.envelope import Refusal
from edgewright_contract.mqtt_link import Incoming, tls_files
from edgewright_contract.v1 import telemetry_pb2
from edgewright_controller.broker import BrokerFiles
from edgewright_controller.ledger import tables, telemetry
from edgewright_controller.ledger.ledger import Ledger
from edgewright_controller.reports import Ingest, Report
from edgewright_controller.reports.connections import Connection, after
from edgewright_controller.reports.ears import Heard
from tests.agent.real_mosquitto import Listening
from tests.controller.broker_room import BrokerRoom, said, topic_of, until

QUICK = OutboxSettings(pace=Pace(backlog_per_s=500, again_after_s=0.5), first_pause_s=0.1, longest_pause_s=0.3)


class LedgerStore:
    """The real ledger; `broken` makes it fail, `held` makes it wait."""

    def __init__(self, ledger: Ledger):
        self.ledger, self.broken, self.held, self.batches = ledger, False, False, 0

    async def store(self, batch: Sequence[Report]) -> int:
        if self.held:
            await asyncio.Event().wait()
        if self.broken:
            raise OSError("no space left on device")
        self.batches += 1
        return await self.ledger.write(lambda connection: telemetry.store(connection, batch))

    def numbers(self) -> list[int]:
        columns = select(tables.telemetry.c.seq).order_by(tables.telemetry.c.seq)
        return self.ledger.read_now(lambda connection: list(connection.scalars(columns)))

    def total(self) -> int:
        return self.ledger.read_now(telemetry.total)

    def mark(self, device: str, epoch: bytes) -> int:
        return self.ledger.read_now(lambda connection: telemetry.stored_sequence(connection, device, epoch))


class Watcher:
    """Remembers who was seen and who went."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.went: list[str] = []
        self.order: list[str] = []

    def seen(self, device: str) -> None:
        self.heard.append(device)
        self.order.append("heard")

    def gone(self, device: str) -> None:
        self.went.append(device)
        self.order.append("went")


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
async def room(tmp_path: Path) -> AsyncIterator[BrokerRoom]:
    room = BrokerRoom(tmp_path / "room")
    await room.broker.start()
    yield room
    await room.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LedgerStore]:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    yield LedgerStore(ledger)
    ledger.close()


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


def new_ingest(room: BrokerRoom, store: LedgerStore, watcher: Watcher) -> Ingest:
    pair = room.service()
    return Ingest(room.broker.address, BrokerFiles(pair.ca, pair.certificate, pair.key), store, watcher)


@pytest.fixture
async def ingest(room: BrokerRoom, store: LedgerStore, watcher: Watcher) -> AsyncIterator[Ingest]:
    ingest = new_ingest(room, store, watcher)
    ingest.start()
    await until(lambda: ingest.connected, "the ingest to connect")
    yield ingest
    await ingest.stop()


async def client(room: BrokerRoom, device: str = "jetson-01", topics: tuple[str, ...] = ()) -> Listening:
    return await room.connected(room.client(room.device(device), device, topics))


def say(speaker: Listening, message: telemetry_pb2.Envelope, retain: bool = False) -> None:
    assert speaker.say(topic_of(message), envelope.encode(message), retain)


async def test_what_a_device_says_is_stored_and_shown(
    room: BrokerRoom, ingest: Ingest, store: LedgerStore, watcher: Watcher
) -> None:
    device, shown = await client(room), []

    async def follow() -> None:
        async for report in ingest.tail(["jetson-01"]):
            shown.append(report)

    following = asyncio.create_task(follow())
    for message in (said("jetson-01", 1, "birth"), said("jetson-01", 2, "telemetry"), said("jetson-01", 3)):
        say(device, message)
    await until(lambda: ingest.counts.stored == 3, "three reports")
    assert store.numbers() == [1, 2, 3]
    await until(lambda: len(shown) == 3, "the tail")
    assert [report[1].seq for report in shown] == [1, 2, 3]
    assert set(watcher.heard) == {"jetson-01"}
    assert ingest.is_up("jetson-01")
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following


async def test_what_may_not_be_stored_is_counted_by_its_fault_and_the_rest_goes_on(
    room: BrokerRoom, ingest: Ingest, store: LedgerStore
) -> None:
    device = await client(room)
    own = names.up_topic("jetson-01", "event")
    later = said("jetson-01", 5)
    later.schema = 2
    device.say(own, envelope.encode(said("mac-01", 4)))
    device.say(own, b"\xff\xff")
    device.say(own, later.SerializeToString())
    device.say(names.up_topic("jetson-01", "state"), envelope.encode(said("jetson-01", 4)))
    device.say(own, b"x" * (envelope.MAX_ENVELOPE_BYTES + 1))
    say(device, said("jetson-01", 1))
    await until(lambda: ingest.counts.received == 6, "all six")
    await until(lambda: ingest.counts.stored == 1, "the honest one")
    assert dict(ingest.counts.refused) == {
        Refusal.DEVICE: 1,
        Refusal.RUBBISH: 1,
        Refusal.SCHEMA: 1,
        Refusal.BOUNDS: 1,
        Refusal.TOO_LARGE: 1,
    }
    assert store.numbers() == [1]


@pytest.mark.attack("reports of a revoked device over a connection that the broker still holds")
async def test_what_a_shut_device_says_is_neither_stored_nor_shown_but_its_death_is_heard(
    room: BrokerRoom, store: LedgerStore, watcher: Watcher
) -> None:
    pair, shut = room.service(), set[str]()
    files = BrokerFiles(pair.ca, pair.certificate, pair.key)
    ingest = Ingest(room.broker.address, files, store, watcher, shut=lambda: frozenset(shut))
    ingest.start()
    await until(lambda: ingest.connected, "the ingest to connect")
    thief, honest, shown = await client(room), await client(room, "mac-01"), list[str]()

    async def follow() -> None:
        async for device, _, _ in ingest.tail():
            shown.append(device)

    following = asyncio.create_task(follow())
    say(thief, said("jetson-01", 1, "birth", session=1))
    await until(lambda: ingest.is_up("jetson-01"), "the birth")
    shut.add("jetson-01")
    say(thief, said("jetson-01", 2))
    say(thief, said("jetson-01", 3, "birth", session=2))
    say(thief, said("jetson-01", 0, "death", session=1))
    say(honest, said("mac-01", 1))
    await until(lambda: ingest.counts.stored == 2 and not ingest.is_up("jetson-01"), "the rest")
    await until(lambda: shown == ["jetson-01", "mac-01"], "the tail")
    assert (ingest.counts.shut, watcher.heard, watcher.went) == (2, ["jetson-01", "mac-01"], ["jetson-01"])
    shut.clear()
    say(thief, said("jetson-01", 2))
    await until(lambda: ingest.counts.stored == 3, "what it says again, once it was enrolled again")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await ingest.stop()


async def test_a_report_that_comes_twice_is_counted_once(room: BrokerRoom, ingest: Ingest, store: LedgerStore) -> None:
    device = await client(room)
    for seq in (1, 2, 2, 1, 3):
        say(device, said("jetson-01", seq))
    await until(lambda: ingest.counts.received == 5, "all five")
    # Counted after the commit, which the store shows a moment earlier.
    await until(lambda: store.total() == 3 and ingest.counts.stored >= 3, "three that are new")
    assert ingest.counts.stored == 3


async def test_many_reports_share_a_commit(room: BrokerRoom, ingest: Ingest, store: LedgerStore) -> None:
    device = await client(room)
    for start in range(0, 600, 100):
        for seq in range(start + 1, start + 101):
            say(device, said("jetson-01", seq))
        await until(lambda done=start + 100: device.confirmed.qsize() >= done, "the broker's word")  # type: ignore[misc]  # mypy infers no defaults of a lambda
    await until(lambda: ingest.counts.stored == 600, "all of them")
    assert store.batches < 200


async def test_what_was_not_stored_when_the_controller_ended_comes_again(
    room: BrokerRoom, store: LedgerStore, watcher: Watcher
) -> None:
    first = new_ingest(room, store, watcher)
    first.start()
    await until(lambda: first.connected, "the ingest to connect")
    device = await client(room)
    say(device, said("jetson-01", 1))
    await until(lambda: first.counts.stored == 1, "the first report")
    store.held = True
    for seq in (2, 3):
        say(device, said("jetson-01", seq))
    await until(lambda: first.counts.received == 3, "two more")
    assert first._task is not None
    first._task.cancel()  # as a crash between arrival and commit
    await first.stop()
    say(device, said("jetson-01", 4))
    store.held = False
    second = new_ingest(room, store, watcher)
    second.start()
    await until(lambda: store.numbers() == [1, 2, 3, 4], "what was not acknowledged, and what came meanwhile")
    assert second.counts.received == 3, "the first was acknowledged and does not come again"
    await second.stop()


async def test_a_store_that_fails_is_tried_again_and_nothing_is_lost(
    room: BrokerRoom, ingest: Ingest, store: LedgerStore
) -> None:
    device, store.broken = await client(room), True
    say(device, said("jetson-01", 1))
    await until(lambda: ingest.counts.received == 1, "the report")
    assert store.numbers() == []
    store.broken = False
    await until(lambda: store.numbers() == [1], "the second attempt")


async def test_a_late_death_of_an_older_connection_changes_nothing(
    room: BrokerRoom, ingest: Ingest, watcher: Watcher
) -> None:
    device = await client(room)
    say(device, said("jetson-01", 1, "birth", session=5), retain=True)
    await until(lambda: ingest.is_up("jetson-01"), "the birth")
    say(device, said("jetson-01", 0, "death", session=4), retain=True)
    await until(lambda: ingest.counts.deaths == 1, "the old death")
    assert ingest.is_up("jetson-01")
    assert watcher.went == []
    say(device, said("jetson-01", 0, "death", session=5), retain=True)
    await until(lambda: watcher.went == ["jetson-01"], "the death of the present connection")
    assert not ingest.is_up("jetson-01")


async def test_a_device_that_says_its_last_word_and_goodbye_is_gone(
    room: BrokerRoom, store: LedgerStore, watcher: Watcher
) -> None:
    """Both come in one batch, and the goodbye is the later of them."""
    ingest = new_ingest(room, store, watcher)
    words = (said("jetson-01", 1, "birth"), said("jetson-01", 0, "death"))
    batch = [
        Heard(Incoming(1, number, topic_of(one), envelope.encode(one), False), 0) for number, one in enumerate(words, 1)
    ]
    await ingest._take(batch)
    assert (watcher.order, ingest.is_up("jetson-01")) == (["heard", "went"], False)


async def test_a_controller_that_starts_learns_who_is_connected(
    room: BrokerRoom, store: LedgerStore, watcher: Watcher
) -> None:
    device, other = await client(room), await client(room, "mac-01")
    say(device, said("jetson-01", 1, "birth"), retain=True)
    say(other, said("mac-01", 0, "death"), retain=True)
    await until(lambda: device.confirmed.qsize() + other.confirmed.qsize() == 2, "the broker's word")
    ingest = new_ingest(room, store, watcher)
    ingest.start()
    await until(lambda: ingest.is_up("jetson-01") and watcher.went == ["mac-01"], "what the broker kept")
    assert watcher.heard == [], "what the broker kept does not prove that the device lives now"
    await ingest.stop()


async def test_a_hint_reaches_a_device_now_or_when_it_comes(room: BrokerRoom, ingest: Ingest) -> None:
    device = await client(room, "jetson-01", (names.hint_topic("jetson-01"),))
    ingest.hint("jetson-01", 3)
    ingest.hint("mac-01", 4)
    assert envelope.parse_hint((await asyncio.to_thread(device.heard.get, timeout=10)).payload) == 3
    late = await client(room, "mac-01", (names.hint_topic("mac-01"),))
    assert envelope.parse_hint((await asyncio.to_thread(late.heard.get, timeout=10)).payload) == 4
    await until(lambda: not ingest._hints, "the broker to confirm both")


async def test_a_hint_given_while_the_broker_is_away_goes_out_when_it_is_back(room: BrokerRoom, ingest: Ingest) -> None:
    device = await client(room, "jetson-01", (names.hint_topic("jetson-01"),))
    await room.broker.stop()
    await until(lambda: not ingest.connected, "the connection to end")
    ingest.hint("jetson-01", 8)
    ingest.hint("jetson-01", 9)
    await room.broker.start()
    assert envelope.parse_hint((await asyncio.to_thread(device.heard.get, timeout=20)).payload) == 9


async def test_kills_of_the_broker_lose_nothing_and_count_nothing_twice(
    room: BrokerRoom, ingest: Ingest, store: LedgerStore, tmp_path: Path, soak: int
) -> None:
    """A real outbox, a real broker, a real ledger. Kills strike the broker mid-stream; check-ins tell the mark."""
    leaf = room.device("jetson-01")
    identity = Identity("jetson-01", leaf.key, leaf.certificate, leaf.ca, room.broker.address)
    outbox = Outbox(tmp_path, identity, lambda _: None, settings=QUICK)
    outbox.start()
    await until(lambda: outbox.connected, "the outbox to connect")
    dice, spoken = random.Random(7), 0
    for _ in range(3 * soak):
        for _ in range(60):
            outbox.event(telemetry_pb2.Event.KIND_LINK_LOST, str(spoken))
            spoken += 1
            await asyncio.sleep(dice.random() / 200)  # so that kills strike at different points of the stream
            outbox.stored(store.mark("jetson-01", outbox.epoch), outbox.epoch)
        if room.broker.pid:
            os.kill(room.broker.pid, signal.SIGKILL)

    def all_stored() -> bool:
        outbox.stored(store.mark("jetson-01", outbox.epoch), outbox.epoch)
        return outbox.depth() == 0

    await until(lambda: outbox.depth() > 0 or all_stored(), "the spool")
    await until(all_stored, "everything to be stored", deadline_s=60)
    events = select(func.count()).select_from(tables.telemetry).where(tables.telemetry.c.kind == "event")
    assert await store.ledger.read(lambda connection: connection.scalar(events)) == spoken
    assert store.numbers() == list(range(1, len(store.numbers()) + 1))
    assert store.total() == len(store.numbers())
    await asyncio.to_thread(outbox.stop)


def test_connections_are_told_apart_by_epoch_and_number() -> None:
    up = after(None, said("jetson-01", 1, "birth", session=5))
    assert up == Connection(b"e" * 16, 5, up=True)
    assert after(up, said("jetson-01", 2, "birth", session=5)) is up
    assert after(up, said("jetson-01", 0, "death", session=4)) is up
    down = after(up, said("jetson-01", 0, "death", session=5))
    assert down == Connection(b"e" * 16, 5, up=False)
    assert after(down, said("jetson-01", 1, "birth", session=5)) is down, "a birth that comes again after the death"
    assert after(down, said("jetson-01", 3, "birth", session=6)) == Connection(b"e" * 16, 6, up=True)


def test_a_spool_made_anew_counts_its_connections_from_one_again() -> None:
    known = after(None, said("jetson-01", 1, "birth", session=900))
    assert after(known, said("jetson-01", 0, "death", session=1, epoch=b"f" * 16)) is known
    assert after(known, said("jetson-01", 1, "birth", session=1, epoch=b"f" * 16)) == Connection(b"f" * 16, 1, up=True)
