"""Artifacts from one file that was carried here (contract carried.py): a block source, as a folder is.

Every read is bounded by the file's own size, which the head must fit to the byte. Documents and blocks are what was
signed, or count as not there.
"""

from __future__ import annotations

import hashlib
import os
import stat
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.link import MAX_PART_BYTES
from edgewright_contract import block_index, bundle, carried, digest
from edgewright_contract.block_index import Block, BlockIndexError
from edgewright_contract.bundle import BundleError
from edgewright_contract.carried import CarriedError, Head, Layout
from edgewright_contract.v1 import agent_pb2

_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class ContentMissing(Exception):
    """What was carried here does not have it, or not as it was signed. The text names the file."""


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, to read. Raises ContentMissing, also for what fails while it is read."""
    try:
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ContentMissing(f"{path} is no file")
            yield file
    except OSError as error:
        raise ContentMissing(f"{path}: {error.strerror or error}") from error


@dataclass(frozen=True)
class _Blocks:
    """The artifact's blocks, and where each lies in the file; 0: it does not."""

    all: tuple[Block, ...]
    offsets: array[int]


class CarriedFile:
    """One file, read when it is asked."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_head: tuple[Head, Layout] | None = None
        self._read_blocks: _Blocks | None = None

    @property
    def head(self) -> Head:
        """What the file says that it is. Raises ContentMissing."""
        return self._opening()[0]

    def mandate(self) -> bytes:
        """The mandate in it, unchecked; empty for none. Raises ContentMissing."""
        head, layout = self._opening()
        return self._part(layout.mandate, head.mandate_bytes)

    def check(self, say: Callable[[int, int], None]) -> None:
        """Read all of it, and see that every document and every block is what it is named by. `say` hears the bytes
        that were looked at, and of how many, after each block. Raises ContentMissing."""
        head, blocks = self.head, self._blocks()
        done = 0
        with opened(self._path) as file:
            for block in blocks.all:
                if blocks.offsets[block.index]:
                    self._read(file, block, blocks)
                    done += block.size
                    say(done, head.content_bytes)

    def fetch_object(self, sha256: str, length: int) -> bytes:
        """The document of this digest and at most this length. Raises ContentMissing."""
        head, layout = self._opening()
        places = {
            head.artifact: (layout.bundle, head.bundle_bytes),
            head.block_index: (layout.index, head.index_bytes),
        }
        if sha256 not in places:
            raise ContentMissing(f"{self._path} is of artifact {head.artifact[:12]}, and has no document {sha256[:12]}")
        offset, size = places[sha256]
        data = self._part(offset, size) if size <= length else b""
        if digest.of_bytes(data) != sha256:
            raise ContentMissing(f"{self._path}: document {sha256[:12]} is not what was signed; copy the file anew")
        return data

    def fetch_blocks(
        self, name: str, indexed: str, ranges: Sequence[tuple[int, int]], cancellation: Cancellation
    ) -> Iterator[agent_pb2.BlockPart]:
        """Pieces of whole, checked blocks. Raises ContentMissing before or between blocks, Cancelled."""
        head = self.head
        if (name, indexed) != (head.artifact, head.block_index):
            raise ContentMissing(f"{self._path} is of artifact {head.artifact[:12]}, not of {name[:12]}")
        blocks = self._blocks()
        with opened(self._path) as file:
            for first, count in ranges:
                for block in blocks.all[first : first + count]:
                    cancellation.check()
                    data = self._read(file, block, blocks)
                    for start in range(0, len(data), MAX_PART_BYTES):
                        part = data[start : start + MAX_PART_BYTES]
                        yield agent_pb2.BlockPart(index=block.index, encoding=agent_pb2.ENCODING_RAW, data=part)

    def _read(self, file: BinaryIO, block: Block, blocks: _Blocks) -> bytes:
        offset = blocks.offsets[block.index]
        if not offset:
            since = f"has only what changed since artifact {self.head.base[:12]}"
            raise ContentMissing(f"{self._path} {since}, and not block {block.index}")
        file.seek(offset)
        data = file.read(block.size)
        if hashlib.sha256(data).digest() != block.sha256:
            raise ContentMissing(f"{self._path}: block {block.index} is not what was signed; copy the file anew")
        return data

    def _opening(self) -> tuple[Head, Layout]:
        if self._read_head is None:
            with opened(self._path) as file:
                try:
                    length = carried.head_bytes(file.read(carried.START_BYTES))
                    head = carried.parse_head(file.read(length))
                except CarriedError as error:
                    raise ContentMissing(f"{self._path}: {error}") from error
                found, layout = os.fstat(file.fileno()).st_size, carried.layout(head, length)
            if found != layout.end:
                cut = "was cut off, or is not copied whole" if found < layout.end else "has something behind its end"
                raise ContentMissing(f"{self._path}: {found:,} bytes, {layout.end:,} expected: it {cut}")
            self._read_head = head, layout
        return self._read_head

    def _part(self, offset: int, size: int) -> bytes:
        with opened(self._path) as file:
            file.seek(offset)
            return file.read(size)

    def _blocks(self) -> _Blocks:
        if self._read_blocks is None:
            head, layout = self._opening()
            try:
                files = bundle.parse(self.fetch_object(head.artifact, head.bundle_bytes))
                index = block_index.parse(self.fetch_object(head.block_index, head.index_bytes), files)
            except (BundleError, BlockIndexError) as error:
                raise ContentMissing(f"{self._path}: artifact {head.artifact[:12]}: {error}") from error
            bits = self._part(layout.bits, head.bits_bytes)
            if len(index.blocks) != head.blocks or len(bits) != head.bits_bytes:
                counted = f"{head.blocks} blocks in its head, {len(index.blocks)} in its index"
                raise ContentMissing(f"{self._path}: {counted}")
            offsets, at = array("Q", bytes(8 * head.blocks)), layout.blocks
            for block in carried.carried(index.blocks, bits):
                offsets[block.index] = at
                at += block.size
            if at != layout.end:
                raise ContentMissing(f"{self._path}: its blocks do not add up to what its head says")
            self._read_blocks = _Blocks(index.blocks, offsets)
        return self._read_blocks
