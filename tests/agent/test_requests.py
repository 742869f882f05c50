"""Requests of the controller: each done once, in order, and none of them in the way of the check-in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from edgewright_agent.database import StateDamaged
from edgewright_agent.requests import MAX_AT_ONCE, Handler, RequestFailed, Requests
from edgewright_contract.v1 import agent_pb2

KINDS = agent_pb2.DeviceRequest


def asked(id_: str, kind: KINDS.Kind = KINDS.KIND_PROBE_NOW, argument: str = "") -> agent_pb2.DeviceRequest:
    return KINDS(id=id_, kind=kind, argument=argument)


class Bench:
    """A probe that ends when `go_on` is set, and logs that fail as `faults` say."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.faults: Iterator[Exception] = iter(())
        self.go_on, self.late = asyncio.Event(), asyncio.Event()
        kinds: dict[int, Handler] = {KINDS.KIND_PROBE_NOW: self._probe, KINDS.KIND_SEND_LOGS: self._logs}
        self.requests = Requests(kinds, self.late.set)

    async def _probe(self, argument: str) -> str:
        await self.go_on.wait()
        self.done.append(argument)
        return argument

    async def _logs(self, argument: str) -> str:
        for fault in self.faults:
            raise fault
        return "lines"

    def results(self) -> dict[str, tuple[bool, str]]:
        return {result.id: (result.succeeded, result.detail) for result in self.requests.results()}


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_quick_requests_are_answered_with_the_next_check_in(bench: Bench) -> None:
    bench.go_on.set()
    assert await bench.requests.perform([asked("1", argument="a"), asked("2", argument="b")])
    assert (bench.done, bench.results()) == (["a", "b"], {"1": (True, "a"), "2": (True, "b")})


async def test_a_slow_request_does_not_hold_up_the_check_in_and_is_done_once(bench: Bench) -> None:
    began = time.monotonic()
    assert not await bench.requests.perform([asked("1", argument="a"), asked("2", argument="b")])
    assert not await bench.requests.perform([asked("1", argument="a"), asked("2", argument="b")])
    assert time.monotonic() - began < 5
    bench.go_on.set()
    await asyncio.wait_for(bench.late.wait(), 5)
    assert await bench.requests.perform([])
    assert bench.done == ["a", "b"]


async def test_requests_that_wait_are_bounded(bench: Bench) -> None:
    await bench.requests.perform([asked(str(number)) for number in range(MAX_AT_ONCE)])
    await bench.requests.perform([asked(f"again {number}") for number in range(MAX_AT_ONCE)])
    bench.go_on.set()
    await bench.requests.perform([])
    assert len(bench.done) == MAX_AT_ONCE


async def test_a_fault_is_a_result_and_a_disk_that_is_full_is_none(bench: Bench) -> None:
    bench.faults = iter([RequestFailed("no"), ZeroDivisionError("oops"), StateDamaged("disk full")])
    requests = [asked(id_, KINDS.KIND_SEND_LOGS) for id_ in ("refused", "fault", "disk")]
    await bench.requests.perform(requests)
    told = {"refused": (False, "no"), "fault": (False, "ZeroDivisionError('oops')")}
    assert bench.results() == told
    await bench.requests.perform(requests)  # the controller has no answer to the third, and asks again
    assert bench.results() == {**told, "disk": (True, "lines")}


async def test_stopping_gives_up_what_is_not_done(bench: Bench) -> None:
    await bench.requests.perform([asked("1"), asked("2")])
    await bench.requests.stop()
    assert (bench.done, bench.results()) == ([], {})
