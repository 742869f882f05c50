"""A folder with artifacts: read first where there is one, believed never, and no reason to give a release up."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.content import LocalFirst
from edgewright_agent.download import pull
from edgewright_agent.fetch_plan import prepare
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.link import LinkDown
from edgewright_agent.slots import Slots
from edgewright_contract import block_index, bundle, digest
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2
from tests.agent import echo


class Line:
    """A line that brings what another folder has, or nothing."""

    name = "controller there:1"

    def __init__(self, behind: LocalFirst | None = None) -> None:
        self.behind, self.asked = behind, 0

    def fetch_object(self, sha256: str, length: int, cancellation: Cancellation) -> bytes:
        self.asked += 1
        if self.behind is None:
            raise LinkDown("controller there:1: unavailable")
        return self.behind.fetch_object(sha256, length, cancellation)

    def fetch_blocks(
        self,
        bundle: str,
        block_index: str,
        ranges: Sequence[tuple[int, int]],
        max_bytes: int,
        cancellation: Cancellation,
        *,
        accepted: Sequence[agent_pb2.Encoding] = (),
        bases: Sequence[str] = (),
    ) -> Generator[agent_pb2.BlockPart, None, None]:
        self.asked += 1
        if self.behind is None:
            raise LinkDown("controller there:1: unavailable")
        yield from self.behind.fetch_blocks(bundle, block_index, ranges, max_bytes, cancellation)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, ImageTarget]:
    """A stick with an artifact of several blocks, and its target."""
    files = echo.artifact(tmp_path / "made")
    (files / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(16) + os.urandom(3 << 20))
    listed = bundle.from_folder(files)
    document, cut = listed.encode(), block_index.cut(listed, files)
    stick = tmp_path / "stick"
    (stick / "objects").mkdir(parents=True)
    for data in (document, cut):
        (stick / "objects" / digest.of_bytes(data)).write_bytes(data)
    shutil.copytree(files, stick / "artifacts" / listed.digest)
    target = ImageTarget(
        "model", "smollm2", "gguf-cpu", "gguf", listed.digest, len(document), digest.of_bytes(cut), len(cut)
    )
    return stick, target


def _source(line: Line, stick: Path | None) -> LocalFirst:
    source = LocalFirst(line)
    source.look_in(stick)
    return source


def _pulled(tmp_path: Path, source: LocalFirst, target: ImageTarget) -> Path:
    (tmp_path / "state").mkdir(exist_ok=True)
    slots, cancellation = Slots(tmp_path / "state"), Cancellation()
    plan = prepare(target, source, slots, reuse=(), reserve=0, cancellation=cancellation)
    journal = DownloadJournal(tmp_path / "state" / "agent.sqlite")
    try:
        return pull(plan, source, slots, journal, progress=lambda done, total: None, cancellation=cancellation)
    finally:
        journal.close()


def test_a_folder_is_enough(tmp_path: Path, made: tuple[Path, ImageTarget]) -> None:
    stick, target = made
    line = Line()
    folder = _pulled(tmp_path, _source(line, stick), target)
    assert (folder / "model.gguf").read_bytes() == (tmp_path / "made" / "model.gguf").read_bytes()
    assert line.asked == 0


def test_without_a_folder_the_line_is_asked(tmp_path: Path, made: tuple[Path, ImageTarget]) -> None:
    stick, target = made
    line = Line(_source(Line(), stick))
    assert _pulled(tmp_path, _source(line, None), target).is_dir()
    assert line.asked > 0


@pytest.mark.parametrize("harm", ["flip", "cut", "remove", "no index", "no folder", "folder for a file", "pipe"])
def test_what_the_folder_lacks_or_has_wrong_comes_by_the_line(
    tmp_path: Path, made: tuple[Path, ImageTarget], harm: str
) -> None:
    stick, target = made
    sound = tmp_path / "sound"
    shutil.copytree(stick, sound)
    weights = stick / "artifacts" / target.bundle / "model.gguf"
    data = weights.read_bytes()
    if harm == "flip":
        weights.write_bytes(data[: 2 << 20] + bytes([data[2 << 20] ^ 1]) + data[(2 << 20) + 1 :])
    elif harm == "cut":
        weights.write_bytes(data[: 2 << 20])
    elif harm == "no index":
        (stick / "objects" / target.block_index).write_bytes(b"rubbish")
    elif harm == "no folder":
        shutil.rmtree(stick)
    else:
        weights.unlink()
        if harm == "folder for a file":
            weights.mkdir()
        elif harm == "pipe":
            os.mkfifo(weights)
    line = Line(_source(Line(), sound))
    folder = _pulled(tmp_path, _source(line, stick), target)
    assert (folder / "model.gguf").read_bytes() == data
    assert line.asked > 0


def test_where_both_fail_both_are_named(tmp_path: Path, made: tuple[Path, ImageTarget]) -> None:
    stick, target = made
    (stick / "objects" / target.bundle).unlink()
    with pytest.raises(LinkDown, match=r"objects/.*No such file.*; and controller there:1: unavailable"):
        _source(Line(), stick).fetch_object(target.bundle, target.bundle_length, Cancellation())
    (stick / "artifacts" / target.bundle / "model.gguf").unlink()
    with pytest.raises(LinkDown, match=r"; and controller there:1: unavailable"):
        next(_source(Line(), stick).fetch_blocks(target.bundle, target.block_index, [(0, 1)], 1 << 20, Cancellation()))
