"""How a block of at most 1 MiB comes in fewer bytes: compressed, or as what it differs in from bytes of another one.

Whatever comes out counts only once its sha256 is the signed one; here it is made sure that nothing large is made of
something small first. The differences need no numpy: a block is one big integer, whose bytes are added side by side.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import zstandard

from edgewright_contract.block_index import MAX_BLOCK_BYTES
from edgewright_contract.v1 import agent_pb2

# Encodings that are against bytes of another artifact.
BASED: Final = frozenset({agent_pb2.ENCODING_DICT_ZSTD, agent_pb2.ENCODING_SUB_ZSTD})
COMPRESSED: Final = BASED | {agent_pb2.ENCODING_ZSTD}
# A block, and as much again that stands before it as its dictionary.
MAX_WINDOW_BYTES: Final = 2 * MAX_BLOCK_BYTES


class BlockCodingError(ValueError):
    """The bytes are no such encoding of a block of that size. The message says why, and names no file."""


def decode(encoding: int, data: bytes, size: int, base: bytes = b"") -> bytes:
    """The block of `size` bytes that `data` stands for, to be checked by its sha256.

    `encoding` is one of the wire's; `base` are the bytes that it is against, for DICT_ZSTD and SUB_ZSTD. Holds no more
    than a few times `size`, whatever `data` says. Raises BlockCodingError.
    """
    if not 1 <= size <= MAX_BLOCK_BYTES:
        raise BlockCodingError(f"a block of {size} bytes; it has from 1 to {MAX_BLOCK_BYTES}")
    if encoding == agent_pb2.ENCODING_RAW:
        if len(data) != size:
            raise BlockCodingError(f"{len(data)} bytes of a raw block of {size}")
        return data
    if encoding not in COMPRESSED:
        raise BlockCodingError(f"encoding {encoding}, which this version does not know")
    if len(data) >= size:
        raise BlockCodingError(f"{len(data)} encoded bytes for a block of {size}")
    if encoding == agent_pb2.ENCODING_ZSTD:
        return _unpacked(data, size)
    if not 1 <= len(base) <= MAX_BLOCK_BYTES:
        raise BlockCodingError(f"a base of {len(base)} bytes; it has from 1 to {MAX_BLOCK_BYTES}")
    if encoding == agent_pb2.ENCODING_DICT_ZSTD:
        return _unpacked(data, size, zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT))
    if len(base) != size:
        raise BlockCodingError(f"a base of {len(base)} bytes for a block of {size}")
    return added(base, _unpacked(data, size))


def added(base: bytes, difference: bytes) -> bytes:
    """(base + difference) mod 256, byte by byte; both of one length, or ValueError."""
    size = _same_length(base, difference)
    low, high = _bits(size)
    one, other = int.from_bytes(base, "little"), int.from_bytes(difference, "little")
    # Seven bits of each byte carry into its own eighth; the eighths are added without a carry.
    return (((one & low) + (other & low)) ^ ((one ^ other) & high)).to_bytes(size, "little")


def subtracted(block: bytes, base: bytes) -> bytes:
    """(block - base) mod 256, byte by byte: what `added` takes back. Both of one length, or ValueError."""
    size = _same_length(block, base)
    low, high = _bits(size)
    one, other = int.from_bytes(block, "little"), int.from_bytes(base, "little")
    # An eighth bit set in each byte is there to be borrowed from.
    return (((one | high) - (other & low)) ^ ((one ^ other ^ high) & high)).to_bytes(size, "little")


def _unpacked(data: bytes, size: int, dictionary: zstandard.ZstdCompressionDict | None = None) -> bytes:
    """What one zstd frame holds, when that is `size` bytes by its own header."""
    try:
        frame = zstandard.get_frame_parameters(data)
        if frame.content_size != size:
            raise BlockCodingError(f"a frame of {frame.content_size} bytes for a block of {size}")
        if frame.window_size > MAX_WINDOW_BYTES:
            raise BlockCodingError(f"a frame that wants a window of {frame.window_size} bytes")
        if frame.dict_id:  # a raw base has none
            raise BlockCodingError(f"a frame with dictionary {frame.dict_id}")
        block = zstandard.ZstdDecompressor(dict_data=dictionary).decompress(data, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise BlockCodingError(f"not zstd: {error}") from error
    if len(block) != size:
        raise BlockCodingError(f"{len(block)} bytes came out for a block of {size}")
    return block


def _same_length(one: bytes, other: bytes) -> int:
    if len(one) != len(other):
        raise ValueError(f"{len(one)} and {len(other)} bytes cannot be added byte by byte")
    return len(one)


@lru_cache(maxsize=2)  # nearly all blocks are of one size
def _bits(size: int) -> tuple[int, int]:
    """The low seven bits of each of `size` bytes, and the eighth."""
    return int.from_bytes(b"\x7f" * size, "little"), int.from_bytes(b"\x80" * size, "little")
