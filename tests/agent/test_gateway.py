"""The gateway before real children: the API, refusals, and what happens when engines die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edgewright_agent.engines.process import EngineProcess
from edgewright_agent.engines.supervision import Backoff, Serving
from edgewright_agent.gateway import Gateway, Meter, PortTaken, Routes
from edgewright_contract.engine import EngineSpec
from tests.agent import echo


class Device:
    """A serving device and a client of it."""

    def __init__(self, folder: Path, *, load_s: float = 60.0, wait_s: float = 60.0) -> None:
        self.routes = Routes()
        self.meter = Meter(0.0)
        self.serving = Serving(
            echo.ALL, folder / "engines", self.routes, lambda _: None, backoff=Backoff(0.05, 0.2, 60), load_s=load_s
        )
        self.gateway = Gateway(
            self.routes, self.meter, self.serving.suspect, wait_s=wait_s, stall_s=1.0, max_body=1 << 16
        )
        self.client = aiohttp.ClientSession()

    async def serve(self, spec: EngineSpec) -> EngineProcess:
        engine = await self.serving.start_beside(spec, 60)
        await self.serving.retire(await self.serving.switch(engine), 5)
        return engine

    async def post(self, document: Any, path: str = "/chat/completions") -> tuple[int, Any]:
        data = document if isinstance(document, bytes) else json.dumps(document).encode()
        async with self.client.post(self.gateway.url + path, data=data) as answer:
            return answer.status, json.loads(await answer.read())

    async def get(self, path: str) -> tuple[int, Any]:
        async with self.client.get(self.gateway.url.removesuffix("/v1") + path) as answer:
            return answer.status, json.loads(await answer.read())

    async def text(self, words: str) -> str:
        status, document = await self.post(echo.question(words))
        assert status == 200, document
        return str(document["choices"][0]["message"]["content"])


@asynccontextmanager
async def running(made: Device) -> AsyncIterator[Device]:
    await made.gateway.start("127.0.0.1", 0)
    yield made
    await made.client.close()
    await made.gateway.stop()
    await made.serving.stop(0)


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    async with running(Device(tmp_path)) as made:
        yield made


async def test_a_question_is_answered_plain_and_as_a_stream(device: Device, tmp_path: Path) -> None:
    await device.serve(echo.spec(tmp_path / "1"))
    assert await device.text("one two three") == "one two three"
    async with device.client.post(
        device.gateway.url + "/chat/completions", json=echo.question("one two", stream=True)
    ) as answer:
        assert answer.content_type == "text/event-stream"
        lines = [line async for line in answer.content if line.strip()]
    assert lines[-1] == b"data: [DONE]\n"
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in lines[:-1]]
    assert "".join(delta.get("content", "") for delta in deltas) == "one two"
    window = device.meter.snapshot(1.0)
    assert (window.requests, window.errors, window.output_tokens) == (2, 0, 4 + 3)  # the echo adds an empty token


async def test_a_stream_arrives_as_it_is_made(device: Device, tmp_path: Path) -> None:
    await device.serve(echo.spec(tmp_path / "1", token_s=0.2))
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with device.client.post(
        device.gateway.url + "/chat/completions", json=echo.question("a b c d e", stream=True)
    ) as answer:
        first = await answer.content.readany()
        arrived = loop.time() - began
        await answer.read()
    assert first
    assert loop.time() - began - arrived > 1  # with all of it at the end, this would be nothing


async def test_models_and_health_follow_what_is_served(device: Device, tmp_path: Path) -> None:
    assert await device.get("/v1/models") == (200, {"object": "list", "data": []})
    status, health = await device.get("/health")
    assert (status, health["reason"]) == (503, "no model is active yet")
    engine = await device.serve(echo.spec(tmp_path / "1"))
    assert await device.get("/health") == (200, {"status": "ok", "model": "echo"})
    assert [card["id"] for card in (await device.get("/v1/models"))[1]["data"]] == ["echo"]
    assert (await device.get("/v1/models/echo"))[0] == 200
    echo.artifact(tmp_path / "1", load="hang")
    os.kill(engine.pid, signal.SIGKILL)
    await engine.wait()
    await asyncio.sleep(0)
    status, health = await device.get("/health")
    assert status == 503
    assert "SIGKILL" in health["reason"]


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (b"[" * 60_000, 400, "not JSON"),
        (b'{"model": 3}', 400, "model must be a string"),
        (b'{"model": "echo", "stream": "yes"}', 400, "stream must be"),
        (b'{"model": "gpt-4", "messages": []}', 404, "'gpt-4' does not exist on this device; there is echo"),
        (b'{"model": "echo"}', 400, "messages must be a list"),
        (b'{"model": "echo", "messages": [{"role": "user", "content": "x"}], "n": 2}', 400, "n must be 1"),
        (b'{"model": "echo", "messages": [{"role": "user", "content": "x"}], "max_tokens": 0}', 400, "max_tokens"),
        (b" " * (1 << 17), 413, "more than 65536 bytes"),
    ],
)
async def test_a_bad_request_gets_one_clear_line(
    device: Device, tmp_path: Path, body: bytes, status: int, told: str
) -> None:
    await device.serve(echo.spec(tmp_path / "1"))
    assert await device.text("honest") == "honest"
    got, document = await device.post(body)
    assert got == status
    assert told in document["error"]["message"]
    assert document["error"]["type"] == "invalid_request_error"


async def test_an_unknown_path_is_answered_in_the_same_shape(device: Device) -> None:
    status, document = await device.get("/v1/embeddings")
    assert status == 404
    assert "POST /v1/chat/completions" in document["error"]["message"]
    assert (await device.get("/v1/chat/completions"))[0] == 405


async def test_a_request_that_meets_a_restart_waits_and_is_answered(device: Device, tmp_path: Path) -> None:
    engine = await device.serve(echo.spec(tmp_path / "1"))
    os.kill(engine.pid, signal.SIGKILL)
    await engine.wait()
    assert await device.text("still here") == "still here"


async def test_an_engine_that_dies_before_its_first_byte_costs_no_answer(device: Device, tmp_path: Path) -> None:
    await device.serve(echo.spec(tmp_path / "1", generate="abort", once=str(tmp_path / "died")))
    assert await device.text("asked once answered once") == "asked once answered once"
    assert (tmp_path / "died").exists()
    assert device.serving.restarts == 1
    assert device.meter.snapshot(1.0).errors == 0


async def test_an_engine_that_dies_in_mid_stream_ends_the_stream_with_an_error(device: Device, tmp_path: Path) -> None:
    await device.serve(echo.spec(tmp_path / "1", generate="abort", after=2, token_s=0.05))
    async with device.client.post(
        device.gateway.url + "/chat/completions", json=echo.question("a b c d", stream=True)
    ) as answer:
        body = await answer.read()
    assert b'"content": "a"' in body
    assert b'"code": "engine_lost"' in body
    assert b"[DONE]" not in body
    assert device.meter.snapshot(1.0).errors == 1


async def test_an_engine_that_dies_of_each_try_is_answered_with_an_error(device: Device, tmp_path: Path) -> None:
    await device.serve(echo.spec(tmp_path / "1", generate="abort"))
    status, document = await device.post(echo.question("x"))
    assert status == 502
    assert document["error"]["code"] == "engine_lost"


async def test_an_engine_that_stays_away_is_answered_503_in_bounded_time(tmp_path: Path) -> None:
    async with running(Device(tmp_path, wait_s=1.0)) as device:
        engine = await device.serve(echo.spec(tmp_path / "1"))
        echo.artifact(tmp_path / "1", load="abort")
        os.kill(engine.pid, signal.SIGKILL)
        deadline = asyncio.get_running_loop().time() + 60
        while "GGML_ASSERT" not in device.routes.health().reason:
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.02)
        status, document = await asyncio.wait_for(device.post(echo.question("x")), 30)
        assert status == 503
        assert "GGML_ASSERT" in document["error"]["message"]


async def test_a_client_that_leaves_stops_the_generation(device: Device, tmp_path: Path) -> None:
    engine = await device.serve(echo.spec(tmp_path / "1", token_s=0.3))
    url = device.gateway.url + "/chat/completions"
    long = echo.question(" ".join(["word"] * 200), stream=True)
    async with device.client.post(url, json=long) as answer:
        await answer.content.readany()
        answer.close()
    assert await device.routes.drain(engine, 15)
    # One sequence at a time: 60 s of words would be in the way.
    assert await asyncio.wait_for(device.text("next"), 30) == "next"
    assert device.meter.snapshot(1.0).active_requests == 0


async def test_no_request_fails_while_versions_change(device: Device, tmp_path: Path) -> None:
    await device.serve(echo.spec(tmp_path / "0", prefix="v0 ", token_s=0.01))
    answers: list[str] = []
    done = asyncio.Event()

    async def ask() -> None:
        while not done.is_set():
            answers.append(await device.text("a b"))

    clients = [asyncio.ensure_future(ask()) for _ in range(4)]
    for version in range(1, 4):
        await device.serve(echo.spec(tmp_path / str(version), prefix=f"v{version} ", token_s=0.01))
    done.set()
    await asyncio.gather(*clients)
    assert {answer for answer in answers if answer} <= {f"v{version} a b" for version in range(4)}
    assert answers[-1] == "v3 a b"
    assert device.meter.snapshot(1.0).errors == 0


async def test_a_hung_engine_is_noticed_killed_and_started_again(tmp_path: Path) -> None:
    async with running(Device(tmp_path, load_s=8)) as device:
        await device.serve(echo.spec(tmp_path / "1", generate="hang", once=str(tmp_path / "hung")))
        assert await asyncio.wait_for(device.text("patience"), 120) == "patience"
        assert device.serving.restarts >= 1


async def test_a_taken_port_says_which_setting_to_change(device: Device) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken) as refusal:
            await Gateway(Routes(), Meter(0.0)).start("127.0.0.1", port)
    said = f"gateway.listen: cannot listen on 127.0.0.1:{port}: address already in use; set another"
    assert str(refusal.value) == said
    with pytest.raises(PortTaken, match=r"^gateway.listen: cannot listen on no-such-host.invalid:0: "):
        await Gateway(Routes(), Meter(0.0)).start("no-such-host.invalid", 0)
