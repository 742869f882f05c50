"""The acts of serving, and keeping the active engine alive, with real children."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest

from edgewright_agent.engines.process import EngineFailed, EngineProcess
from edgewright_agent.engines.supervision import (
    AcceleratorWrong,
    Backoff,
    EngineEvent,
    EventKind,
    ProbeFailed,
    Serving,
)
from edgewright_agent.gateway.routes import EngineDown, NoRoute, Routes
from edgewright_contract.release import Probe
from tests.agent import echo

QUICK = Backoff(first_s=0.05, longest_s=0.2, steady_s=60)


class Device:
    """Serving with the echo engine, and what it reported."""

    def __init__(self, folder: Path) -> None:
        self.events: list[EngineEvent] = []
        self._happened = asyncio.Event()
        self.serving = Serving(echo.ALL, folder / "engines", Routes(), self._report, backoff=QUICK)

    def kinds(self) -> list[EventKind]:
        return [event.kind for event in self.events]

    def _report(self, event: EngineEvent) -> None:
        self.events.append(event)
        self._happened.set()

    async def until(self, kind: EventKind, count: int = 1) -> None:
        async def look() -> None:
            while self.kinds().count(kind) < count:
                self._happened.clear()
                await self._happened.wait()

        await asyncio.wait_for(look(), 30)


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def ask(upstream: object, text: str) -> str:
    assert isinstance(upstream, EngineProcess)
    async with upstream.session.post(f"{upstream.openai_url}/chat/completions", json=echo.question(text)) as answer:
        return str((await answer.json())["choices"][0]["message"]["content"])


async def answer_of(routes: Routes, text: str = "hello") -> str:
    async with routes.admit("echo", 20) as upstream:
        return await ask(upstream, text)


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    made = Device(tmp_path)
    yield made
    await made.serving.stop(0)


async def test_a_new_version_takes_over_and_the_old_one_ends(device: Device, tmp_path: Path) -> None:
    serving = device.serving
    old = await serving.start_beside(echo.spec(tmp_path / "1", prefix="v1 "))
    assert await serving.switch(old) is None
    assert await answer_of(serving.routes) == "v1 hello"
    new = await serving.start_beside(echo.spec(tmp_path / "2", prefix="v2 "))
    assert await answer_of(serving.routes) == "v1 hello"  # not before the switch
    assert await serving.switch(new) is old
    assert await answer_of(serving.routes) == "v2 hello"
    assert await serving.retire(old, 5)
    assert not old.running
    assert serving.active is new
    assert device.kinds() == [EventKind.STARTED, EventKind.STARTED]


async def test_the_old_engine_finishes_what_it_has_in_hand(device: Device, tmp_path: Path) -> None:
    serving = device.serving
    old = await serving.start_beside(echo.spec(tmp_path / "1", token_s=0.2, prefix="v1 "))
    await serving.switch(old)
    new = await serving.start_beside(echo.spec(tmp_path / "2"))
    in_hand = asyncio.ensure_future(answer_of(serving.routes, "a b c d e"))
    await until(lambda: bool(serving.routes.active_requests))
    await serving.switch(new)
    assert await serving.retire(old, 60)
    assert await in_hand == "v1 a b c d e"


async def test_a_request_that_never_ends_does_not_hold_up_the_old_engine_for_ever(
    device: Device, tmp_path: Path
) -> None:
    serving = device.serving
    old = await serving.start_beside(echo.spec(tmp_path / "1", generate="hang"))
    await serving.switch(old)
    new = await serving.start_beside(echo.spec(tmp_path / "2"))
    in_hand = asyncio.ensure_future(answer_of(serving.routes))
    await until(lambda: bool(serving.routes.active_requests))
    await serving.switch(new)
    assert not await serving.retire(old, 0.2)
    assert not old.running
    with pytest.raises(aiohttp.ClientError):
        await in_hand


async def test_a_killed_engine_comes_back_and_requests_wait_for_it(device: Device, tmp_path: Path) -> None:
    serving = device.serving
    engine = await serving.start_beside(echo.spec(tmp_path / "1"))
    await serving.switch(engine)
    os.kill(engine.pid, signal.SIGKILL)
    await device.until(EventKind.EXITED)
    assert not serving.routes.health().ok
    assert "SIGKILL" in serving.routes.health().reason
    assert await answer_of(serving.routes) == "hello"
    assert serving.routes.health().ok
    assert device.kinds() == [EventKind.STARTED, EventKind.EXITED, EventKind.RESTARTED]
    assert serving.restarts == 1


async def test_an_engine_is_missed_although_a_process_that_it_left_holds_its_pipes_open(
    device: Device, tmp_path: Path
) -> None:
    serving, left = device.serving, tmp_path / "left"
    engine = await serving.start_beside(echo.spec(tmp_path / "1", leaves=str(left)))
    await serving.switch(engine)
    grandchild = psutil.Process(int(left.read_text()))
    try:
        echo.artifact(tmp_path / "1")
        os.kill(engine.pid, signal.SIGKILL)
        await device.until(EventKind.RESTARTED)
        assert grandchild.is_running()
        assert await answer_of(serving.routes) == "hello"
    finally:
        grandchild.kill()


async def test_an_engine_that_no_longer_starts_is_tried_again_and_says_why(device: Device, tmp_path: Path) -> None:
    serving = device.serving
    engine = await serving.start_beside(echo.spec(tmp_path / "1"))
    await serving.switch(engine)
    echo.artifact(tmp_path / "1", load="abort")
    os.kill(engine.pid, signal.SIGKILL)
    await device.until(EventKind.RESTART_FAILED, 2)
    assert "GGML_ASSERT(echo) failed" in serving.routes.health().reason
    with pytest.raises(EngineDown, match="GGML_ASSERT"):
        async with serving.routes.admit("echo", 0.1):
            pytest.fail("there is no engine")
    echo.artifact(tmp_path / "1")
    await device.until(EventKind.RESTARTED)
    assert await answer_of(serving.routes) == "hello"
    assert device.events[-1].failures >= 3


async def test_a_switch_ends_the_restarts_of_the_broken_version(device: Device, tmp_path: Path) -> None:
    serving = device.serving
    broken = await serving.start_beside(echo.spec(tmp_path / "1"))
    await serving.switch(broken)
    echo.artifact(tmp_path / "1", load="hang")
    os.kill(broken.pid, signal.SIGKILL)
    await device.until(EventKind.EXITED)
    await asyncio.sleep(0.3)  # the restart hangs in loading by now
    await serving.switch(await serving.start_beside(echo.spec(tmp_path / "2", prefix="v2 ")))
    assert await answer_of(serving.routes) == "v2 hello"
    await serving.retire(broken, 1)
    await asyncio.sleep(0.5)
    assert await answer_of(serving.routes) == "v2 hello"
    assert EventKind.RESTARTED not in device.kinds()


async def test_a_candidate_that_dies_before_the_switch_changes_nothing(device: Device, tmp_path: Path) -> None:
    serving = device.serving
    good = await serving.start_beside(echo.spec(tmp_path / "1", prefix="v1 "))
    await serving.switch(good)
    candidate = await serving.start_beside(echo.spec(tmp_path / "2"))
    os.kill(candidate.pid, signal.SIGKILL)
    await candidate.wait()
    with pytest.raises(EngineFailed, match="SIGKILL"):
        await serving.switch(candidate)
    await serving.discard(candidate)
    assert serving.active is good
    assert await answer_of(serving.routes) == "v1 hello"


async def test_a_candidate_that_aborts_leaves_the_active_one_alone(device: Device, tmp_path: Path) -> None:
    serving = device.serving
    await serving.switch(await serving.start_beside(echo.spec(tmp_path / "1", prefix="v1 ")))
    with pytest.raises(EngineFailed, match="SIGABRT"):
        await serving.start_beside(echo.spec(tmp_path / "2", load="abort"))
    assert await answer_of(serving.routes) == "v1 hello"


async def test_an_engine_on_the_wrong_device_is_refused(device: Device, tmp_path: Path) -> None:
    honest = await device.serving.start_beside(echo.spec(tmp_path / "1", accelerator="cpu"))
    assert (await device.serving.prove(honest, "cpu")).accelerator == "cpu"
    with pytest.raises(AcceleratorWrong, match="made for cuda, but echo runs on cpu"):
        await device.serving.prove(honest, "cuda")
    await device.serving.discard(honest)


async def test_probes_pass_in_order_and_the_first_failure_stops_them(device: Device, tmp_path: Path) -> None:
    engine = await device.serving.start_beside(echo.spec(tmp_path / "1"))
    good = Probe("good", "the sky is blue", expect="blue")
    results = await device.serving.probe_all(engine, [good, Probe("any", "x")])
    assert [result.passed for result in results] == [True, True]
    with pytest.raises(ProbeFailed, match="probe bad: expected 'green'") as caught:
        await device.serving.probe_all(engine, [good, Probe("bad", "blue", expect="green"), good])
    assert [result.passed for result in caught.value.results] == [True, False]
    await device.serving.discard(engine)


async def test_an_engine_that_dies_of_a_probe_is_an_engine_that_failed(device: Device, tmp_path: Path) -> None:
    engine = await device.serving.start_beside(echo.spec(tmp_path / "1", generate="abort"))
    with pytest.raises(EngineFailed, match="SIGABRT"):
        await device.serving.probe_all(engine, [Probe("any", "x y")])
    await device.serving.discard(engine)


async def test_an_engine_without_an_answer_in_time_fails_its_probe(device: Device, tmp_path: Path) -> None:
    engine = await device.serving.start_beside(echo.spec(tmp_path / "1", generate="hang"))
    with pytest.raises(ProbeFailed, match="no answer within 1 s"):
        await device.serving.probe_all(engine, [Probe("any", "x", timeout_s=1)])
    await device.serving.discard(engine)


async def test_after_a_restart_of_the_agent_a_broken_engine_is_tried_until_it_starts(
    device: Device, tmp_path: Path
) -> None:
    serving = device.serving
    spec = echo.spec(tmp_path / "1", load="exit")
    assert not await serving.resume(spec)
    assert serving.routes.models == ("echo",)
    assert "exit code 3" in serving.routes.health().reason
    echo.artifact(tmp_path / "1")
    assert await answer_of(serving.routes) == "hello"


async def test_requests_wait_for_the_engine_while_it_loads_after_a_restart_of_the_agent(
    device: Device, tmp_path: Path
) -> None:
    serving = device.serving
    resuming = asyncio.ensure_future(serving.resume(echo.spec(tmp_path / "1", load="slow")))
    await until(lambda: bool(serving.routes.models))
    assert serving.routes.health().reason == "its engine is starting"
    assert await answer_of(serving.routes) == "hello"
    assert await resuming


async def test_serving_nothing_ends_the_engine_and_its_route(device: Device, tmp_path: Path) -> None:
    serving = device.serving
    engine = await serving.start_beside(echo.spec(tmp_path / "1"))
    await serving.switch(engine)
    await serving.serve_nothing(1)
    assert not engine.running
    with pytest.raises(NoRoute):
        serving.routes.resolve("echo")
    assert device.kinds()[-1] is EventKind.STOPPED


async def test_a_cancelled_start_leaves_no_process(device: Device, tmp_path: Path) -> None:
    task = asyncio.ensure_future(device.serving.start_beside(echo.spec(tmp_path / "1", load="hang")))
    await asyncio.sleep(1.0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            assert str(tmp_path) not in " ".join(child.cmdline())


def test_the_back_off_doubles_up_to_its_bound() -> None:
    assert [Backoff().delay(failures) for failures in (1, 2, 3, 7, 1000)] == [0.5, 1.0, 2.0, 30.0, 30.0]
