"""Chat templates that try to leave the sandbox, or never to end, in the real engines: the request fails, no more."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from edgewright_agent.engines import catalogue
from edgewright_agent.engines.catalogue import EngineSettings
from edgewright_agent.engines.process import EngineFailed, EngineProcess
from edgewright_contract import digest
from edgewright_contract.engine import EngineSpec
from edgewright_contract.model_files import chat_template, gguf_header

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]
module_loop = pytest.mark.asyncio(loop_scope="module")

ENGINES = [(engine.name, engine.runtime) for engine in catalogue.ENGINES]
MARK = Path(tempfile.gettempdir(), "edgewright-template-left-its-sandbox")
# Each is taken when a message names it; otherwise the template is an honest one.
HOSTILE = {
    "globals": f"{{{{ cycler.__init__.__globals__.os.popen('touch {MARK}').read() }}}}",
    "lipsum": f"{{{{ lipsum.__globals__['os'].popen('touch {MARK}').read() }}}}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr": "{{ ''|attr('__class__')|attr('__mro__')|attr('__getitem__')(1)|attr('__subclasses__')() }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(cycler) }}",
    "namespace": f"{{{{ namespace.__init__.__globals__.sys.modules.os.popen('touch {MARK}') }}}}",
    "change": "{{ messages.append(1) }}{{ messages.clear() }}",
}
_LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
_ENDS = "{% endfor %}" * 3
_DOUBLING = "{% set ns = namespace(a='x') %}{% for a in range(60) %}{% set ns.a = "
ENDLESS = {
    "loop": _LOOPS + _ENDS,
    "output": _LOOPS + "x" * 1000 + _ENDS,
    "range": "{% for a in range(1000000000000) %}x{% endfor %}",
    "times": "{{ 'x' * 100000000000 }}",
    "power": "{{ 9 ** (9 ** (9 ** 9)) }}",
    "double": _DOUBLING + "ns.a ~ ns.a %}{% endfor %}",
    "plus": _DOUBLING + "ns.a + ns.a %}{% endfor %}",
}
# Engines in Python render with jinja2, within our bounds. Those in C++ have interpreters of their own: they know no
# Python to escape to, refuse a whole template for a syntax that they lack, and are not bounded in time.
IN_PYTHON = [engine for engine in ENGINES if engine[0] in ("llama-cpp-python", "mlx-lm")]
_NOT_IN_CPP = ("attr", *ENDLESS)
HONEST = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def template(hostile: Mapping[str, str]) -> str:
    """Honest, but for what a first message's words ask for."""
    branches = [f"{{% if messages[0]['content'] == '{name}' %}}{body}{{% endif %}}" for name, body in hostile.items()]
    return "".join(branches) + HONEST


def _near(source: str, target: str) -> None:
    """A link where the disk is the same, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def with_template(good: Path, out: Path, text: str) -> Path:
    """A copy of an artifact that has this template. Weights are links: only their names change."""
    shutil.copytree(good, out, copy_function=_near)
    model = out / "model.gguf"
    if not model.exists():
        (out / "chat_template.jinja").unlink()
        (out / "chat_template.jinja").write_text(text)
        return out
    from gguf import GGUFReader, GGUFValueType, GGUFWriter

    reader = GGUFReader(good / "model.gguf")
    model.unlink()
    writer = GGUFWriter(model, "llama")
    for field in reader.fields.values():
        if field.name in ("general.architecture", gguf_header.CHAT_TEMPLATE) or field.name.startswith("GGUF."):
            continue
        kind, inner = field.types[0], field.types[-1] if field.types[0] is GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    writer.add_chat_template(text)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_shape=tensor.data.shape, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


@dataclass
class Served:
    """One engine whose template is hostile when asked to be, and questions to it."""

    process: EngineProcess
    hostile: Mapping[str, str]

    async def ask(self, words: str) -> tuple[int, str]:
        question = {"model": "smollm2", "messages": [{"role": "user", "content": words}], "max_tokens": 4}
        url = f"{self.process.openai_url}/chat/completions"
        async with self.process.session.post(url, json={**question, "temperature": 0}) as answer:
            return answer.status, await answer.text()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES, ids=[name for name, _ in ENGINES])
async def served(
    request: pytest.FixtureRequest, demo_artifacts: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    name, runtime = request.param
    folder = tmp_path_factory.mktemp(name)
    left_out = () if request.param in IN_PYTHON else _NOT_IN_CPP
    hostile = {words: body for words, body in (HOSTILE | ENDLESS).items() if words not in left_out}
    text = template(hostile)
    artifact = with_template(demo_artifacts[runtime], folder / "artifact", text)
    # The pin of a good release: what the engine takes is what the artifact has.
    options: dict[str, str | int | bool] = {"context": 512, "chat_template": digest.of_bytes(text.encode())}
    spec = EngineSpec(runtime, str(artifact), "smollm2", "cpu", options)
    process = await EngineProcess.start(spec, EngineSettings(engine=name), folder / "log", deadline_s=300)
    await process.wait_ready(300)
    yield Served(process, hostile)
    await process.stop()


@module_loop
@pytest.mark.attack("chat template that tries to leave the sandbox")
async def test_a_template_that_tries_to_leave_its_sandbox_fails_and_the_engine_serves_on(served: Served) -> None:
    MARK.unlink(missing_ok=True)
    for words in [word for word in HOSTILE if word in served.hostile]:
        status, text = await served.ask("Hello")
        assert status == 200, text
        status, text = await served.ask(words)
        assert status == 400, (words, text)
        assert "object at 0x" not in text
        assert not MARK.exists(), words
    status, text = await served.ask("Hello")
    assert status == 200, text


@module_loop
@pytest.mark.attack("chat template that never ends")
@pytest.mark.parametrize("served", IN_PYTHON, ids=[name for name, _ in IN_PYTHON], indirect=True)
async def test_a_template_that_never_ends_fails_in_seconds_and_the_engine_serves_on(served: Served) -> None:
    status, text = await served.ask("Hello")
    assert status == 200, text
    before = (await served.process.memory()).rss_bytes
    for words in ENDLESS:
        began = time.monotonic()
        status, text = await served.ask(words)
        assert status == 400, (words, text)
        assert "the chat template refuses these messages" in text
        assert time.monotonic() - began < 60, words
        assert (await served.process.memory()).rss_bytes < before + (1 << 30), words
        status, text = await served.ask("Hello")
        assert status == 200, (words, text)


@pytest.mark.attack("engine that takes another chat template than is pinned")
@pytest.mark.parametrize(("name", "runtime"), [pair for pair in ENGINES if pair[0] != "onnxruntime-genai"])
async def test_an_engine_does_not_load_with_a_template_that_its_release_does_not_name(
    demo_artifacts: Mapping[str, Path], tmp_path: Path, name: str, runtime: str
) -> None:
    good = demo_artifacts[runtime]
    pinned = chat_template.of({path.name: path for path in good.iterdir()})
    for pin, loads in ((pinned, True), ("0" * 64, False)):
        spec = EngineSpec(runtime, str(good), "smollm2", "cpu", {"context": 256, "chat_template": pin})
        process = await EngineProcess.start(spec, EngineSettings(engine=name), tmp_path / "log", deadline_s=300)
        try:
            if loads:
                await process.wait_ready(300)
            else:
                with pytest.raises(EngineFailed, match="the engine took a chat template that is not the one"):
                    await process.wait_ready(300)
        finally:
            await process.stop(0)
