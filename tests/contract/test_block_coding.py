"""A block comes out of fewer bytes as it was, or not at all."""

from __future__ import annotations

import random
import struct

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from edgewright_contract import block_coding
from edgewright_contract.block_coding import BlockCodingError, added, decode, subtracted
from edgewright_contract.block_index import MAX_BLOCK_BYTES
from edgewright_contract.v1.agent_pb2 import (
    ENCODING_DICT_ZSTD,
    ENCODING_RAW,
    ENCODING_SUB_ZSTD,
    ENCODING_UNSPECIFIED,
    ENCODING_ZSTD,
)

CHANCE = random.Random(6)
BASE = CHANCE.randbytes(40_000)
# As a requantised tensor differs: many bytes by a little.
NEAR = bytes((byte + CHANCE.choice((0, 0, 0, 1, 255))) % 256 for byte in BASE)
# As an edited header differs: moved, and a little other.
MOVED = BASE[:10_000] + b"another template" + BASE[10_000:]
TEXT = b"a block of words " * 2_000


def packed(data: bytes, base: bytes | None = None, *, size_told: bool = True) -> bytes:
    dictionary = zstandard.ZstdCompressionDict(base, dict_type=zstandard.DICT_TYPE_RAWCONTENT) if base else None
    return zstandard.ZstdCompressor(level=3, dict_data=dictionary, write_content_size=size_told).compress(data)


def test_a_block_comes_out_of_each_encoding() -> None:
    assert decode(ENCODING_RAW, BASE, len(BASE)) == BASE
    assert decode(ENCODING_ZSTD, packed(TEXT), len(TEXT)) == TEXT
    moved = packed(MOVED, BASE)
    assert len(moved) < 300
    assert decode(ENCODING_DICT_ZSTD, moved, len(MOVED), BASE) == MOVED
    near = packed(subtracted(NEAR, BASE))
    assert len(near) < len(NEAR) / 2
    assert decode(ENCODING_SUB_ZSTD, near, len(NEAR), BASE) == NEAR


def test_a_whole_block_against_a_whole_block() -> None:
    base = random.Random(1).randbytes(MAX_BLOCK_BYTES)
    block = base[-5:] + base[:-5]
    assert decode(ENCODING_DICT_ZSTD, packed(block, base), MAX_BLOCK_BYTES, base) == block
    assert decode(ENCODING_SUB_ZSTD, packed(subtracted(base, base)), MAX_BLOCK_BYTES, base) == base


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), max_size=300))
def test_bytes_are_added_and_subtracted_side_by_side(pairs: list[tuple[int, int]]) -> None:
    one, other = bytes(a for a, _ in pairs), bytes(b for _, b in pairs)
    assert added(one, other) == bytes((a + b) % 256 for a, b in pairs)
    assert subtracted(one, other) == bytes((a - b) % 256 for a, b in pairs)
    assert added(other, subtracted(one, other)) == one


def test_every_pair_of_bytes() -> None:
    one = bytes(a for a in range(256) for _ in range(256))
    other = bytes(b for _ in range(256) for b in range(256))
    assert added(one, other) == bytes((a + b) % 256 for a, b in zip(one, other, strict=True))
    assert subtracted(one, other) == bytes((a - b) % 256 for a, b in zip(one, other, strict=True))


def test_bytes_of_two_lengths_are_not_added() -> None:
    with pytest.raises(ValueError, match="3 and 4 bytes"):
        added(b"abc", b"abcd")
    with pytest.raises(ValueError, match="4 and 3 bytes"):
        subtracted(b"abcd", b"abc")


def wide_window() -> bytes:
    """A frame of len(TEXT) bytes whose header wants a window of 1 GiB."""
    data = packed(TEXT)
    assert data[4] == 0x60  # a single segment, its size in two bytes: such a header has no word for a window
    return data[:4] + bytes([0x80, 20 << 3]) + struct.pack("<I", len(TEXT)) + data[7:]


@pytest.mark.attack("block that decodes into far more than its size")
@pytest.mark.parametrize(
    ("encoding", "data", "size", "base", "why"),
    [
        (ENCODING_ZSTD, packed(bytes(1 << 30)), 1 << 20, b"", "a frame of 1073741824 bytes"),
        (ENCODING_ZSTD, packed(TEXT), len(TEXT) - 1, b"", "a frame of"),
        (ENCODING_ZSTD, packed(TEXT, size_told=False), len(TEXT), b"", "a frame of"),
        (ENCODING_ZSTD, packed(TEXT)[:-1], len(TEXT), b"", "not zstd"),
        (ENCODING_ZSTD, packed(TEXT) + packed(TEXT), len(TEXT), b"", "not zstd"),
        (ENCODING_ZSTD, b"", 5, b"", "not zstd"),
        (ENCODING_ZSTD, b"\x50\x2a\x4d\x18\x00\x00\x00\x00", 50, b"", "a frame of"),
        (ENCODING_ZSTD, wide_window(), len(TEXT), b"", "window"),
        (ENCODING_ZSTD, packed(BASE), len(BASE), b"", "encoded bytes for a block"),
        (ENCODING_ZSTD, packed(TEXT), MAX_BLOCK_BYTES + 1, b"", "a block of"),
        (ENCODING_ZSTD, packed(TEXT), 0, b"", "a block of 0"),
        (ENCODING_RAW, TEXT, len(TEXT) + 1, b"", "of a raw block"),
        (ENCODING_UNSPECIFIED, packed(TEXT), len(TEXT), b"", "encoding 0"),
        (9, packed(TEXT), len(TEXT), b"", "encoding 9"),
        (ENCODING_DICT_ZSTD, packed(MOVED, BASE), len(MOVED), b"", "a base of 0"),
        (ENCODING_DICT_ZSTD, packed(MOVED, BASE), len(MOVED), bytes(MAX_BLOCK_BYTES + 1), "a base of 1048577"),
        (ENCODING_SUB_ZSTD, packed(subtracted(NEAR, BASE)), len(NEAR), BASE[:-1], "a base of 39999"),
    ],
)
def test_what_is_no_block_is_refused(encoding: int, data: bytes, size: int, base: bytes, why: str) -> None:
    assert decode(ENCODING_ZSTD, packed(TEXT), len(TEXT)) == TEXT
    with pytest.raises(BlockCodingError, match=why):
        decode(encoding, data, size, base)


def test_another_base_gives_another_block_or_a_refusal() -> None:
    """Then the sha256 tells; nothing else goes wrong."""
    other = bytes(reversed(BASE))
    for encoding, data, block in (
        (ENCODING_DICT_ZSTD, packed(MOVED, BASE), MOVED),
        (ENCODING_SUB_ZSTD, packed(subtracted(NEAR, BASE)), NEAR),
    ):
        try:
            came = decode(encoding, data, len(block), other)
        except BlockCodingError:
            continue
        assert len(came) == len(block)
        assert came != block


def test_flipped_bytes_never_do_more_than_be_refused() -> None:
    for encoding, good, block in (
        (ENCODING_ZSTD, packed(TEXT), TEXT),
        (ENCODING_DICT_ZSTD, packed(MOVED, BASE), MOVED),
    ):
        refused = 0
        for place in range(len(good)):
            for bit in (1, 0x80):
                data = bytearray(good)
                data[place] ^= bit
                try:
                    assert len(decode(encoding, bytes(data), len(block), BASE)) == len(block)
                except BlockCodingError:
                    refused += 1
        assert refused > len(good) / 4


def test_what_is_against_a_base_is_told_apart() -> None:
    assert block_coding.BASED < block_coding.COMPRESSED
