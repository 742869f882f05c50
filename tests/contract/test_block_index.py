"""The block index fits its bundle to the byte, or is refused."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewright_contract import block_index, bundle
from edgewright_contract.block_index import MAX_BLOCK_BYTES, BlockIndexError
from edgewright_contract.v1 import bundle_pb2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    chance = random.Random(7)
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.gguf").write_bytes(chance.randbytes(2 * MAX_BLOCK_BYTES + 5))
    (tmp_path / "empty.txt").write_bytes(b"")
    (tmp_path / "sub" / "b.json").write_bytes(b"{}")
    return tmp_path


def test_blocks_cover_every_file_in_order(folder: Path) -> None:
    made = bundle.from_folder(folder)
    index = block_index.parse(block_index.cut(made, folder), made)
    assert [(b.index, b.path, b.offset, b.size) for b in index.blocks] == [
        (0, "a.gguf", 0, MAX_BLOCK_BYTES),
        (1, "a.gguf", MAX_BLOCK_BYTES, MAX_BLOCK_BYTES),
        (2, "a.gguf", 2 * MAX_BLOCK_BYTES, 5),
        (3, "sub/b.json", 0, 2),
    ]
    for block in index.blocks:
        data = (folder / block.path).read_bytes()[block.offset : block.offset + block.size]
        assert hashlib.sha256(data).digest() == block.sha256


def test_cutting_twice_gives_the_same_bytes(folder: Path) -> None:
    made = bundle.from_folder(folder)
    assert block_index.cut(made, folder) == block_index.cut(made, folder)


def test_a_file_that_changed_after_bundling_is_not_indexed(folder: Path) -> None:
    made = bundle.from_folder(folder)
    (folder / "sub" / "b.json").write_bytes(b"[]")
    with pytest.raises(BlockIndexError, match="changed since it was bundled"):
        block_index.cut(made, folder)


def drop_a_digest(m: bundle_pb2.BlockIndex) -> None:
    m.files[0].sha256s = m.files[0].sha256s[32:]


def lie_about_a_size(m: bundle_pb2.BlockIndex) -> None:
    m.files[0].sizes[2] += 1


def add_an_empty_block(m: bundle_pb2.BlockIndex) -> None:
    m.files[0].sizes.append(0)
    m.files[0].sha256s += bytes(32)


def one_huge_block(m: bundle_pb2.BlockIndex) -> None:
    size = sum(m.files[0].sizes)
    del m.files[0].sizes[:]
    m.files[0].sizes.append(size)
    m.files[0].sha256s = bytes(32)


def of_another_bundle(m: bundle_pb2.BlockIndex) -> None:
    m.bundle_sha256 = bytes(32)


def one_file_less(m: bundle_pb2.BlockIndex) -> None:
    del m.files[0]


def of_the_future(m: bundle_pb2.BlockIndex) -> None:
    m.format = 2


@pytest.mark.parametrize(
    "lie",
    [
        drop_a_digest,
        lie_about_a_size,
        add_an_empty_block,
        one_huge_block,
        of_another_bundle,
        one_file_less,
        of_the_future,
    ],
)
def test_an_index_that_does_not_fit_is_refused(folder: Path, lie: Callable[[bundle_pb2.BlockIndex], None]) -> None:
    made = bundle.from_folder(folder)
    data = block_index.cut(made, folder)
    assert block_index.parse(data, made)
    message = bundle_pb2.BlockIndex.FromString(data)
    lie(message)
    with pytest.raises(BlockIndexError):
        block_index.parse(message.SerializeToString(), made)


def test_rubbish_is_refused(folder: Path) -> None:
    made = bundle.from_folder(folder)
    with pytest.raises(BlockIndexError, match="not a block index"):
        block_index.parse(b"\xff\xff\xff", made)
