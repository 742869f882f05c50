"""Engines as the controller starts them: a real one on a tiny model, and children that break the contract."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import os
import struct
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import psutil
import pytest

from edgewright_contract.engine import LOGITS
from edgewright_controller.compile import engine_child, engine_words, engines_here
from edgewright_controller.compile.engine_child import EngineChild, EngineFailed
from edgewright_controller.compile.engines_here import Engine, EngineMissing
from tests.controller import tiny_gguf

pytestmark = pytest.mark.toolchain


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("tiny"), "Q8_0")


def started(
    engine: Engine, artifact: Path, scratch: Path, log: io.BytesIO, deadline_s: float = 60
) -> AbstractAsyncContextManager[EngineChild]:
    spec = engine_child.spec_of(engine.runtime, artifact, threads=1, context=512)
    return engine_child.started(engine, sys.executable, spec, scratch, log, deadline_s=deadline_s)


def child(folder: Path, body: str) -> Engine:
    """An engine of ours: a script by its whole path, which wins over the agent's folder."""
    script = folder / "engine.py"
    script.write_text(body)
    return Engine("odd", "gguf", str(script), "json", ())


def test_the_agents_engines_are_found_and_the_agent_is_not_imported() -> None:
    folder = engines_here.children_folder()
    assert (folder / "engine_http.py").is_file()
    # In a process of its own: other tests of this one have imported the agent.
    asked = (
        "import sys; from edgewright_controller.compile import engines_here; print(engines_here.children_folder());"
        "print(*(name for name in sys.modules if name.startswith('edgewright_agent')))"
    )
    said = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=True)
    assert said.stdout.splitlines() == [str(folder), ""]
    for engine in engines_here.ENGINES:
        assert (folder / engine.script).is_file(), "the agent has an engine under this name"


def test_a_controller_without_the_agent_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(EngineMissing, match="not installed beside the controller"):
        engines_here.children_folder()


def test_an_interpreter_without_the_engine_says_which_extra_brings_it(tmp_path: Path) -> None:
    engine, version = engines_here.find("gguf", sys.executable)
    assert (engine.name, version[:2]) == ("xllamacpp", "20")
    assert engines_here.find("gguf", sys.executable, LOGITS)[0].name == "llama-cpp-python"
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho '{}'\n")
    bare.chmod(0o755)
    with pytest.raises(EngineMissing, match=r"has no mlx-lm to measure with; there, pip install 'edgewright\[mlx\]'"):
        engines_here.find("mlx", str(bare))
    with pytest.raises(EngineMissing, match="nowhere"):
        engines_here.find("mlx", "/nowhere/python")


async def test_a_real_engine_generates_and_tells_its_memory_and_device(model: Path, tmp_path: Path) -> None:
    engine, _ = engines_here.find("gguf", sys.executable)
    log = io.BytesIO()
    async with started(engine, model, tmp_path, log) as running:
        pid = running.pid
        info, before = await running.info(), running.processor_s()
        answer = await running.generate("Say something.", 16, 30)
        memory = await running.memory()
        assert (info.engine, info.accelerator, info.context) == ("xllamacpp", "cpu", 512)
        assert 0 < answer.tokens <= 16
        assert answer.prompt_tokens > len("Say something.")
        assert 0 < answer.first_s < 30
        assert memory.rss_bytes > 1 << 20
        assert running.peak_rss_bytes() > 0.9 * memory.rss_bytes or sys.platform != "linux"
        assert running.processor_s() >= before
    assert not psutil.pid_exists(pid)
    assert b"llama" in log.getvalue()


async def test_a_model_without_a_template_is_asked_for_a_plain_completion(tmp_path: Path) -> None:
    plain = tiny_gguf.write(tmp_path / "plain", "F32", template=False)
    engine, _ = engines_here.find("gguf", sys.executable, LOGITS)
    async with started(engine, plain, tmp_path, io.BytesIO()) as running:
        with pytest.raises(EngineFailed, match="no chat template"):
            await running.generate("Say something.", 4, 30)
        columns, rows = await running.logits([1, 5, 9], 30)
        assert len(rows) == 3 * 4 * columns
        assert all(abs(value) < 1e4 for value in struct.unpack(f"<{columns}f", rows[: 4 * columns]))


async def test_no_credential_of_the_controllers_reaches_an_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hidden-token")
    tell = "import os, sys; sys.stderr.write(repr(sorted(os.environ)) + '\\n'); sys.exit(3)"
    with pytest.raises(EngineFailed, match="ended with exit code 3") as caught:
        async with started(child(tmp_path, tell), tmp_path, tmp_path, io.BytesIO()):
            pass
    assert "PATH" in str(caught.value)
    assert "HF_TOKEN" not in str(caught.value)


BAD = {
    "print('hello', flush=True); input()": "began with b'hello",
    'print(\'{"port": 0, "openai_port": 1}\', flush=True); input()': "are not ports",
    "import os; os.kill(os.getpid(), 6)": "died of SIGABRT",
    "import sys; sys.exit('no such model')": "it last said: no such model",
    "import time; time.sleep(60)": "was not ready within 0.5 s",
    'print(\'{"port": 1, "openai_port": 1}\', flush=True); input()': "engine odd",
}


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
async def test_a_child_that_breaks_the_contract_is_told_in_one_line_and_gone(body: str, tmp_path: Path) -> None:
    deadline = 0.5 if "sleep" in body else 30
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(EngineFailed) as caught:
        async with started(child(tmp_path, body), tmp_path, tmp_path, io.BytesIO(), deadline):
            pass
    assert BAD[body] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [one for one in psutil.Process().children(recursive=True) if one not in before]


async def test_a_cancelled_measurement_takes_engine_and_helpers_with_it(tmp_path: Path) -> None:
    """A child that loads for ever, and has a process of its own."""
    body = (
        "import json, subprocess, sys, http.server\n"
        "class Loading(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        open('asked', 'w').close(); self.send_response(503); self.send_header('Content-Length', '2')\n"
        "        self.end_headers(); self.wfile.write(b'{}')\n"
        "    def log_message(self, *_): pass\n"
        "helper = subprocess.Popen(['sleep', '60'])\n"
        "server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Loading)\n"
        "port = server.server_address[1]\n"
        "print(json.dumps({'port': port, 'openai_port': port}), flush=True)\n"
        "server.serve_forever()\n"
    )
    before = set(psutil.Process().children(recursive=True))

    async def measure() -> None:
        async with started(child(tmp_path, body), tmp_path, tmp_path, io.BytesIO(), 60):
            pass

    task = asyncio.create_task(measure())
    for _ in range(1500):
        if (tmp_path / "asked").exists():
            break
        await asyncio.sleep(0.02)
    assert len(set(psutil.Process().children(recursive=True)) - before) == 2
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not [one for one in psutil.Process().children(recursive=True) if one not in before]


async def test_a_full_log_is_bounded_and_has_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_words, "MAX_LOG_BYTES", 4096)
    say = "import os, sys\nfor _ in range(1000): print(os.environ['EDGEWRIGHT_ENGINE_SECRET'], file=sys.stderr)\n"
    log = io.BytesIO()
    with pytest.raises(EngineFailed, match="hidden"):
        async with started(child(tmp_path, say), tmp_path, tmp_path, log):
            pass
    assert len(log.getvalue()) < 5000
    assert b"the log ends here" in log.getvalue()
    assert set(log.getvalue().splitlines()[:-1]) == {b"[hidden]"}
    assert os.listdir(tmp_path) == ["engine.py"]
