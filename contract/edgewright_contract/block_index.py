"""How an artifact's files are cut into blocks of at most 1 MiB, for fetching and for checking each piece.

The index is separate from the bundle, so cutting differently changes no artifact's identity. A device
accepts an index only by the sha256 that the signed target gives, and only if it fits its bundle. Blocks
are numbered from 0 through all files in the bundle's order; an empty file has none. Where the cuts lie is
the controller's own affair; a device takes blocks of any size up to the limit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from edgewright_contract.bundle import Bundle, BundleFile
from edgewright_contract.v1 import bundle_pb2

FORMAT: Final = 1
MAX_BLOCK_BYTES: Final = 1 << 20
MAX_INDEX_BYTES: Final = 64 << 20


class BlockIndexError(ValueError):
    """The bytes are not an index of this bundle."""


@dataclass(frozen=True)
class Block:
    """One block: its number, file, position in the file, size in bytes, sha256 (32 bytes)."""

    index: int
    path: str
    offset: int
    size: int
    sha256: bytes


@dataclass(frozen=True)
class BlockIndex:
    """All blocks of one bundle, in order; `blocks[n].index == n`."""

    bundle: str
    blocks: tuple[Block, ...]


def equal_sizes(file: BundleFile) -> Iterator[int]:
    """Blocks of 1 MiB, and what is left."""
    for start in range(0, file.size, MAX_BLOCK_BYTES):
        yield min(MAX_BLOCK_BYTES, file.size - start)


def cut(bundle: Bundle, folder: Path, sizes: Callable[[BundleFile], Iterable[int]] = equal_sizes) -> bytes:
    """The encoded index of `bundle`, whose files stand below `folder`.

    `sizes`: a file's blocks, in bytes, each from 1 to 1 MiB, which add up to the file. Reads one block at a time.
    Raises BlockIndexError when a file is not what the bundle says, OSError.
    """
    message = bundle_pb2.BlockIndex(format=FORMAT, bundle_sha256=bytes.fromhex(bundle.digest))
    for file in bundle.files:
        blocks, whole, left = message.files.add(), hashlib.sha256(), file.size
        digests = bytearray()
        with open(folder / file.path, "rb") as source:
            for size in sizes(file):
                data = source.read(size)
                if len(data) != size:
                    break
                digests += hashlib.sha256(data).digest()
                blocks.sizes.append(size)
                whole.update(data)
                left -= size
            longer = source.read(1)
        if left != 0 or longer or whole.hexdigest() != file.sha256:
            raise BlockIndexError(f"{file.path}: changed since it was bundled")
        blocks.sha256s = bytes(digests)
    return message.SerializeToString(deterministic=True)


def parse(data: bytes, bundle: Bundle) -> BlockIndex:
    """The index in `data`, checked against `bundle`. Raises BlockIndexError."""
    if len(data) > MAX_INDEX_BYTES:
        raise BlockIndexError(f"{len(data)} bytes; an index has at most {MAX_INDEX_BYTES}")
    try:
        message = bundle_pb2.BlockIndex.FromString(data)
    except DecodeError as error:
        raise BlockIndexError(f"not a block index: {error}") from error
    if message.format != FORMAT:
        raise BlockIndexError(f"block index format {message.format}; this version reads {FORMAT}")
    if message.bundle_sha256.hex() != bundle.digest:
        raise BlockIndexError("the index is of another bundle")
    if len(message.files) != len(bundle.files):
        raise BlockIndexError(f"{len(message.files)} files in the index, {len(bundle.files)} in the bundle")
    return BlockIndex(bundle.digest, tuple(_blocks(message, bundle)))


def _blocks(message: bundle_pb2.BlockIndex, bundle: Bundle) -> Iterator[Block]:
    number = 0
    for file, cuts in zip(bundle.files, message.files, strict=True):
        if len(cuts.sha256s) != 32 * len(cuts.sizes) or sum(cuts.sizes) != file.size:
            raise BlockIndexError(f"{file.path}: the blocks do not add up to the file")
        offset = 0
        for position, size in enumerate(cuts.sizes):
            if not 1 <= size <= MAX_BLOCK_BYTES:
                raise BlockIndexError(f"{file.path}: block of {size} bytes")
            sha256 = cuts.sha256s[32 * position : 32 * position + 32]
            yield Block(number, file.path, offset, size, sha256)
            number += 1
            offset += size
