"""One engine as a child process, against a real child that can be told to misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import psutil
import pytest

from edgewright_agent.engines.catalogue import EngineMissing, EngineSettings
from edgewright_agent.engines.process import EngineFailed, EngineProcess
from edgewright_contract.engine import EngineSpec
from tests.agent import echo

Start = Callable[[EngineSpec], Awaitable[EngineProcess]]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[EngineProcess] = []

    async def begin(spec: EngineSpec) -> EngineProcess:
        engine = await EngineProcess.start(spec, echo.SETTINGS, tmp_path / "log" / "e.log", deadline_s=20)
        started.append(engine)
        return engine

    yield begin
    for engine in started:
        await engine.stop(0)


async def test_a_sound_engine_becomes_ready_answers_and_stops(start: Start, tmp_path: Path) -> None:
    engine = await start(echo.spec(tmp_path / "a"))
    await engine.wait_ready(20)
    assert (await engine.info()).engine == "echo"
    assert (await engine.memory()).rss_bytes > 1 << 20
    await engine.answers(10)
    async with engine.session.post(f"{engine.openai_url}/chat/completions", json=echo.question("one two")) as answer:
        assert (await answer.json())["choices"][0]["message"]["content"] == "one two"
    pid = engine.pid
    await engine.stop()
    assert not psutil.pid_exists(pid)
    await engine.stop()  # twice is harmless


async def test_an_engine_that_aborts_while_loading_is_told_with_its_last_words(start: Start, tmp_path: Path) -> None:
    engine = await start(echo.spec(tmp_path / "a", load="abort"))
    with pytest.raises(EngineFailed, match="SIGABRT") as caught:
        await engine.wait_ready(20)
    assert "GGML_ASSERT(echo) failed" in caught.value.last_lines
    assert "GGML_ASSERT(echo) failed" in str(caught.value)


async def test_an_engine_that_exits_while_loading_is_told_with_its_code(start: Start, tmp_path: Path) -> None:
    engine = await start(echo.spec(tmp_path / "a", load="exit"))
    with pytest.raises(EngineFailed, match="exit code 3"):
        await engine.wait_ready(20)


async def test_an_engine_that_cannot_load_says_why(start: Start, tmp_path: Path) -> None:
    engine = await start(echo.spec(tmp_path / "a", load="fail"))
    with pytest.raises(EngineFailed, match="cannot serve: RuntimeError: echo was told to fail"):
        await engine.wait_ready(20)


@pytest.mark.parametrize("load", ["hang", "seize"])
async def test_an_engine_that_hangs_while_loading_misses_its_deadline(start: Start, tmp_path: Path, load: str) -> None:
    engine = await start(echo.spec(tmp_path / "a", load=load))
    with pytest.raises(EngineFailed, match=r"not ready within 0\.5 s"):
        await engine.wait_ready(0.5)


@pytest.mark.parametrize(
    ("first_line", "told"), [("none", "did not listen within 1 s"), ("rubbish", "began with b'hello")]
)
async def test_an_engine_that_does_not_say_its_ports_is_ended(tmp_path: Path, first_line: str, told: str) -> None:
    spec = echo.spec(tmp_path / "a", first_line=first_line)
    with pytest.raises(EngineFailed, match=told):
        await EngineProcess.start(spec, echo.SETTINGS, tmp_path / "e.log", deadline_s=1 if first_line == "none" else 20)
    assert not _children_of_echo(tmp_path)


async def test_a_deaf_engine_is_killed_after_the_grace(start: Start, tmp_path: Path) -> None:
    engine = await start(echo.spec(tmp_path / "a", deaf=True))
    await engine.wait_ready(20)
    began = time.monotonic()
    await engine.stop(0.3)
    assert not engine.running
    assert 0.3 <= time.monotonic() - began < 5
    assert "SIGKILL" in engine.exit_reason()


async def test_a_hung_engine_is_told_from_a_quiet_one(start: Start, tmp_path: Path) -> None:
    engine = await start(echo.spec(tmp_path / "a", generate="hang"))
    await engine.wait_ready(20)
    await engine.answers(5)
    hung = asyncio.ensure_future(engine.session.post(f"{engine.openai_url}/chat/completions", json=echo.question("x")))
    assert not (await asyncio.wait({hung}, timeout=0.3))[0]
    await asyncio.sleep(15)  # a token generated in the last 10 s counts as a sign of life
    with pytest.raises(EngineFailed, match=r"generated no token within 0\.5 s"):
        await engine.answers(0.5)
    hung.cancel()


async def test_strangers_on_the_machine_are_refused(start: Start, tmp_path: Path) -> None:
    engine = await start(echo.spec(tmp_path / "a"))
    await engine.wait_ready(20)
    async with aiohttp.ClientSession() as stranger:
        for url in (f"{engine.openai_url}/models", f"{engine.openai_url.removesuffix('/v1')}/engine/info"):
            async with engine.session.get(url) as honest:
                assert honest.status == 200
            async with stranger.get(url) as refused:
                assert refused.status == 401
            async with stranger.get(url, headers={"Authorization": "Bearer wrong"}) as refused:
                assert refused.status == 401


async def test_a_missing_interpreter_and_a_missing_engine_say_what_to_set(tmp_path: Path) -> None:
    spec = EngineSpec("gguf", str(tmp_path), "m")
    with pytest.raises(EngineMissing, match="no interpreter /nowhere/python"):
        await EngineProcess.start(spec, EngineSettings(python="/nowhere/python"), tmp_path / "e.log")
    with pytest.raises(EngineMissing, match="there are xllamacpp, llama-cpp-python"):
        await EngineProcess.start(spec, EngineSettings(engine="xllama"), tmp_path / "e.log")


async def test_credentials_of_the_agent_do_not_reach_the_engine(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.setenv("LANG", "C.UTF-8")
    engine = await start(echo.spec(tmp_path / "a"))
    environment = psutil.Process(engine.pid).environ()
    assert environment["LANG"] == "C.UTF-8"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "hidden" not in environment.values()


@pytest.mark.parametrize("load", ["", "hang", "seize"])
async def test_the_engine_ends_when_its_parent_is_killed(tmp_path: Path, load: str) -> None:
    spec = echo.spec(tmp_path / "a", load=load)
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        _PARENT,
        json.dumps({**spec.to_json(), "engine": echo.SETTINGS.engine, "log": str(tmp_path / "e.log")}),
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdout is not None
    child = psutil.Process(int(await asyncio.wait_for(parent.stdout.readline(), 30)))
    assert child.is_running()
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, [child], 10)
    assert gone
    assert not alive


_PARENT = """
import asyncio, json, sys
from pathlib import Path
from edgewright_agent.engines.catalogue import EngineSettings
from edgewright_agent.engines.process import EngineProcess
from edgewright_contract.engine import EngineSpec

async def main():
    given = json.loads(sys.argv[1])
    spec = EngineSpec(given["runtime"], given["artifact"], given["model"])
    engine = await EngineProcess.start(spec, EngineSettings(engine=given["engine"]), Path(given["log"]))
    print(engine.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def _children_of_echo(folder: Path) -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
            if child.status() != psutil.STATUS_ZOMBIE and str(folder) in str(child.cmdline()):
                found.append(child)
    return found
