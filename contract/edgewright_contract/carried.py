"""A file that carries a release to a device without a network: what is asked of a controller, by hand.

    "EWCARRY1"    magic
    length        of the head, 4 bytes, little-endian
    head          canonical JSON (`Head`)
    mandate       the signed mandate (mandate.py), or nothing: then it lies beside
    bundle        the artifact's list of files
    block index   as it was signed
    bits          one a block, from the lowest bit of the first byte: whether the block is in this file
    blocks        the bytes of those that are, one after the other

There are no names of files in it, and nothing in it is followed: a device makes files by the bundle that was signed for
it. The head is not believed. It says where things lie, within bounds, and must fit the file to the byte; for whom the
file is meant, so that the wrong stick is told at once; everything else is checked by what the mandate signs.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from edgewright_contract import canonical, digest, names
from edgewright_contract.block_index import MAX_INDEX_BYTES, Block
from edgewright_contract.bundle import MAX_BUNDLE_BYTES, MAX_TOTAL_BYTES
from edgewright_contract.mandate import MAX_FILE_BYTES as MAX_MANDATE_BYTES

MAGIC: Final = b"EWCARRY1"
FORMAT: Final = 1
SUFFIX: Final = ".edgewright"
MAX_HEAD_BYTES: Final = 16 << 10
# An index has at least 33 bytes for each block.
MAX_BLOCKS: Final = MAX_INDEX_BYTES // 33
_LENGTH: Final = struct.Struct("<I")
START_BYTES: Final = len(MAGIC) + _LENGTH.size


class CarriedError(ValueError):
    """The bytes are not such a file. The text says why."""


@dataclass(frozen=True)
class Head:
    """For whom a file is and what is in it: digests, lengths in bytes, the number of the artifact's blocks, and the
    bytes of those that are in it. One of `device` and `profile` is empty. `base`: the artifact that the device must
    hold, as the file lacks the blocks that are in that; empty for none."""

    fleet: str
    device: str
    profile: str
    release: str
    artifact: str
    block_index: str
    base: str
    mandate_bytes: int
    bundle_bytes: int
    index_bytes: int
    blocks: int
    content_bytes: int

    @property
    def bits_bytes(self) -> int:
        """Of the bits that say which blocks are there."""
        return (self.blocks + 7) // 8

    def encode(self) -> bytes:
        """How the file begins, up to the mandate."""
        document = canonical.encode({"format": FORMAT, **asdict(self)})
        return MAGIC + _LENGTH.pack(len(document)) + document


@dataclass(frozen=True)
class Layout:
    """Where the parts of a file begin, in bytes, and where the file ends."""

    mandate: int
    bundle: int
    index: int
    bits: int
    blocks: int
    end: int


def head_bytes(start: bytes) -> int:
    """The head's length, from the first START_BYTES bytes of a file. Raises CarriedError."""
    if len(start) < START_BYTES or not start.startswith(MAGIC):
        raise CarriedError("not a file that `edgewright bundle export` wrote, or one of another format")
    (length,) = _LENGTH.unpack(start[len(MAGIC) :])
    if not 1 <= length <= MAX_HEAD_BYTES:
        raise CarriedError(f"its head says that it has {length:,} bytes; it has at most {MAX_HEAD_BYTES:,}")
    return int(length)


def parse_head(data: bytes) -> Head:
    """The head. Raises CarriedError."""
    try:
        document = json.loads(data)
        if document.pop("format") != FORMAT:
            raise CarriedError(f"of another format than {FORMAT}; this version is too old for it, or too new")
        head = Head(**document)
    except CarriedError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CarriedError("its head is damaged") from error
    _check_texts(head)
    bounds = {
        "mandate_bytes": (0, MAX_MANDATE_BYTES),
        "bundle_bytes": (1, MAX_BUNDLE_BYTES),
        "index_bytes": (1, MAX_INDEX_BYTES),
        "blocks": (0, MAX_BLOCKS),
        "content_bytes": (0, MAX_TOTAL_BYTES),
    }
    for name, (least, most) in bounds.items():
        value: Any = getattr(head, name)
        if type(value) is not int or not least <= value <= most:
            raise CarriedError(f"its head says {name} {str(value)[:40]}; that is from {least} to {most:,}")
    return head


def _check_texts(head: Head) -> None:
    if not all(isinstance(getattr(head, field.name), str) for field in fields(head) if field.type == "str"):
        raise CarriedError("its head is damaged")
    whom = head.device or head.profile
    if not names.is_id(head.fleet) or not names.is_id(whom) or bool(head.device) == bool(head.profile):
        raise CarriedError("its head does not say for whom it is")
    digests = [head.release, head.artifact, head.block_index, *([head.base] if head.base else [])]
    if not all(digest.is_sha256(one) for one in digests):
        raise CarriedError("its head names something that is not a sha256")


def layout(head: Head, head_length: int) -> Layout:
    """Where the parts lie."""
    mandate = START_BYTES + head_length
    bundle = mandate + head.mandate_bytes
    index = bundle + head.bundle_bytes
    bits = index + head.index_bytes
    blocks = bits + head.bits_bytes
    return Layout(mandate, bundle, index, bits, blocks, blocks + head.content_bytes)


def bits_of(numbers: Iterable[int], blocks: int) -> bytes:
    """The bits for the blocks of these numbers, of so many."""
    bits = bytearray((blocks + 7) // 8)
    for number in numbers:
        bits[number // 8] |= 1 << number % 8
    return bytes(bits)


def carried(blocks: Iterable[Block], bits: bytes) -> Iterator[Block]:
    """Those of an index's blocks that are in the file, in the order in which they lie there."""
    return (block for block in blocks if bits[block.index // 8] >> block.index % 8 & 1)
