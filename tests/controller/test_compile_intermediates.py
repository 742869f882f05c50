"""What recipes share on their way: made once, held while it is used, removed beyond the budget, a file or a folder."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright_controller.compile.intermediates import Intermediates, copy


class Making:
    """Makes a file or a folder, and counts."""

    def __init__(self, files: tuple[str, ...] = (), size: int = 1000) -> None:
        self.files, self.size, self.times = files, size, 0

    async def __call__(self, path: Path) -> None:
        self.times += 1
        await asyncio.sleep(0)
        if not self.files:
            path.write_bytes(bytes(self.size))
            return
        path.mkdir()
        for name in self.files:
            (path / name).write_bytes(bytes(self.size))


@pytest.mark.parametrize("files", [(), ("model.onnx", "model.onnx.data")])
async def test_two_that_want_the_same_wait_for_one_making(tmp_path: Path, files: tuple[str, ...]) -> None:
    shared, making = Intermediates(tmp_path), Making(files)

    async def use() -> None:
        async with shared.hold("a.thing", making) as path:
            assert path.exists()

    await asyncio.gather(use(), use())
    assert making.times == 1
    assert shared.has("a.thing")


@pytest.mark.parametrize("files", [(), ("model.onnx", "model.onnx.data")])
async def test_nothing_stays_of_a_making_that_failed(tmp_path: Path, files: tuple[str, ...]) -> None:
    shared, making = Intermediates(tmp_path), Making(files)

    async def fail(path: Path) -> None:
        await making(path)
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        async with shared.hold("a.thing", fail):
            pass
    assert list(tmp_path.iterdir()) == []


def _cut(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(500)


@pytest.mark.parametrize(
    "harm",
    [
        lambda thing: _cut(thing / "model.onnx.data"),
        lambda thing: (thing / "model.onnx").unlink(),
        lambda thing: (thing / "stranger").write_bytes(b"x"),
        lambda thing: (thing.parent / f"{thing.name}.sizes").unlink(),
        lambda thing: (thing.parent / f"{thing.name}.sizes").write_bytes(b'{"model.onnx": 10'),
    ],
    ids=["cut short", "a file less", "a file more", "no record", "half a record"],
)
async def test_what_is_broken_is_noticed_and_made_again(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    making = Making(("model.onnx", "model.onnx.data"))
    shared = Intermediates(tmp_path)
    async with shared.hold("a.thing", making) as path:
        pass
    shared = Intermediates(tmp_path)  # a restart alone makes nothing again
    assert shared.has("a.thing")
    async with shared.hold("a.thing", making):
        assert making.times == 1
    harm(path)
    assert not shared.has("a.thing")
    async with shared.hold("a.thing", making):
        assert making.times == 2
        assert {file.name: file.stat().st_size for file in path.iterdir()} == dict.fromkeys(making.files, 1000)
    async with shared.hold("a.thing", making):
        assert making.times == 2


async def test_a_file_that_is_cut_short_or_that_whoever_asks_finds_unsound_is_made_again(tmp_path: Path) -> None:
    shared, making = Intermediates(tmp_path), Making()
    sound = True

    async def hold() -> int:
        async with shared.hold("a.gguf", making, lambda _path: sound) as path:
            assert path.stat().st_size == 1000
        return making.times

    assert [await hold(), await hold()] == [1, 1]
    _cut(tmp_path / "a.gguf")
    assert [await hold(), await hold()] == [2, 2]
    sound = False
    assert await hold() == 3


async def test_beyond_the_budget_the_longest_unused_goes_but_never_what_is_held(tmp_path: Path) -> None:
    shared = Intermediates(tmp_path, budget_bytes=2500)
    folder = Making(("one", "two"))
    async with shared.hold("oldest", folder):
        async with shared.hold("newest", Making()):
            pass
        assert shared.has("oldest")  # three thousand bytes in all, but it is in use
    assert not shared.has("oldest")
    assert shared.has("newest")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["newest", "newest.sizes"]


def test_what_a_crash_left_is_swept_folders_too(tmp_path: Path) -> None:
    (tmp_path / ".half.onnx").mkdir()
    (tmp_path / ".half.onnx" / "model.onnx").write_bytes(b"x")
    (tmp_path / ".half.gguf").write_bytes(b"x")
    Intermediates(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_outlives_its_intermediate_and_shares_nothing_with_it(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "model.onnx").write_bytes(b"graph")
    copy(tmp_path / "a", tmp_path / "out")
    copy(tmp_path / "a" / "model.onnx", tmp_path / "single")
    assert (tmp_path / "out" / "model.onnx").stat().st_nlink == (tmp_path / "single").stat().st_nlink == 1
    (tmp_path / "a" / "model.onnx").unlink()
    assert (tmp_path / "out" / "model.onnx").read_bytes() == (tmp_path / "single").read_bytes() == b"graph"
