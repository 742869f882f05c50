"""Artifacts from a folder on this device, a stick for example: a block source like the line to the controller.

    FOLDER/objects/<sha256>             bundle and block index documents
    FOLDER/artifacts/<bundle>/…         the artifact's files

That is how a controller's store stands on its disk, too. Nothing here is believed: documents and blocks are what was
signed, or count as not there. So a bad stick costs another way or another try, and never a hold on a good release.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.link import MAX_PART_BYTES, BlockSource, LinkDown
from edgewright_contract import block_index, bundle, digest
from edgewright_contract.block_index import MAX_INDEX_BYTES, Block, BlockIndex, BlockIndexError
from edgewright_contract.bundle import MAX_BUNDLE_BYTES, BundleError
from edgewright_contract.v1 import agent_pb2

_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


class ContentMissing(Exception):
    """The folder does not have it, or not as it was signed. The text names the file."""


class ContentFolder:
    """One folder with artifacts in it, read when it is asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index: tuple[str, str, BlockIndex] | None = None

    def fetch_object(self, sha256: str, length: int) -> bytes:
        """The document of this digest and at most this length. Raises ContentMissing."""
        path = self._folder / "objects" / sha256
        with _opened(path) as file:
            data = file.read(length + 1)
        if len(data) > length or digest.of_bytes(data) != sha256:
            raise ContentMissing(f"{path} is not what was signed; copy it anew")
        return data

    def fetch_blocks(
        self, name: str, indexed: str, ranges: Sequence[tuple[int, int]], cancellation: Cancellation
    ) -> Iterator[agent_pb2.BlockPart]:
        """Pieces of whole, checked blocks. Raises ContentMissing before or between blocks, Cancelled."""
        blocks = self._blocks(name, indexed).blocks
        for first, count in ranges:
            for block in blocks[first : first + count]:
                cancellation.check()
                data = self._read(name, block)
                for start in range(0, len(data), MAX_PART_BYTES):
                    part = data[start : start + MAX_PART_BYTES]
                    yield agent_pb2.BlockPart(index=block.index, encoding=agent_pb2.ENCODING_RAW, data=part)

    def _read(self, name: str, block: Block) -> bytes:
        path = self._folder / "artifacts" / name / block.path
        with _opened(path) as file:
            file.seek(block.offset)
            data = file.read(block.size)
        if hashlib.sha256(data).digest() != block.sha256:
            raise ContentMissing(f"{path}: block {block.index} is not what was signed; copy the file anew")
        return data

    def _blocks(self, name: str, indexed: str) -> BlockIndex:
        if self._index is None or self._index[:2] != (name, indexed):
            try:
                files = bundle.parse(self.fetch_object(name, MAX_BUNDLE_BYTES))
                index = block_index.parse(self.fetch_object(indexed, MAX_INDEX_BYTES), files)
            except (BundleError, BlockIndexError) as error:
                raise ContentMissing(f"{self._folder}: artifact {name[:12]}: {error}") from error
            self._index = name, indexed, index
        return self._index[2]


class LocalFirst:
    """A block source that looks into a folder first, where there is one, and asks `line` for what is not there."""

    def __init__(self, line: BlockSource) -> None:
        self._line = line
        # For messages about what was wrong: only what came by the line gets as far as to be found wrong.
        self.name = line.name
        self._folder: ContentFolder | None = None

    def look_in(self, folder: Path | None) -> None:
        """From the next call on, look into this folder; None: into none."""
        self._folder = ContentFolder(folder) if folder is not None else None

    def fetch_object(self, sha256: str, length: int, cancellation: Cancellation) -> bytes:
        """See link.BlockSource."""
        folder = self._folder
        if folder is None:
            return self._line.fetch_object(sha256, length, cancellation)
        try:
            return folder.fetch_object(sha256, length)
        except ContentMissing as missing:
            with _and_not_in_the_folder(missing):
                return self._line.fetch_object(sha256, length, cancellation)

    def fetch_blocks(
        self,
        bundle: str,
        block_index: str,
        ranges: Sequence[tuple[int, int]],
        max_bytes: int,
        cancellation: Cancellation,
        *,
        accepted: Sequence[agent_pb2.Encoding] = (agent_pb2.ENCODING_RAW,),
        bases: Sequence[str] = (),
    ) -> Generator[agent_pb2.BlockPart, None, None]:
        """See link.BlockSource. What the folder lacks in the middle is asked of the line by the next call."""
        folder = self._folder

        def ask() -> Generator[agent_pb2.BlockPart, None, None]:
            return self._line.fetch_blocks(
                bundle, block_index, ranges, max_bytes, cancellation, accepted=accepted, bases=bases
            )

        if folder is None:
            yield from ask()
            return
        came = False
        try:
            for part in folder.fetch_blocks(bundle, block_index, ranges, cancellation):
                yield part
                came = True
        except ContentMissing as missing:
            if not came:
                with _and_not_in_the_folder(missing):
                    yield from ask()


@contextmanager
def _and_not_in_the_folder(missing: ContentMissing) -> Iterator[None]:
    """Where the line is down too, both reasons are told: at a site without a network, the first is the one."""
    try:
        yield
    except LinkDown as error:
        raise LinkDown(f"{missing}; and {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with os.fdopen(os.open(path, _FLAGS), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ContentMissing(f"{path} is no file")
            yield file
    except OSError as error:
        raise ContentMissing(f"{path}: {error.strerror or error}") from error
