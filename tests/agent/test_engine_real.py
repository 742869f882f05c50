"""The real engines with the real small model: one contract, four runtimes."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from edgewright_agent import probe
from edgewright_agent.engines import accelerator, catalogue, confinement
from edgewright_agent.engines.catalogue import EngineSettings
from edgewright_agent.engines.confine.plan import NETWORK, OWN_PORT, OWN_USER
from edgewright_agent.engines.confinement import Confinement, ConfinementSettings
from edgewright_agent.engines.process import EngineFailed, EngineProcess
from edgewright_contract.engine import LOGITS, EngineSpec
from edgewright_contract.release import Probe
from tests.agent.test_engine_confined import interpreter_for_anybody
from tests.agent.test_engine_layers import on_old_kernel

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]  # the first test may have to build the artifacts

ENGINES = [(engine.name, engine.runtime) for engine in catalogue.ENGINES]
NEED = 600_000_000  # what the release of the largest of them would say
# The model is weak; this is a question whose first words every sound build agrees on.
QUESTION = "What is your name?"
# What the template of the model makes of it.
CHAT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    f"<|im_start|>user\n{QUESTION}<|im_end|>\n<|im_start|>assistant\n"
)


@dataclass
class Serving:
    """One engine, ready, and questions to it."""

    process: EngineProcess
    runtime: str

    async def ask(self, **more: Any) -> dict[str, Any]:
        async with self.process.session.post(self.url, json=self.question(**more)) as answer:
            document = await answer.json()
            assert answer.status == 200, document
            return dict(document)

    def question(self, **more: Any) -> dict[str, Any]:
        messages = [{"role": "user", "content": QUESTION}]
        return {"model": "smollm2", "messages": messages, "temperature": 0, "max_tokens": 6, **more}

    @property
    def url(self) -> str:
        return f"{self.process.openai_url}/chat/completions"

    async def logits(self, **body: Any) -> tuple[list[int], list[tuple[float, ...]]]:
        url = self.process.openai_url.removesuffix("/v1") + "/engine/logits"
        async with self.process.session.post(url, json=body) as answer:
            data = await answer.read()
            assert answer.status == 200, data
            columns = int(answer.headers["Edgewright-Columns"])
            tokens = [int(token) for token in answer.headers["Edgewright-Tokens"].split(",")]
            assert len(data) == 4 * columns * int(answer.headers["Edgewright-Rows"]) == 4 * columns * len(tokens)
            return tokens, list(struct.iter_unpack(f"<{columns}f", data))


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES, ids=[name for name, _ in ENGINES])
async def serving(
    request: pytest.FixtureRequest, demo_artifacts: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Serving]:
    name, runtime = request.param
    spec = EngineSpec(runtime, str(demo_artifacts[runtime]), "smollm2", "cpu", {"context": 512}, NEED)
    log = tmp_path_factory.mktemp("engines") / f"{name}.log"
    process = await EngineProcess.start(
        spec, EngineSettings(engine=name), log, confinement=Confinement(), deadline_s=300
    )
    await process.wait_ready(300)
    yield Serving(process, runtime)
    await process.stop()


module_loop = pytest.mark.asyncio(loop_scope="module")


@module_loop
async def test_the_engine_says_what_it_is_and_where_it_computes(serving: Serving) -> None:
    info = await serving.process.info()
    assert info.engine == serving.process.name
    assert info.version[0].isdigit()
    assert (info.accelerator, info.layers_offloaded, info.context) == ("cpu", 0, 512)
    libraries = {"xllamacpp": "llama.cpp", "llama-cpp-python": "llama.cpp", "mlx-lm": "mlx"}
    assert accelerator.told(info).startswith(f"cpu ({libraries.get(info.engine, 'onnxruntime')}: ")
    assert info.layers in (30, 31)  # llama.cpp counts the output layer too
    memory = await serving.process.memory()
    assert memory.rss_bytes > 50 << 20
    assert memory.vram_bytes == 0


@module_loop
async def test_an_answer_has_text_a_reason_and_counted_tokens(serving: Serving) -> None:
    document = await serving.ask()
    choice = document["choices"][0]
    assert choice["message"]["content"].strip()
    assert choice["finish_reason"] == "length"
    assert document["usage"]["completion_tokens"] == 6
    assert document["usage"]["prompt_tokens"] == 35  # of the template in the artifact
    assert document["timings"]["predicted_per_second"] > 0


@module_loop
async def test_a_stream_has_the_same_text_and_ends_with_done(serving: Serving) -> None:
    plain = (await serving.ask())["choices"][0]["message"]["content"]
    async with serving.process.session.post(serving.url, json=serving.question(stream=True)) as answer:
        events = [line[6:] async for line in answer.content if line.startswith(b"data: ")]
    assert events[-1].strip() == b"[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    text = "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"])
    assert text == plain
    assert [c["choices"][0]["finish_reason"] for c in chunks if c["choices"]][-1] == "length"


@module_loop
async def test_a_stop_text_ends_the_answer_before_it(serving: Serving) -> None:
    plain = (await serving.ask())["choices"][0]["message"]["content"]
    stop = plain[2:4]
    choice = (await serving.ask(stop=[stop]))["choices"][0]
    assert choice["message"]["content"] == plain[: plain.index(stop)]
    assert choice["finish_reason"] == "stop"


@module_loop
async def test_a_prompt_longer_than_the_context_is_refused_not_cut(serving: Serving) -> None:
    question = serving.question(messages=[{"role": "user", "content": "hello " * 600}])
    async with serving.process.session.post(serving.url, json=question) as answer:
        assert answer.status == 400
        assert "context" in (await answer.text())


@module_loop
async def test_a_client_that_leaves_frees_the_engine(serving: Serving) -> None:
    began = time.monotonic()
    document = await serving.ask(max_tokens=40)
    tokens = document["usage"]["completion_tokens"]
    a_token_s = (time.monotonic() - began) / tokens
    long = serving.question(stream=True, max_tokens=400)
    async with serving.process.session.post(serving.url, json=long) as answer:
        await answer.content.readany()
        answer.close()
    began = time.monotonic()
    assert await serving.ask(max_tokens=1)
    # Of the answer that nobody waits for, most is never made: another machine's speed cannot be assumed.
    assert time.monotonic() - began < max(a_token_s * 200, 5.0)


@module_loop
async def test_a_probe_is_answered(serving: Serving) -> None:
    result = await probe.run(serving.process, Probe("name", QUESTION, expect_regex="[A-Za-z]{2,}", max_tokens=6))
    assert result.passed, result.reason
    failed = await probe.run(serving.process, Probe("never", QUESTION, expect="xyzzy-никогда", max_tokens=2))
    assert "expected 'xyzzy-никогда'" in failed.reason


@module_loop
async def test_a_running_engine_shows_a_sign_of_life(serving: Serving) -> None:
    await serving.process.answers(60)


@module_loop
async def test_logits_are_causal_and_agree_with_the_greedy_answer(serving: Serving) -> None:
    if LOGITS not in (await serving.process.info()).capabilities:
        async with serving.process.session.post(
            serving.process.openai_url.removesuffix("/v1") + "/engine/logits", json={"tokens": [1]}
        ) as answer:
            assert answer.status == 404
        return
    tokens, rows = await serving.logits(text=CHAT)
    assert len(tokens) == 35
    assert len(rows[0]) == 49152
    first = (await serving.ask(max_tokens=1))["choices"][0]["message"]["content"]
    best = max(range(len(rows[-1])), key=rows[-1].__getitem__)
    continued, _ = await serving.logits(text=CHAT + first)
    assert continued == [*tokens, best]
    _, shorter = await serving.logits(tokens=tokens[:4])
    for one, other in zip(shorter, rows[:4], strict=True):
        # llama.cpp computes four rows and forty with different kernels: near, not to the bit. Another row is far.
        assert _distance(one, other) < 0.2 < _distance(one, rows[5])


@module_loop
@pytest.mark.parametrize("body", [{"tokens": []}, {"tokens": [-1]}, {"tokens": "x"}, {}, {"tokens": [1] * 600}])
async def test_logits_of_nonsense_are_refused(serving: Serving, body: dict[str, Any]) -> None:
    url = serving.process.openai_url.removesuffix("/v1") + "/engine/logits"
    async with serving.process.session.post(url, json=body) as answer:
        assert answer.status in (400, 404)
        assert "error" in await answer.json()


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root can give it another user")
@pytest.mark.parametrize(("name", "runtime"), ENGINES, ids=[name for name, _ in ENGINES])
async def test_it_works_as_a_user_of_its_own_and_confined_in_all(
    demo_artifacts: Mapping[str, Path], open_folder: Path, name: str, runtime: str
) -> None:
    python = _interpreter_for_anybody(open_folder)
    state = open_folder / "state"
    artifact = state / "artifacts" / runtime
    shutil.copytree(demo_artifacts[runtime], artifact, copy_function=shutil.copy)
    spec = EngineSpec(runtime, str(artifact), "smollm2", "cpu", {"context": 512}, NEED)
    process = await EngineProcess.start(
        spec,
        EngineSettings(python=str(python), engine=name),
        open_folder / "e.log",
        confinement=Confinement(ConfinementSettings(), state),
        deadline_s=300,
    )
    try:
        await process.wait_ready(300)
        lacking = set(process.unconfined)
        if all(_open_to_anybody(Path(place)) for place in (*_packages(), catalogue.__file__)):
            assert psutil.Process(process.pid).uids().real not in (0, os.geteuid())
            assert OWN_USER not in lacking
        else:  # a checkout that only its owner may enter: another user could not read the engine, and that is told
            assert OWN_USER in lacking
        # What this kernel lacks, it lacks for the trial without an engine too.
        assert lacking - {OWN_USER} <= set(Confinement().unconfined()) - {OWN_USER} | {OWN_PORT, NETWORK}
        assert await Serving(process, runtime).ask(max_tokens=2)
    finally:
        await process.stop(0)


@pytest.mark.skipif(sys.platform != "linux", reason="a network of its own is Linux's")
async def test_llama_cpps_server_works_where_there_is_no_network_of_its_own(
    demo_artifacts: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_usual = confinement._launcher
    monkeypatch.setattr(confinement, "_launcher", lambda wanted: [*on_old_kernel("unshare"), *as_usual(wanted)])
    spec = EngineSpec("gguf", str(demo_artifacts["gguf"]), "smollm2", "cpu", {"context": 512}, NEED)
    process = await EngineProcess.start(
        spec, EngineSettings(engine="xllamacpp"), tmp_path / "e.log", confinement=Confinement(), deadline_s=300
    )
    try:
        await process.wait_ready(300)
        assert {OWN_PORT, NETWORK} & set(process.unconfined)
        assert await Serving(process, "gguf").ask(max_tokens=2)
        await process.answers(60)
    finally:
        await process.stop(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where every user may pass: pytest's own folders are closed to all but theirs."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="edgewright-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _interpreter_for_anybody(folder: Path) -> Path:
    """With the packages of this one."""
    base = interpreter_for_anybody()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    told = subprocess.run([base or "false", "-c", "import sys; print(sys.version)"], capture_output=True, check=False)
    if not told.stdout.decode().startswith(f"{version}."):
        pytest.skip(f"no Python {version} here that every user may start")
    subprocess.run([base, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    packages = _packages()
    (folder / "env" / "lib" / f"python{version}" / "site-packages" / "all.pth").write_text("\n".join(packages))
    return folder / "env" / "bin" / "python"


def _packages() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


def _open_to_anybody(path: Path) -> bool:
    """Whether every folder above lets every user pass."""
    return all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)


def _distance(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The mean absolute difference of two rows of logits."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def _truncated(file: Path) -> None:
    data = file.read_bytes()[: file.stat().st_size // 2]
    file.unlink()
    file.write_bytes(data)


def _rubbish(file: Path) -> None:
    file.unlink()
    file.write_bytes(b"no model " * 1000)


@pytest.mark.parametrize(("name", "runtime"), ENGINES, ids=[name for name, _ in ENGINES])
@pytest.mark.parametrize("spoil", [_truncated, _rubbish, Path.unlink], ids=["truncated", "rubbish", "missing"])
async def test_a_spoilt_artifact_never_becomes_ready(
    demo_artifacts: Mapping[str, Path], tmp_path: Path, name: str, runtime: str, spoil: Callable[[Path], None]
) -> None:
    artifact = tmp_path / "artifact"
    shutil.copytree(demo_artifacts[runtime], artifact, copy_function=shutil.copy)
    largest = max((file for file in artifact.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
    largest.chmod(0o600)
    spoil(largest)
    spec = EngineSpec(runtime, str(artifact), "smollm2", "cpu", {"context": 256})
    process = await EngineProcess.start(
        spec, EngineSettings(engine=name), tmp_path / "e.log", confinement=Confinement()
    )
    try:
        with pytest.raises(EngineFailed) as caught:
            await process.wait_ready(60)
        assert caught.value.last_lines
    finally:
        await process.stop(0)
