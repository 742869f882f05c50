from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from edgewright_agent.check_in import CheckIns, Sources
from edgewright_agent.database import StateDamaged
from edgewright_agent.inventory import digest_of
from edgewright_agent.lifecycle_state import Act, Fault, HoldReleased, Lifecycle, Outcome
from edgewright_agent.link import LinkDown, Refused
from edgewright_agent.requests import RequestFailed, Requests
from edgewright_agent.state_store import StateStore
from edgewright_agent.trust import Assignment, MetadataStale, Reason, Repository, TrustRefused
from edgewright_agent.trust_store import HeldVersion
from edgewright_agent.update import Updates
from edgewright_contract.release import Release
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2, telemetry_pb2

KINDS = agent_pb2.DeviceRequest


class ScriptedLink:
    """Gives these answers, one a check-in, the last one for ever."""

    def __init__(self) -> None:
        self.asked: list[agent_pb2.CheckInRequest] = []
        self.calls = threading.Semaphore(0)
        self.answers: list[agent_pb2.CheckInResponse | Exception] = [agent_pb2.CheckInResponse()]

    def check_in(self, request: agent_pb2.CheckInRequest) -> agent_pb2.CheckInResponse:
        self.asked.append(request)
        self.calls.release()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class ScriptedTrust:
    """Believes, or refuses, as it is told."""

    def __init__(self) -> None:
        self.says: Assignment | Exception = Assignment(0)
        self.seen: list[Mapping[tuple[Repository, str], bytes]] = []

    def held(self) -> Sequence[HeldVersion]:
        return [HeldVersion(Repository.DIRECTOR, "root", 3)]

    def apply(self, files: Mapping[tuple[Repository, str], bytes], holds: Collection[str], now: datetime) -> Assignment:
        self.seen.append(files)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says


class NotedReports:
    """What the outbox was told."""

    epoch = b"e" * 16
    settled = 0

    def __init__(self) -> None:
        self.watermarks: list[tuple[int, bytes | None]] = []
        self.events: list[telemetry_pb2.Event.Kind] = []

    def stored(self, sequence: int, epoch: bytes | None = None) -> None:
        self.watermarks.append((sequence, epoch))

    def event(self, kind: telemetry_pb2.Event.Kind, detail: str) -> None:
        self.events.append(kind)


class NoActs:
    async def perform(self, act: Act, state: Lifecycle) -> None:
        """Every act succeeds at once."""


class Bench:
    def __init__(self, folder: Path) -> None:
        self.link, self.trust, self.reports = ScriptedLink(), ScriptedTrust(), NotedReports()
        self.updates = Updates(StateStore(folder / "agent.sqlite"), NoActs(), lambda state: None)
        self.performed: list[str] = []
        self.inventory = agent_pb2.Inventory(os="Linux")

        async def logs(argument: str) -> str:
            self.performed.append(argument)
            if argument == "none":
                raise RequestFailed("no engine runs")
            return "x" * 100_000

        async def release(argument: str) -> str:
            await self.updates.feed(HoldReleased(argument))
            return "released"

        self.check_ins = CheckIns(
            self.link,
            self.trust,
            self.updates,
            reports=self.reports,
            requests=Requests({KINDS.KIND_SEND_LOGS: logs, KINDS.KIND_RELEASE_HOLD: release}, lambda: None),
            sources=Sources(agent_pb2.DeviceStatus, lambda: self.inventory),
            every_s=60.0,
        )


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


async def test_one_round_trip_says_what_is_held_and_believes_what_is_signed(bench: Bench) -> None:
    file = agent_pb2.MetadataFile(repository=agent_pb2.REPOSITORY_DIRECTOR, name="timestamp.json", content=b"{}")
    unknown = agent_pb2.MetadataFile(name="timestamp.json", content=b"{}")
    bench.link.answers = [agent_pb2.CheckInResponse(metadata=[file, unknown], stored_sequence=7, next_check_in_s=30)]
    bench.trust.says = Assignment(4)
    wait_s = await bench.check_ins.once()
    asked = bench.link.asked[0]
    assert (asked.held[0].repository, asked.held[0].role, asked.held[0].version) == (2, "root", 3)
    assert (asked.inventory.os, asked.inventory_digest) == ("Linux", digest_of(bench.inventory))
    assert bench.trust.seen == [{(Repository.DIRECTOR, "timestamp.json"): b"{}"}]
    assert bench.reports.watermarks == [(7, b"e" * 16)]
    assert (bench.updates.state.generation, bench.updates.state.outcome) == (4, Outcome.SUCCEEDED)
    assert 24 <= wait_s <= 30


async def test_the_inventory_is_sent_when_it_is_wanted_and_then_no_more(bench: Bench) -> None:
    bench.link.answers = [agent_pb2.CheckInResponse(inventory_wanted=True), agent_pb2.CheckInResponse()]
    assert await bench.check_ins.once() == 0.0
    await bench.check_ins.once()
    await bench.check_ins.once()
    assert [asked.HasField("inventory") for asked in bench.link.asked] == [True, True, False]


async def test_a_dead_line_is_told_once_and_asked_again_with_growing_pauses(bench: Bench) -> None:
    await bench.check_ins.once()
    bench.link.answers = [LinkDown("away")]
    pauses = [await bench.check_ins.once() for _ in range(12)]
    assert max(pauses[:1]) <= 1.0
    assert 60.0 <= pauses[-1] <= 120.0
    assert not bench.check_ins.connected
    bench.link.answers = [agent_pb2.CheckInResponse()]
    await bench.check_ins.once()
    assert bench.reports.events == [telemetry_pb2.Event.KIND_LINK_LOST, telemetry_pb2.Event.KIND_LINK_BACK]


async def test_whoever_is_woken_while_nobody_answers_does_not_wait_the_longer_for_it(bench: Bench) -> None:
    bench.link.answers = [LinkDown("away")]
    for _ in range(20):
        assert await bench.check_ins.once(called=True) <= 1.0
    assert 1.0 <= await bench.check_ins.once() <= 2.0
    assert 1.0 <= await bench.check_ins.once(called=True) <= 2.0
    assert 2.0 <= await bench.check_ins.once() <= 4.0


async def test_a_refusal_is_not_repeated_every_second(bench: Bench) -> None:
    bench.link.answers = [Refused("unknown device")]
    assert await bench.check_ins.once() >= 60.0


@pytest.mark.parametrize(
    ("refusal", "fault"),
    [
        (TrustRefused(Reason.OTHER_DEVICE, "for mac-01"), Fault.METADATA_REFUSED),
        (MetadataStale("expired yesterday"), Fault.METADATA_STALE),
    ],
)
async def test_metadata_that_is_not_believed_shows_in_the_status_and_changes_nothing(
    bench: Bench, refusal: Exception, fault: Fault
) -> None:
    bench.trust.says = Assignment(4)
    await bench.check_ins.once()
    bench.trust.says = refusal
    await bench.check_ins.once()
    state = bench.updates.state
    assert (state.generation, state.outcome, state.fault, state.reason) == (4, Outcome.SUCCEEDED, fault, str(refusal))
    bench.trust.says = Assignment(4)
    await bench.check_ins.once()
    assert bench.updates.state.fault is Fault.NONE


async def test_a_damaged_state_does_not_end_the_loop(bench: Bench) -> None:
    bench.trust.says = StateDamaged("agent.sqlite: disk I/O error")
    assert 0 < await bench.check_ins.once() <= 60.0
    bench.trust.says = Assignment(1)
    await bench.check_ins.once()
    assert bench.updates.state.generation == 1


async def test_a_request_is_performed_once_and_answered_until_the_controller_has_it(bench: Bench) -> None:
    asked = [
        KINDS(id="1", kind=KINDS.KIND_SEND_LOGS),
        KINDS(id="2", kind=KINDS.KIND_SEND_LOGS, argument="none"),
        KINDS(id="3", kind=KINDS.KIND_PAUSE_DOWNLOADS),
    ]
    repeated = agent_pb2.CheckInResponse(requests=asked)
    bench.link.answers = [repeated, LinkDown("away"), repeated, agent_pb2.CheckInResponse()]
    for _ in range(5):
        await bench.check_ins.once()
    assert bench.performed == ["", "none"]
    sent = [[(one.id, one.succeeded) for one in request.results] for request in bench.link.asked]
    told = [("1", True), ("2", False), ("3", False)]
    assert sent == [[], told, told, told, []]
    assert len(bench.link.asked[1].results[0].detail.encode()) == 64 << 10


async def test_a_hold_that_is_released_with_a_new_goal_does_not_stop_that_goal(tmp_path: Path) -> None:
    release = Release("smollm2", "jetson", "gguf", "a" * 64, "cpu", 1)
    target = ImageTarget("model", "smollm2", "gguf-cpu", "gguf", "a" * 64, 1, "b" * 64, 1)
    store = StateStore(tmp_path / "agent.sqlite")
    store.save(replace(store.load(), held=(release.digest,)))
    store.close()
    bench = Bench(tmp_path)
    bench.trust.says = Assignment(2, release, target)
    await bench.check_ins.once()
    assert bench.updates.state.outcome is Outcome.HELD
    assert "`edgewright apply --again`" in bench.updates.state.reason
    lifted = KINDS(id="1", kind=KINDS.KIND_RELEASE_HOLD, argument=release.digest)
    bench.link.answers = [agent_pb2.CheckInResponse(requests=[lifted])]
    bench.trust.says = Assignment(3, release, target)
    await bench.check_ins.once()
    assert bench.updates.state.generation == 3
    assert bench.updates.state.outcome in (Outcome.IN_PROGRESS, Outcome.SUCCEEDED)


async def test_a_hint_ends_the_wait(bench: Bench) -> None:
    loop = asyncio.ensure_future(bench.check_ins.run())
    try:
        assert await asyncio.to_thread(bench.link.calls.acquire, timeout=5)
        await asyncio.to_thread(bench.check_ins.wake)
        assert await asyncio.to_thread(bench.link.calls.acquire, timeout=5)
    finally:
        loop.cancel()


async def test_a_fault_of_ours_does_not_end_the_loop(bench: Bench) -> None:
    bench.link.answers = [ZeroDivisionError("oops"), agent_pb2.CheckInResponse()]
    loop = asyncio.ensure_future(bench.check_ins.run())
    try:
        for _ in range(2):
            assert await asyncio.to_thread(bench.link.calls.acquire, timeout=10)
    finally:
        loop.cancel()
