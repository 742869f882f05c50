"""Report cards of a tiny model, measured through a real engine; and who may run meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from edgewright_controller.compile import carding
from edgewright_controller.compile.carding import Carding, Subject
from edgewright_controller.compile.engine_child import EngineFailed
from edgewright_controller.compile.quiet import Quiet
from edgewright_controller.compile.recipe import make
from edgewright_controller.quality import performance
from edgewright_controller.quality.report_card import Origin, ReportCard
from tests.controller import tiny_gguf


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_gguf.write(folder / "parent", "F32")
    tiny_gguf.write(folder / "artifact", "Q8_0")
    return folder


class Bench:
    """A place for cards of the tiny model; counts how often its parent was asked for."""

    def __init__(self, folder: Path, models: Path) -> None:
        self.models, self.folder = models, folder
        self.parents = 0
        self.quiet = Quiet()

    def subject(self) -> Subject:
        return Subject(
            key="b" * 64,
            recipe=make("gguf", "Q8_0"),
            origin=Origin("c" * 64),
            toolchain={"gguf": "1"},
            artifact=self.models / "artifact",
            bundle="a" * 64,
            size_bytes=(self.models / "artifact" / "model.gguf").stat().st_size,
            measures=None,
            parent=self.parent,
        )

    @contextlib.asynccontextmanager
    async def parent(self) -> AsyncIterator[Path]:
        self.parents += 1
        yield self.models / "parent"

    async def card(self, subject: Subject, interpreter: str = sys.executable) -> ReportCard:
        made = Carding(self.folder / "kept", {"gguf": interpreter, "onnx": interpreter}, self.quiet)
        return await made.card(subject, self.folder, io.BytesIO())


@pytest.fixture
def bench(tmp_path: Path, models: Path) -> Bench:
    return Bench(tmp_path, models)


@pytest.mark.toolchain
async def test_an_artifact_is_measured_beside_its_parent_which_is_not_measured_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for share in ("ALONE_SHARE", "COMPARED_SHARE"):  # other tests run beside this one
        monkeypatch.setattr(performance, share, 0.0)
    first = await bench.card(bench.subject())
    assert (first.unmeasured, first.parent_unmeasured) == ("", "")
    assert first.performance is not None
    assert first.parent is not None
    assert first.performance.threads == first.parent.threads == carding.THREADS
    assert first.performance.rounds >= 1
    assert first.performance.alone
    # The same weights in 32 bits instead of about 8; both hold the runtime too.
    assert first.memory_saved is not None
    assert -0.2 < first.memory_saved < 0.9
    assert first.prefill_speed_up is not None
    assert first.host.cores > 0
    second = await bench.card(bench.subject())
    assert bench.parents == 1
    assert second.parent == first.parent
    assert second.performance != first.performance
    (kept,) = (bench.folder / "kept").iterdir()
    kept.write_text("{")
    other = dataclasses.replace(bench.subject(), origin=Origin("e" * 64))
    await asyncio.gather(bench.card(bench.subject()), bench.card(other))
    assert bench.parents == 3, "what cannot be read is measured again, and so is what belongs to another source"
    monkeypatch.setattr(performance, "ALONE_SHARE", 2.0)
    for parents in (4, 5):
        await bench.card(dataclasses.replace(other, toolchain={"gguf": "2"}))
        assert bench.parents == parents, "figures of a disturbed run are not kept"


@pytest.mark.toolchain
async def test_what_is_not_measured_here_says_why(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = dataclasses.replace(bench.subject(), parent=None, no_parent="it is unquantised itself")
    lonely = await bench.card(subject)
    assert lonely.performance is not None
    assert (lonely.parent, lonely.parent_unmeasured) == (None, "it is unquantised itself")

    elsewhere = dataclasses.replace(subject, recipe=make("onnx", "int4", {"provider": "cuda"}))
    assert (await bench.card(elsewhere)).unmeasured == "made for cuda, which is not measured on this host"

    broken = dataclasses.replace(subject, artifact=tmp_path / "broken")
    broken.artifact.mkdir()
    (broken.artifact / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    card = await bench.card(broken)
    assert card.performance is None
    assert card.unmeasured.startswith("engine xllamacpp ")

    monkeypatch.setattr(carding, "MEMORY_BYTES", 1 << 60)
    assert "bytes of memory to be served" in (await bench.card(subject)).unmeasured
    assert not psutil.Process().children(recursive=True)


@pytest.mark.toolchain
async def test_a_parent_that_does_not_run_leaves_the_artifacts_own_figures(bench: Bench, tmp_path: Path) -> None:
    @contextlib.asynccontextmanager
    async def broken() -> AsyncIterator[Path]:
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "model.gguf").write_bytes(b"GGUF")
        yield tmp_path / "broken"

    card = await bench.card(dataclasses.replace(bench.subject(), parent=broken))
    assert card.performance is not None
    assert card.parent_unmeasured.startswith("unquantised: engine xllamacpp ")


async def test_a_missing_engine_is_on_the_card(bench: Bench, tmp_path: Path) -> None:
    bare = tmp_path / "python"
    bare.write_text("#!/bin/sh\necho '{}'\n")
    bare.chmod(0o755)
    card = await bench.card(bench.subject(), str(bare))
    assert "pip install 'edgewright[gguf]'" in card.unmeasured
    assert json.loads(card.encode())["performance"] is None


async def test_timing_comes_when_nobody_builds_and_holds_those_who_would() -> None:
    quiet, told = Quiet(), list[str]()
    first_may_end, begun = asyncio.Event(), asyncio.Event()

    async def build(name: str, end: asyncio.Event | None) -> None:
        async with quiet.busy():
            told.append(f"{name} builds")
            if end:
                await end.wait()

    async def time_it(end: asyncio.Event) -> None:
        async with quiet.alone() as alone:
            told.append(f"alone: {alone}")
            begun.set()
            await end.wait()
            told.append("timed")

    timed = asyncio.Event()
    first = asyncio.create_task(build("first", first_may_end))
    await asyncio.sleep(0)
    timing = asyncio.create_task(time_it(timed))
    await asyncio.sleep(0)
    assert told == ["first builds"]
    first_may_end.set()
    await first
    await begun.wait()
    second = asyncio.create_task(build("second", None))
    for _ in range(10):
        await asyncio.sleep(0)
    assert told == ["first builds", "alone: True"]
    timed.set()
    await asyncio.gather(timing, second)
    assert told == ["first builds", "alone: True", "timed", "second builds"]


async def test_timing_that_waited_in_vain_says_so_and_a_cancelled_one_holds_nobody() -> None:
    quiet = Quiet(patience_s=0.01)
    async with quiet.busy(), quiet.alone() as alone:
        assert not alone
    waiting = asyncio.create_task(_alone(Quiet()))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with quiet.busy():
        await asyncio.sleep(0)
    async with quiet.alone() as alone:
        assert alone


async def _alone(quiet: Quiet) -> None:
    async with quiet.busy(), quiet.alone():
        raise EngineFailed("it cannot be alone beside itself")
