"""A file that was carried here: enough for an artifact, believed never, and refused in one line when it is damaged."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.carried_file import CarriedFile, ContentMissing
from edgewright_agent.content import LocalFirst
from edgewright_agent.link import LinkDown
from edgewright_contract import block_index, bundle, carried
from edgewright_contract.block_index import Block
from tests.agent import echo
from tests.agent.test_content import Line, _pulled
from tests.carried_files import target_of, written


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """An artifact of several blocks."""
    made = echo.artifact(tmp_path / "made")
    (made / "model.gguf").write_bytes(b"GGUF\x03\x00\x00\x00" + bytes(16) + os.urandom(3 << 20))
    return made


def blocks(files: Path) -> tuple[Block, ...]:
    listed = bundle.from_folder(files)
    return block_index.parse(block_index.cut(listed, files), listed).blocks


def source(line: Line, file: Path) -> LocalFirst:
    made = LocalFirst(line)
    made.look_in(file)
    return made


def test_a_file_is_enough(tmp_path: Path, files: Path) -> None:
    file = written(tmp_path / "it.edgewright", files, b"the mandate")
    said: list[tuple[int, int]] = []
    CarriedFile(file).check(lambda done, of: said.append((done, of)))
    total = sum(block.size for block in blocks(files))
    assert said[-1] == (total, total)
    assert CarriedFile(file).mandate() == b"the mandate"

    line = Line()
    target = target_of(files, block_index.cut(bundle.from_folder(files), files))
    folder = _pulled(tmp_path, source(line, file), target)
    assert (folder / "model.gguf").read_bytes() == (files / "model.gguf").read_bytes()
    assert line.asked == 0


def test_what_was_left_out_comes_from_elsewhere_or_is_told(tmp_path: Path, files: Path) -> None:
    left_out = blocks(files)[1]
    file = written(tmp_path / "it.edgewright", files, base="d" * 64, without={left_out.sha256})
    CarriedFile(file).check(lambda done, of: None)
    target = target_of(files, block_index.cut(bundle.from_folder(files), files))

    def ask(line: Line, number: int) -> None:
        next(source(line, file).fetch_blocks(target.bundle, target.block_index, [(number, 1)], 1 << 20, Cancellation()))

    ask(Line(), 0)
    with pytest.raises(LinkDown, match=r"only what changed since artifact dddddddddddd, .*; and controller there"):
        ask(Line(), left_out.index)
    whole = written(tmp_path / "whole.edgewright", files)
    line = Line(source(Line(), whole))
    assert (_pulled(tmp_path, source(line, file), target) / "model.gguf").is_file()
    assert line.asked > 0


def test_a_stick_that_comes_back_is_read_again(tmp_path: Path, files: Path) -> None:
    file = written(tmp_path / "it.edgewright", files)
    target = target_of(files, block_index.cut(bundle.from_folder(files), files))
    away = file.rename(tmp_path / "away")
    brought = source(Line(), file)
    with pytest.raises(LinkDown, match=r"it\.edgewright: No such file"):
        brought.fetch_object(target.bundle, target.bundle_length, Cancellation())
    away.rename(file)
    assert len(brought.fetch_object(target.bundle, target.bundle_length, Cancellation())) == target.bundle_length


HARMS: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda data: data[:-1],
    "cut in the head": lambda data: data[:40],
    "cut to nothing": lambda data: b"",
    "longer": lambda data: data + b"\0",
    "magic": lambda data: b"EWCARRY2" + data[8:],
    "length of the head": lambda data: data[:8] + b"\xff\xff\xff\xff" + data[12:],
    "a length that lies": lambda data: data.replace(b'"index_bytes":', b'"index_bytes":1', 1),
    "another device's path": lambda data: data.replace(b'"device":"jetson-01"', b'"device":"../../../"', 1),
    "last byte": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
}


@pytest.mark.attack("carried file that was cut, flipped, or lies about sizes")
@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_file_is_refused_in_one_line_that_names_it(tmp_path: Path, files: Path, harm: str) -> None:
    file = written(tmp_path / "it.edgewright", files)
    CarriedFile(file).check(lambda done, of: None)
    file.write_bytes(HARMS[harm](file.read_bytes()))
    with pytest.raises(ContentMissing, match=r"^[^\n]*it\.edgewright[^\n]*$"):
        CarriedFile(file).check(lambda done, of: None)


@pytest.mark.attack("carried file with a flipped bit in every part")
def test_no_flipped_bit_goes_through(tmp_path: Path, files: Path) -> None:
    file = written(tmp_path / "it.edgewright", files, b"the mandate, which others check")
    data = file.read_bytes()
    head = CarriedFile(file).head
    place = carried.layout(head, carried.head_bytes(data[: carried.START_BYTES]))
    documents = range(place.bundle, place.blocks, 97)
    for at in [*range(12), *documents, *range(place.blocks, place.end, 200_003)]:
        file.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        with pytest.raises(ContentMissing):
            CarriedFile(file).check(lambda done, of: None)


@pytest.mark.parametrize("what", ["folder", "pipe", "nothing"])
def test_what_is_no_file_is_refused(tmp_path: Path, what: str) -> None:
    path = tmp_path / "it.edgewright"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    with pytest.raises(ContentMissing, match=r"it\.edgewright"):
        CarriedFile(path).check(lambda done, of: None)


def test_a_file_of_another_artifact_is_no_help(tmp_path: Path, files: Path) -> None:
    file = written(tmp_path / "it.edgewright", files)
    with pytest.raises(ContentMissing, match="has no document"):
        CarriedFile(file).fetch_object("e" * 64, 100)
    with pytest.raises(ContentMissing, match="not of eeeeeeeeeeee"):
        next(CarriedFile(file).fetch_blocks("e" * 64, "f" * 64, [(0, 1)], Cancellation()))
