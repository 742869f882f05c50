"""Blocks put together from the parts in which a source sends them, and the bytes that differences are against.

Sizes and places are checked before anything is read or kept: a source may say what it likes, and no more than one
block is ever held for it. Whether a block is right, its sha256 says, which is the caller's to look at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgewright_agent.held_blocks import HeldFiles
from edgewright_agent.link import BadAnswer
from edgewright_agent.slots import ArtifactDamaged, Slots
from edgewright_contract import block_coding
from edgewright_contract.block_coding import BlockCodingError
from edgewright_contract.block_index import MAX_BLOCK_BYTES, Block
from edgewright_contract.bundle import Bundle
from edgewright_contract.v1 import agent_pb2

RAW_ONLY: Final = (agent_pb2.ENCODING_RAW,)
MAX_BASES: Final = 8


@dataclass(frozen=True)
class Arrived:
    """One block as it came: `data` in one of the wire's encodings, against the bytes at `base`, if any."""

    index: int
    encoding: agent_pb2.Encoding
    data: bytes
    base: agent_pb2.BlockBase | None = None


class Undecodable(Exception):
    """A block came in a form from which it cannot be had on this device. The text says which form, and why."""


def encodings(bases: Sequence[str]) -> tuple[agent_pb2.Encoding, ...]:
    """What can be read here, when these bundles may be come against."""
    based = (agent_pb2.ENCODING_DICT_ZSTD, agent_pb2.ENCODING_SUB_ZSTD) if bases else ()
    return (agent_pb2.ENCODING_RAW, agent_pb2.ENCODING_ZSTD, *based)


def whole_blocks(
    parts: Iterator[agent_pb2.BlockPart], wanted: Mapping[int, Block], accepted: Collection[int], source: str
) -> Iterator[Arrived]:
    """Whole blocks of those `wanted`, by number, in order. Never holds more than one. Raises BadAnswer."""
    current, data = -1, bytearray()
    first, size = agent_pb2.BlockPart(), 0
    for part in parts:
        if part.index != current:
            if data or part.index <= current or part.index not in wanted:
                raise BadAnswer(f"{source}: block {part.index} was not asked for, or not now")
            current, first = part.index, part
            size = _announced(part, wanted[current].size, accepted, source)
        elif not data:
            raise BadAnswer(f"{source}: block {part.index} goes on after its end")
        elif part.encoding not in (agent_pb2.ENCODING_UNSPECIFIED, first.encoding):
            raise BadAnswer(f"{source}: block {part.index} goes on in another encoding")
        data += part.data
        if len(data) > size:
            raise BadAnswer(f"{source}: block {part.index} is longer than its {size} bytes")
        if len(data) == size:
            base = first.base if first.encoding in block_coding.BASED else None
            yield Arrived(current, first.encoding or agent_pb2.ENCODING_RAW, bytes(data), base)
            data = bytearray()


def _announced(part: agent_pb2.BlockPart, block_size: int, accepted: Collection[int], source: str) -> int:
    """How many bytes the block has on the wire, by its first part. Raises BadAnswer."""
    if part.encoding in (agent_pb2.ENCODING_UNSPECIFIED, agent_pb2.ENCODING_RAW):
        return block_size
    if part.encoding not in accepted:
        raise BadAnswer(f"{source}: block {part.index} in encoding {part.encoding}, which was not asked for")
    if not 1 <= part.encoded_size < block_size:
        raise BadAnswer(f"{source}: block {part.index} of {block_size} bytes comes in {part.encoded_size}")
    return part.encoded_size


class Bases:
    """The artifacts that blocks may come against, by their place in a request's `bases`. `close` when done."""

    def __init__(self, slots: Slots, names: Sequence[str]) -> None:
        self._slots, self._names = slots, names
        self._bundles: dict[str, Bundle] = {}
        self._files = HeldFiles(slots)

    def decoded(self, arrived: Arrived, block: Block) -> bytes:
        """Bytes of the block's size, not checked otherwise. Raises Undecodable."""
        form = agent_pb2.Encoding.Name(arrived.encoding).removeprefix("ENCODING_")
        try:
            base = b"" if arrived.base is None else self._read(arrived.base, arrived.encoding, block.size)
            return block_coding.decode(arrived.encoding, arrived.data, block.size, base)
        except (BlockCodingError, ArtifactDamaged, OSError) as error:
            raise Undecodable(f"{form}: {error}") from error

    def close(self) -> None:
        """Close what is open."""
        self._files.close()

    def _read(self, base: agent_pb2.BlockBase, encoding: int, block_size: int) -> bytes:
        if base.bundle >= len(self._names):
            raise BlockCodingError(f"against artifact {base.bundle} of the {len(self._names)} named")
        name = self._names[base.bundle]
        if name not in self._bundles:
            self._bundles[name] = self._slots.bundle(name)
        files = self._bundles[name].files
        if base.file >= len(files):
            raise BlockCodingError(f"against file {base.file} of artifact {name[:12]}, which has {len(files)}")
        file = files[base.file]
        most = block_size if encoding == agent_pb2.ENCODING_SUB_ZSTD else MAX_BLOCK_BYTES
        if not 1 <= base.size <= most or base.offset + base.size > file.size:
            raise BlockCodingError(
                f"against {base.size} bytes at {base.offset} of {file.path} ({file.size} bytes) of artifact {name[:12]}"
            )
        return self._files.read(name, file.path, base.offset, base.size)[0]
