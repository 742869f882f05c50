"""Streams of blocks: whole, in order, bounded, and honest about what is not there."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import BinaryIO

import pytest

from edgewright_contract import block_index, bundle
from edgewright_contract.block_index import Block, BlockIndex
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.delivery.forms import PART_BYTES
from edgewright_controller.service.blocks import BadRange, Blocks, NotHere

MIB = 1 << 20


class FolderStore:
    """One artifact in a folder, behind the reader's two methods."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundle = bundle.from_folder(folder)
        index = block_index.cut(self.bundle, folder)
        self.index: BlockIndex = block_index.parse(index, self.bundle)
        self.objects = {hashlib.sha256(data).hexdigest(): data for data in (self.bundle.encode(), index)}
        self.index_digest = hashlib.sha256(index).hexdigest()

    def open_object(self, sha256: str) -> BinaryIO:
        import io

        return io.BytesIO(self.objects[sha256])

    def read_block(self, bundle: str, block: Block) -> bytes:
        with open(self.folder / block.path, "rb") as file:
            file.seek(block.offset)
            return file.read(block.size)

    def read_cached(self, bundle: str, block: Block) -> bytes | None:
        return None


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    (tmp_path / "model.gguf").write_bytes(bytes(range(256)) * (10 * MIB // 256) + b"tail")
    (tmp_path / "tokenizer.json").write_bytes(b"{}")
    return FolderStore(tmp_path)


def wanted(store: FolderStore, *ranges: tuple[int, int], max_bytes: int = 0) -> agent_pb2.FetchBlocksRequest:
    return agent_pb2.FetchBlocksRequest(
        bundle=store.bundle.digest,
        block_index=store.index_digest,
        ranges=[agent_pb2.BlockRange(first=first, count=count) for first, count in ranges],
        max_bytes=max_bytes,
    )


async def fetched(blocks: Blocks, request: agent_pb2.FetchBlocksRequest) -> dict[int, bytes]:
    parts: dict[int, bytes] = {}
    async for part in blocks.blocks(request):
        assert len(part.data) <= PART_BYTES
        message = agent_pb2.BlockPart.FromString(part.encoded())
        assert message.index == part.head.index
        parts[message.index] = parts.get(message.index, b"") + message.data
    return parts


async def test_the_blocks_asked_for_come_whole_and_in_order(store: FolderStore) -> None:
    got = await fetched(Blocks(store), wanted(store, (9, 3), (0, 1)))
    assert list(got) == [9, 10, 11, 0]
    for number, data in got.items():
        assert hashlib.sha256(data).digest() == store.index.blocks[number].sha256


async def test_a_stream_stops_at_the_bytes_allowed_but_always_gets_on(store: FolderStore) -> None:
    assert list(await fetched(Blocks(store), wanted(store, (0, 12), max_bytes=3 * MIB))) == [0, 1, 2]
    assert list(await fetched(Blocks(store), wanted(store, (0, 12), max_bytes=1))) == [0]


async def test_ranges_outside_the_index_are_refused(store: FolderStore) -> None:
    assert len(await fetched(Blocks(store), wanted(store, (0, 12)))) == 12
    for ranges in ([(0, 13)], [(12, 1)], [(0, 0)], [], [(0, 1)] * 10_001):
        with pytest.raises(BadRange):
            await fetched(Blocks(store), wanted(store, *ranges))


async def test_what_is_not_here_is_not_found_and_an_index_of_something_else_is_refused(store: FolderStore) -> None:
    blocks = Blocks(store)
    assert b"".join([part async for part in blocks.object(store.bundle.digest)]) == store.bundle.encode()
    with pytest.raises(NotHere):
        [part async for part in blocks.object("0" * 64)]
    with pytest.raises(BadRange):
        [part async for part in blocks.object("../../etc/passwd")]
    request = wanted(store, (0, 1))
    request.block_index = store.bundle.digest
    with pytest.raises(BadRange, match="is not an index"):
        await fetched(blocks, request)
    request.bundle = "1" * 64
    with pytest.raises(NotHere):
        await fetched(blocks, request)


async def test_a_file_that_vanished_from_the_store_is_not_found(store: FolderStore) -> None:
    blocks = Blocks(store)
    assert await fetched(blocks, wanted(store, (0, 1)))
    (store.folder / "model.gguf").unlink()
    with pytest.raises(NotHere, match=r"model\.gguf of artifact"):
        await fetched(blocks, wanted(store, (0, 1)))
