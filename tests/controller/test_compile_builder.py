"""The builder with a prebuilt artifact, which needs no toolchain: what is checked before, after, and left behind."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path

import pytest

from edgewright_controller.compile import stages, toolchain
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.builder import Builder, BuildFailed, Progress
from edgewright_controller.compile.executor import WAITS
from edgewright_controller.compile.recipe import make
from edgewright_controller.compile.source import Source, inspect, inspect_prebuilt
from edgewright_controller.compile.stages import BuildLimits
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.compile.toolchain import ToolchainMissing
from tests import model_files
from tests.controller import checkpoints

PREBUILT = make("gguf", "prebuilt")


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "state" / "store")


@pytest.fixture
def builder(tmp_path: Path, store: ArtifactStore) -> Builder:
    return Builder(store, tmp_path / "state", toolchain.default_interpreters(), threads=1)


@pytest.fixture
def artifact(tmp_path: Path) -> Source:
    file = tmp_path / "tuned.gguf"
    file.write_bytes(model_files.gguf(bytes(2_000_000)))
    return inspect_prebuilt(file, "gguf")


def _left(state: Path) -> list[str]:
    return sorted(p.relative_to(state).as_posix() for p in state.rglob("*") if ".building" in p.as_posix())


async def test_a_prebuilt_artifact_is_shipped_as_it_is(
    builder: Builder, store: ArtifactStore, artifact: Source, tmp_path: Path
) -> None:
    said: list[Progress] = []
    built = await builder.build(artifact, PREBUILT, build_key(artifact.digest, PREBUILT, {}), said.append)
    assert built.bundle == artifact.digest
    assert (store.path(built.bundle) / "model.gguf").read_bytes() == (tmp_path / "tuned.gguf").read_bytes()
    assert (tmp_path / "tuned.gguf").stat().st_mode & 0o200, "the original stays the operator's"
    assert said[-1].done == 1.0
    assert _left(tmp_path / "state") == []


async def test_a_state_folder_may_be_named_from_where_one_stands(
    store: ArtifactStore, artifact: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    builder = Builder(store, Path("state"), toolchain.default_interpreters(), threads=1)
    monkeypatch.chdir(tmp_path / "state")
    built = await builder.build(artifact, PREBUILT, build_key(artifact.digest, PREBUILT, {}), lambda _: None)
    assert built.log.is_absolute()
    assert built.log.parent == tmp_path / "state" / "builds"


async def test_a_source_that_changes_during_its_build_gives_no_artifact(
    builder: Builder, store: ArtifactStore, artifact: Source, tmp_path: Path
) -> None:
    def change(_progress: Progress) -> None:
        (tmp_path / "tuned.gguf").write_bytes(b"GGUF other")

    with pytest.raises(BuildFailed, match=r"tuned\.gguf: changed while it was built from"):
        await builder.build(artifact, PREBUILT, build_key(artifact.digest, PREBUILT, {}), change)
    assert not store.has(artifact.digest)
    assert _left(tmp_path / "state") == []


async def test_a_disk_that_is_too_small_is_told_before_anything_is_written(
    builder: Builder, artifact: Source, tmp_path: Path
) -> None:
    huge = dataclasses.replace(artifact, files=(dataclasses.replace(artifact.files[0], size=1 << 60),))
    with pytest.raises(BuildFailed, match=r"needs about 1,152,921,504,\S+ bytes of disk, \S+ are free"):
        await builder.build(huge, PREBUILT, build_key(huge.digest, PREBUILT, {}))
    assert _left(tmp_path / "state") == []


async def test_a_key_of_other_toolchain_versions_is_refused(builder: Builder, artifact: Source) -> None:
    with pytest.raises(BuildFailed, match="plan again"):
        await builder.build(artifact, PREBUILT, "0" * 64)


async def test_a_missing_toolchain_is_told_before_the_build(tmp_path: Path, store: ArtifactStore) -> None:
    source = inspect(checkpoints.write(tmp_path / "model"))
    builder = Builder(store, tmp_path / "state", {"mlx": "/nowhere/python"})
    with pytest.raises(ToolchainMissing, match="/nowhere/python"):
        await builder.build(source, make("mlx", "4bit"), "0" * 64)


async def test_what_a_crash_left_is_swept_when_the_builder_opens(
    builder: Builder, store: ArtifactStore, tmp_path: Path
) -> None:
    half = tmp_path / "state" / "builds" / ".building-x" / "artifact"
    half.mkdir(parents=True)
    (tmp_path / "state" / "intermediates" / ".half.gguf").write_bytes(b"x")
    Builder(store, tmp_path / "state", toolchain.default_interpreters())
    assert _left(tmp_path / "state") == []
    assert list((tmp_path / "state" / "intermediates").iterdir()) == []


def _crashing(folder: Path) -> str:
    """A Python that answers questions, and aborts in the middle of any script."""
    script = folder / "python"
    script.write_text(
        f'#!/bin/sh\nif [ "$1" = -I ]; then exec {sys.executable} "$@"; fi\n'
        "echo tensor 7 of 9 >&2\necho GGML_ASSERT failed >&2\nkill -ABRT $$\n"
    )
    script.chmod(0o755)
    return str(script)


async def test_a_tool_that_crashes_leaves_its_last_lines_and_nothing_else(tmp_path: Path, store: ArtifactStore) -> None:
    source = inspect(checkpoints.write(tmp_path / "model"))
    builder = Builder(store, tmp_path / "state", {"gguf": _crashing(tmp_path)})
    recipe = make("gguf", "Q8_0")
    key = build_key(source.digest, recipe, builder.versions("gguf"))
    with pytest.raises(BuildFailed) as caught:
        await builder.build(source, recipe, key)
    assert caught.value.stage == "gguf_convert"
    assert "SIGABRT" in caught.value.reason
    assert caught.value.last_lines == ("tensor 7 of 9", "GGML_ASSERT failed")
    assert "GGML_ASSERT failed" in caught.value.log.read_text()
    assert _left(tmp_path / "state") == []
    assert list((tmp_path / "state" / "intermediates").iterdir()) == []


async def test_a_cancelled_build_leaves_nothing(builder: Builder, artifact: Source, tmp_path: Path) -> None:
    started = asyncio.Event()
    building = asyncio.create_task(
        builder.build(artifact, PREBUILT, build_key(artifact.digest, PREBUILT, {}), lambda _: started.set())
    )
    await started.wait()
    building.cancel()
    with pytest.raises(asyncio.CancelledError):
        await building
    assert _left(tmp_path / "state") == []


def _python_of(folder: Path, script: str) -> str:
    """A Python that answers questions, and runs `script`, of a shell, for any stage."""
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nif [ "$1" = -I ]; then exec {sys.executable} "$@"; fi\n{script}\n')
    python.chmod(0o755)
    return str(python)


async def test_a_disk_that_fills_up_in_the_middle_is_told_as_that_and_nothing_stays(
    tmp_path: Path, store: ArtifactStore
) -> None:
    source = inspect(checkpoints.write(tmp_path / "model"))
    # /dev/full answers each write as a full disk does.
    python = _python_of(tmp_path, "LC_ALL=C dd if=/dev/zero of=/dev/full count=1")
    builder = Builder(store, tmp_path / "state", {"gguf": python})
    recipe = make("gguf", "Q8_0")
    with pytest.raises(BuildFailed, match=r"state/builds: the disk is full; make room, or serve with --state"):
        await builder.build(source, recipe, build_key(source.digest, recipe, builder.versions("gguf")))
    assert _left(tmp_path / "state") == []
    assert list((tmp_path / "state" / "intermediates").iterdir()) == []


async def test_builds_wait_for_memory_and_go_on_when_one_of_them_fails(tmp_path: Path, store: ArtifactStore) -> None:
    source = inspect(checkpoints.write(tmp_path / "model"))
    python = _python_of(tmp_path, "exit 3")
    builder = Builder(store, tmp_path / "state", {"gguf": python, "mlx": python}, limits=BuildLimits(memory_bytes=1))
    recipes = [make("gguf", "Q8_0"), make("mlx", "bf16"), make("mlx", "fp32")]
    said: list[Progress] = []
    building = [
        builder.build(source, recipe, build_key(source.digest, recipe, builder.versions(recipe.runtime)), said.append)
        for recipe in recipes
    ]
    outcomes = await asyncio.gather(*building, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [BuildFailed] * 3
    assert len([one for one in said if one.say == WAITS]) == 2


def test_a_long_request_is_cut_in_the_log() -> None:
    shown = stages.described({"source": "/a", "ftype": "Q4_0", "chunks": [list(range(4000))]})
    assert shown.startswith("ftype=Q4_0, chunks=[[0, 1, 2")
    assert shown.endswith("…")
    assert len(shown) < 300
