"""Writes the file that carries a release to a device without a network (contract carried.py), as it comes in."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from edgewright_contract import block_index, bundle, carried, digest, durable
from edgewright_contract.block_index import BlockIndexError
from edgewright_contract.bundle import BundleError
from edgewright_contract.carried import CarriedError, Head
from edgewright_contract.v1 import operator_pb2

_DAMAGED: Final = "this is not what the release names; an apply of the manifest that made it mends the store"


class NotCarried(Exception):
    """What came is not what it was said to be. The text says why; nothing is left of the file."""


def write(
    out: Path,
    parts: Iterable[operator_pb2.ExportPart],
    mandate: bytes,
    *,
    device: str,
    profile: str,
    say: Callable[[int, int], None] = lambda done, of: None,
) -> Head:
    """Write `out`, whole and durable, of what `Fleet.export_release` brings, and check every block. `mandate`: signed,
    or empty when it is carried beside. For `device` or for `profile`. `say` hears the bytes that came, and of how many.

    Raises NotCarried, OSError, and what reading `parts` raises.
    """
    coming = iter(parts)
    said = next(coming).head
    head = Head(
        fleet=said.fleet,
        device=device,
        profile=profile,
        release=said.release,
        artifact=said.artifact,
        block_index=said.block_index,
        base=said.base,
        mandate_bytes=len(mandate),
        bundle_bytes=said.bundle_bytes,
        index_bytes=said.index_bytes,
        blocks=said.blocks,
        content_bytes=said.content_bytes,
    )
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            _write(file, head, mandate, _Incoming(part.data for part in coming), say)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, out)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    durable.sync_folder(out.parent)
    return head


def _write(file: BinaryIO, head: Head, mandate: bytes, coming: _Incoming, say: Callable[[int, int], None]) -> None:
    start = head.encode()
    try:
        carried.parse_head(start[carried.START_BYTES :])
        listed, index_data = coming.take(head.bundle_bytes), coming.take(head.index_bytes)
        if (digest.of_bytes(listed), digest.of_bytes(index_data)) != (head.artifact, head.block_index):
            raise NotCarried(f"artifact {head.artifact[:12]}: {_DAMAGED}")
        index = block_index.parse(index_data, bundle.parse(listed))
        bits = coming.take(head.bits_bytes)
        if len(index.blocks) != head.blocks:
            raise NotCarried(f"{head.blocks} blocks were announced, the index has {len(index.blocks)}")
    except (CarriedError, BundleError, BlockIndexError) as error:
        raise NotCarried(f"the controller sends what no device would read: {error}") from error
    for part in (start, mandate, listed, index_data, bits):
        file.write(part)
    done = 0
    for block in carried.carried(index.blocks, bits):
        data = coming.take(block.size)
        if hashlib.sha256(data).digest() != block.sha256:
            raise NotCarried(f"{block.path}, block {block.index}: {_DAMAGED}")
        file.write(data)
        done += block.size
        say(done, head.content_bytes)
    if done != head.content_bytes or not coming.is_over():
        raise NotCarried(f"{done:,} bytes came, {head.content_bytes:,} were announced")


class _Incoming:
    """A stream of pieces, read by lengths; holds one piece more than what is asked for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._have = pieces, bytearray()

    def take(self, size: int) -> bytes:
        """The next bytes. Raises NotCarried when there are fewer."""
        while len(self._have) < size:
            piece = next(self._pieces, None)
            if piece is None:
                raise NotCarried("the controller ended before all had come; export it again")
            self._have += piece
        taken = bytes(self._have[:size])
        del self._have[:size]
        return taken

    def is_over(self) -> bool:
        """Whether nothing more comes."""
        return not self._have and next(self._pieces, None) is None
