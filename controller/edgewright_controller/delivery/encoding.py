"""The fewest bytes that a block comes in. Pure; `block_coding.decode` takes it back."""

from __future__ import annotations

from typing import Final

import zstandard

from edgewright_contract import block_coding
from edgewright_contract.v1 import agent_pb2

# Higher levels took ten times as long for one to five bytes in a hundred, and on differences sometimes gave more.
LEVEL: Final = 3
# What saves less is not worth the disk that it is kept on, nor the work of taking it back.
MIN_SAVING: Final = 0.03

Encoded = tuple[int, bytes]


def smallest(block: bytes, near: bytes | None, beside: bytes | None) -> Encoded | None:
    """(the wire's encoding, bytes) against `near` as dictionary or `beside` byte by byte, whichever is smaller; plain
    zstd when both are None. None when nothing saves MIN_SAVING."""
    found: list[Encoded] = []
    if beside is not None:
        difference = block_coding.subtracted(block, beside)
        found.append((agent_pb2.ENCODING_SUB_ZSTD, zstandard.ZstdCompressor(level=LEVEL).compress(difference)))
    if near is not None:
        dictionary = zstandard.ZstdCompressionDict(near, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        compressor = zstandard.ZstdCompressor(level=LEVEL, dict_data=dictionary)
        found.append((agent_pb2.ENCODING_DICT_ZSTD, compressor.compress(block)))
    if not found:
        found.append((agent_pb2.ENCODING_ZSTD, zstandard.ZstdCompressor(level=LEVEL).compress(block)))
    best = min(found, key=lambda one: len(one[1]))
    return best if len(best[1]) <= (1 - MIN_SAVING) * len(block) else None
