"""Sending artifacts: small documents by digest, and blocks of a bundle by index.

The controller never holds more than one block (1 MiB) of a stream in memory, and of one that is sent as it is one part.
It waits for no disk on the event loop, and trusts the device to check what it gets: a flipped byte in the store is
caught there, where a flipped byte on the wire would be too.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import replace
from typing import BinaryIO, Final, Protocol

from edgewright_contract import block_index, bundle, digest
from edgewright_contract.block_index import Block, BlockIndex
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.compile.store import StoreError
from edgewright_controller.delivery import forms
from edgewright_controller.delivery.forms import PART_BYTES, Ask, BadAsk, Forms
from edgewright_controller.delivery.part import Part

MAX_CALL_BYTES: Final = 256 << 20
MAX_RANGES: Final = 10_000


class ArtifactReader(Protocol):
    """What sending needs of the artifact store."""

    def open_object(self, sha256: str, /) -> BinaryIO:
        """A bundle or block index document. Raises KeyError, StoreError, OSError when it is not here."""

    def read_block(self, artifact: str, block: Block, /) -> bytes:
        """The bytes of one block as they stand on the disk. Raises StoreError, OSError."""

    def read_cached(self, artifact: str, block: Block, /) -> bytes | None:
        """The same without waiting for a disk; None when that cannot be. Raises StoreError."""


class NotHere(LookupError):
    """This controller does not hold what was asked for."""


class BadRange(ValueError):
    """The request is not one that a device of ours would make."""


class Blocks:
    """Streams documents and blocks out of an artifact store. How many at once, and to whom, is decided elsewhere."""

    def __init__(
        self,
        store: ArtifactReader,
        *,
        packed: Forms | None = None,
        lacking: Callable[[Ask], None] = lambda ask: None,
        sending: Callable[[str], None] = lambda artifact: None,
    ) -> None:
        """`packed` has blocks in fewer bytes; without it all are sent as they are. `lacking` is told of each request
        by a device whose artifacts nothing was compared with; it must not block. `sending` is told
        of the artifact, with each block that is sent."""
        self._store, self._packed, self._lacking, self._sending = store, packed, lacking, sending
        self._index = functools.lru_cache(maxsize=16)(self._read_index)

    async def object(self, sha256: str) -> AsyncIterator[bytes]:
        """The document named by its sha256, in parts. Raises NotHere, BadRange."""
        if not digest.is_sha256(sha256):
            raise BadRange(f"{sha256[:80]!r} is not a sha256")
        file = await asyncio.to_thread(self._open, sha256)
        try:
            while part := await asyncio.to_thread(file.read, PART_BYTES):
                yield part
        finally:
            file.close()

    async def blocks(self, request: agent_pb2.FetchBlocksRequest) -> AsyncIterator[Part]:
        """The blocks asked for, in order, whole blocks only; it may stop early, after `max_bytes`.

        At least one block comes, so that a caller always gets on. Raises NotHere, BadRange.
        """
        try:
            ask = forms.read(request)
        except BadAsk as error:
            raise BadRange(str(error)) from error
        index = await asyncio.to_thread(self._index, ask.wanted, ask.block_index)
        numbers = _numbers(request.ranges, len(index.blocks))
        if self._packed is not None and await asyncio.to_thread(self._packed.lacks, ask):
            self._lacking(ask)
        packed = await asyncio.to_thread(self._helping, ask)
        left = min(request.max_bytes or MAX_CALL_BYTES, MAX_CALL_BYTES)
        first = True
        for number in numbers:
            block = index.blocks[number]
            if block.size > left and not first:
                return
            first, left = False, left - block.size
            self._sending(ask.wanted)
            if packed is not None and (form := await asyncio.to_thread(packed.find, ask, number)) is not None:
                for part in forms.parts(number, form):
                    yield part
                continue
            for piece in _pieces(block):
                # Nothing here keeps the bytes while they are sent: of many that stall, each holds one part.
                yield forms.raw(number, await self._bytes(ask.wanted, piece))

    def _open(self, sha256: str) -> BinaryIO:
        try:
            return self._store.open_object(sha256)
        except (LookupError, StoreError, OSError) as error:
            raise NotHere(f"no document {sha256} here") from error

    def _helping(self, ask: Ask) -> Forms | None:
        """The packs, if any of them has something for this device."""
        return self._packed if self._packed is not None and self._packed.any(ask) else None

    async def _bytes(self, bundle_digest: str, piece: Block) -> bytes:
        """From memory at once; what the disk has to bring, in a thread."""
        try:
            found = self._store.read_cached(bundle_digest, piece)
        except StoreError as error:
            raise NotHere(str(error)) from error
        return found if found is not None else await asyncio.to_thread(self._read, bundle_digest, piece)

    def _read(self, bundle_digest: str, block: Block) -> bytes:
        try:
            return self._store.read_block(bundle_digest, block)
        except (LookupError, StoreError) as error:
            raise NotHere(f"{block.path} of artifact {bundle_digest} cannot be read here: {error}") from error
        except OSError as error:
            # Where this machine keeps it is not the device's business.
            reason = (error.strerror or "").lower()
            raise NotHere(f"{block.path} of artifact {bundle_digest} cannot be read here: {reason}") from error

    def _read_index(self, bundle_digest: str, index_digest: str) -> BlockIndex:
        with self._open(bundle_digest) as file:
            document = file.read(bundle.MAX_BUNDLE_BYTES + 1)
        with self._open(index_digest) as file:
            data = file.read(block_index.MAX_INDEX_BYTES + 1)
        try:
            return block_index.parse(data, bundle.parse(document))
        except (bundle.BundleError, block_index.BlockIndexError) as error:
            raise BadRange(f"{index_digest} is not an index of artifact {bundle_digest}: {error}") from error


def _pieces(block: Block) -> Iterator[Block]:
    """A block's bytes in parts."""
    for start in range(0, block.size, PART_BYTES):
        yield replace(block, offset=block.offset + start, size=min(PART_BYTES, block.size - start))


def _numbers(ranges: Sequence[agent_pb2.BlockRange], count: int) -> Iterator[int]:
    if not ranges or len(ranges) > MAX_RANGES:
        raise BadRange(f"{len(ranges)} ranges; a request has from 1 to {MAX_RANGES}")
    for asked in ranges:
        if asked.count == 0 or asked.first + asked.count > count:
            raise BadRange(f"blocks {asked.first} to {asked.first + asked.count - 1}: the index has {count}")
    return (number for asked in ranges for number in range(asked.first, asked.first + asked.count))
