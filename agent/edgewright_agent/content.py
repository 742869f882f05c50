"""Artifacts from a folder or a file on this device, a stick for example: a block source like the controller's line.

    FOLDER/objects/<sha256>             bundle and block index documents
    FOLDER/artifacts/<bundle>/…         the artifact's files

That is how a controller's store stands on its disk, too; a file is as `carried_file` has it. Nothing here is believed:
documents and blocks are what was signed, or count as not there. So a bad stick costs another way or another try, and
never a hold on a good release.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgewright_agent.cancellation import Cancellation
from edgewright_agent.carried_file import CarriedFile, ContentMissing, opened
from edgewright_agent.link import MAX_PART_BYTES, BlockSource, LinkDown
from edgewright_contract import block_index, bundle, digest
from edgewright_contract.block_index import MAX_INDEX_BYTES, Block, BlockIndex, BlockIndexError
from edgewright_contract.bundle import MAX_BUNDLE_BYTES, BundleError
from edgewright_contract.v1 import agent_pb2


class ContentFolder:
    """One folder with artifacts in it, read when it is asked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index: tuple[str, str, BlockIndex] | None = None

    def fetch_object(self, sha256: str, length: int) -> bytes:
        """The document of this digest and at most this length. Raises ContentMissing."""
        path = self._folder / "objects" / sha256
        with opened(path) as file:
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
        with opened(path) as file:
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
    """A block source that looks into a folder or file first, if one was brought, and asks `line` for what it lacks."""

    def __init__(self, line: BlockSource) -> None:
        self._line = line
        # For messages about what was wrong: only what came by the line gets as far as to be found wrong.
        self.name = line.name
        self._path: Path | None = None
        self._content: ContentFolder | CarriedFile | None = None

    def look_in(self, path: Path | None) -> None:
        """From the next call on, look into this folder or file; None: into none."""
        self._path, self._content = path, None

    def _brought(self) -> ContentFolder | CarriedFile | None:
        """What lies there now; a stick may come back, or another in its place."""
        path = self._path
        if path is None:
            return None
        kind = ContentFolder if path.is_dir() else CarriedFile
        content = self._content
        if type(content) is not kind:
            content = self._content = kind(path)
        return content

    def fetch_object(self, sha256: str, length: int, cancellation: Cancellation) -> bytes:
        """See link.BlockSource."""
        folder = self._brought()
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
        folder = self._brought()

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
