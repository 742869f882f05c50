"""The parts of the engines' children that decide, tested where they stand: run by path, they import their siblings."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import edgewright_agent.engines

CHILDREN = Path(edgewright_agent.engines.__file__).parent / "children"


@pytest.fixture(scope="module")
def children() -> Iterator[dict[str, ModuleType]]:
    import importlib

    names = ("engine_http", "generation", "gguf_files", "llama_log", "openai_chat", "process_memory", "templates")
    sys.path.insert(0, str(CHILDREN))
    yield {name: importlib.import_module(name) for name in names}
    sys.path.remove(str(CHILDREN))


CUDA = """\
0.1 I print_info: n_layer               = 32
0.2 I load_tensors: offloading 32 repeating layers to GPU
0.2 I load_tensors: offloading output layer to GPU
0.2 I load_tensors: offloaded {offloaded}/33 layers to GPU
0.3 I load_tensors:   CPU_Mapped model buffer size =   281.81 MiB
0.3 I load_tensors:        CUDA0 model buffer size =  4403.49 MiB
"""
METAL = """\
print_info: n_layer          = 30
load_tensors: offloaded 31/31 layers to GPU
load_tensors:   CPU_Mapped model buffer size =    28.69 MiB
load_tensors: MTL0_Mapped model buffer size =    98.87 MiB
"""
CPU = """\
0.1 I print_info: n_layer               = 30
0.1 I print_info: n_layer_all           = 30
0.2 I load_tensors:   CPU_Mapped model buffer size =    98.87 MiB
0.2 I load_tensors:   CPU_REPACK model buffer size =     7.59 MiB
"""


@pytest.mark.parametrize(
    ("said", "expected"),  # accelerator, layers, layers offloaded, MiB on the accelerator
    [
        (CUDA.format(offloaded=33), ("cuda", 33, 33, 4403)),
        (CUDA.format(offloaded=20), ("cuda", 33, 20, 4403)),
        (CUDA.format(offloaded=12).replace("281.81", "2900.00").replace("4403.49", "1700.00"), ("cuda", 33, 12, 1700)),
        (METAL, ("metal", 31, 31, 98)),
        (CPU, ("cpu", 31, 0, 0)),
        (CUDA.format(offloaded=0).replace("CUDA0", "CUDA_Host"), ("cpu", 33, 0, 0)),
    ],
    ids=["cuda", "cuda in part", "the smaller part on cuda", "metal", "cpu", "host memory of a cuda build"],
)
def test_llama_cpp_is_believed_by_where_it_put_the_weights(
    children: dict[str, ModuleType], said: str, expected: tuple[str, int, int, int]
) -> None:
    watched = subprocess.run(
        [sys.executable, str(CHILDREN / "llama_log.py")], input=said.encode(), capture_output=True, check=True
    )
    assert watched.stderr.decode() == said  # nothing of the log is lost
    log = children["llama_log"].LlamaLog()
    log.facts = json.loads(watched.stdout)
    counted = (log.facts["layers"], log.facts["layers_offloaded"])
    assert (log.accelerator()[0], *counted, log.vram_bytes() >> 20) == expected


@pytest.mark.parametrize(
    ("said", "account"),
    [
        (CPU, "llama.cpp: CPU_Mapped 99 MiB, CPU_REPACK 8 MiB"),
        (CUDA.format(offloaded=33), "llama.cpp: CUDA0 4403 MiB, CPU_Mapped 282 MiB"),
        ("", "llama.cpp: names no buffer"),
    ],
    ids=["cpu", "cuda", "silent"],
)
def test_llama_cpps_account_names_its_largest_buffers_first(
    children: dict[str, ModuleType], said: str, account: str
) -> None:
    watched = subprocess.run(
        [sys.executable, str(CHILDREN / "llama_log.py")], input=said.encode(), capture_output=True, check=True
    )
    log = children["llama_log"].LlamaLog()
    log.facts = json.loads(watched.stdout)
    assert log.accelerator()[1] == account


@pytest.mark.parametrize("pieces", [["one STOP two"], ["one S", "TOP two"], list("one STOP two")])
def test_a_stop_text_is_found_however_it_is_cut(children: dict[str, ModuleType], pieces: list[str]) -> None:
    stops = children["generation"].StopText(["STOP", "never"])
    text = ""
    for piece in pieces:
        text += stops.feed(piece)
        if stops.stopped:
            break
    assert (text, stops.stopped) == ("one ", True)


def test_text_that_only_looked_like_a_stop_is_passed_on(children: dict[str, ModuleType]) -> None:
    stops = children["generation"].StopText(["STOP"])
    assert stops.feed("a ST") == "a "
    assert stops.feed("ART") == "START"
    assert stops.feed("x STO") == "x "
    assert stops.rest() == "STO"
    assert not stops.stopped


def test_a_job_hands_over_its_results_and_then_its_fault(children: dict[str, ModuleType]) -> None:
    worker = children["generation"].Worker()

    def work(job: Any) -> None:
        job.put(1)
        raise OSError("no more")

    results = worker.submit(work).results()
    assert next(results) == 1
    with pytest.raises(OSError, match="no more"):
        next(results)
    assert list(worker.submit(lambda job: job.put(2)).results()) == [2]  # the thread lives on


def test_a_cancelled_job_stops_at_its_next_result(children: dict[str, ModuleType]) -> None:
    worker, steps, cancelled = children["generation"].Worker(), [], threading.Event()

    def work(job: Any) -> None:
        for step in range(100):
            steps.append(step)
            job.put(step)
            cancelled.wait(5)

    job = worker.submit(work)
    results = job.results()
    next(results)
    job.cancelled.set()
    cancelled.set()
    assert list(results) == []
    assert len(steps) <= 2


def test_more_jobs_than_may_wait_are_refused(children: dict[str, ModuleType]) -> None:
    generation = children["generation"]
    worker, go, begun = generation.Worker(), threading.Event(), threading.Event()

    def hold(_: Any) -> None:
        begun.set()
        go.wait(10)

    first = worker.submit(hold)
    assert begun.wait(10)
    waiting = [worker.submit(lambda job: job.put(1)) for _ in range(generation.MAX_WAITING)]
    with pytest.raises(generation.Busy):
        worker.submit(lambda job: None)
    go.set()
    assert list(first.results()) == []
    assert all(list(job.results()) == [1] for job in waiting)


GOOD = {"model": "m", "messages": [{"role": "user", "content": "x"}]}


def test_a_request_is_read_with_its_defaults(children: dict[str, ModuleType]) -> None:
    chat = children["openai_chat"].Chat(json.dumps(GOOD), "m")
    assert (chat.max_tokens, chat.temperature, chat.stop, chat.stream) == (None, 0.8, [], False)
    parts = {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}
    more = {"messages": [parts], "max_completion_tokens": 3, "stop": "x", "temperature": 0, "stream": True}
    chat = children["openai_chat"].Chat(json.dumps({**more, "stream_options": {"include_usage": True}}), "m")
    assert chat.messages == [{"role": "user", "content": "ab"}]
    assert (chat.max_tokens, chat.temperature, chat.stop, chat.stream) == (3, 0.0, ["x"], True)
    assert chat.include_usage


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": "other"}, "'other' does not exist"),
        ({"messages": []}, "messages must be"),
        ({"messages": [{"role": "user"}]}, "messages[0].content must be text"),
        ({"messages": [{"content": "x"}]}, "messages[0] must have a role"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only parts of type text"),
        ({"temperature": 3}, "temperature: 3"),
        ({"temperature": True}, "temperature: True"),
        ({"max_tokens": 1.5}, "max_tokens: 1.5"),
        ({"max_tokens": -1}, "max_tokens: -1"),
        ({"stop": ["a"] * 5}, "stop must be"),
        ({"stop": ""}, "stop must be"),
        ({"n": 2}, "n must be 1"),
        ({"tools": [{}]}, "tools is not supported"),
        ({"logprobs": True}, "logprobs is not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format is not supported"),
    ],
)
def test_a_request_that_cannot_be_answered_as_asked_is_refused(
    children: dict[str, ModuleType], change: dict[str, Any], told: str
) -> None:
    chat = children["openai_chat"]
    assert chat.Chat(json.dumps(GOOD), "m").model == "m"
    with pytest.raises(chat.BadRequest) as caught:
        chat.Chat(json.dumps({**GOOD, **change}), "m")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["model.gguf", "mmproj-model.gguf"], "model.gguf"),
        (["m-00002-of-00002.gguf", "m-00001-of-00002.gguf"], "m-00001-of-00002.gguf"),
    ],
)
def test_the_model_file_is_found(
    children: dict[str, ModuleType], tmp_path: Path, names: list[str], expected: str
) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert Path(children["gguf_files"].model_file(tmp_path)).name == expected


def test_no_model_file_or_several_are_told(children: dict[str, ModuleType], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.gguf file"):
        children["gguf_files"].model_file(tmp_path)
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    with pytest.raises(ValueError, match="not the parts of one"):
        children["gguf_files"].model_file(tmp_path)


def test_the_memory_of_a_process_is_what_the_system_says(children: dict[str, ModuleType]) -> None:
    import psutil

    assert abs(children["process_memory"].rss_bytes() - psutil.Process().memory_info().rss) < 32 << 20


class AskedForLife:
    """An engine's state with a model's thread that is held up, and somebody who asks whether it lives."""

    def __init__(self, engine_http: ModuleType, monkeypatch: pytest.MonkeyPatch, waiting: int) -> None:
        monkeypatch.setattr(engine_http, "_FRESH_S", 0.0)
        monkeypatch.setattr(engine_http, "_LOOK_S", 0.01)
        self.state = engine_http.State({"model": "m"}, self, "secret")
        self.state.ready = True
        self._released, running = threading.Event(), threading.Event()

        def first(_: object) -> None:
            running.set()
            self._released.wait(30)

        self.state.worker.submit(first)
        assert running.wait(30)
        for _ in range(waiting):
            self.state.worker.submit(lambda _: self._released.wait(30))
        self._asking = threading.Thread(target=self.state.first_token)
        self._asking.start()

    def at_work(self) -> bool:
        return False

    def one_token(self) -> None:
        """The model's thread came to it."""

    def answered(self, within_s: float) -> bool:
        self._asking.join(within_s)
        return not self._asking.is_alive()

    def end(self) -> None:
        self._released.set()
        assert self.answered(30)


@pytest.mark.parametrize("waiting", [0, 64], ids=["behind a request", "the queue is full"])
def test_a_token_for_somebody_else_is_a_sign_of_life_and_silence_is_none(
    children: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    asked = AskedForLife(children["engine_http"], monkeypatch, waiting)
    assert not asked.answered(1.0)
    asked.state.worker.progress()
    assert asked.answered(30)
    asked.end()


def _rendering(code: str) -> Any:
    """What runs as jinja has it: code of a file of this name."""
    compiled = compile(code, "<template>", "exec")

    def make() -> str:
        scope: dict[str, Any] = {"text": "a prompt"}
        exec(compiled, scope)
        return str(scope["text"])

    return make


def test_rendering_is_bounded_in_time_memory_and_length(
    children: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    templates, before = children["templates"], sys.gettrace()
    assert templates.render(_rendering("for place in range(1000): pass")) == "a prompt"
    monkeypatch.setattr(templates, "RENDER_S", 0.2)
    with pytest.raises(templates.Overrun, match="longer than"):
        templates.render(_rendering("while True:\n    pass"))
    monkeypatch.setattr(templates, "RENDER_S", 60.0)
    monkeypatch.setattr(templates, "MAX_GROWTH_BYTES", 64 << 20)
    with pytest.raises(templates.Overrun, match="MiB of memory"):
        templates.render(_rendering("kept = []\nwhile True:\n    kept.append(bytearray(1 << 20))"))
    monkeypatch.setattr(templates, "MAX_TEXT", 7)
    with pytest.raises(templates.Overrun, match="8 characters"):
        templates.render(_rendering("pass"))
    assert sys.gettrace() is before


def test_a_template_is_taken_only_when_it_is_the_pinned_one(children: dict[str, ModuleType]) -> None:
    templates, pinned = children["templates"], "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    for options, template in (({}, None), ({}, "y"), ({"chat_template": pinned}, "x")):
        templates.check({"options": options}, template)
    for other in ("y", "", None, "x\n"):
        with pytest.raises(templates.OtherTemplate):
            templates.check({"options": {"chat_template": pinned}}, other)
