"""Which blocks of a wanted artifact stand on this disk already, in artifacts that the device keeps.

Nothing found here is believed: it says where to look, and what is read there counts by its sha256, as what comes by
the line does. So a damaged artifact is as good a place to look as any other.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgewright_agent.slots import ArtifactDamaged, Slots
from edgewright_contract import plain_file
from edgewright_contract.block_index import Block
from edgewright_contract.bundle import Bundle

_MAX_PLACES: Final = 4


@dataclass(frozen=True)
class HeldBlock:
    """Where bytes stand: an artifact (its bundle), the path of a file in it, the position in that file."""

    artifact: str
    path: str
    offset: int


@dataclass(frozen=True)
class Held:
    """What of a wanted artifact is here. `files`: path in it → (artifact, path in that one) of an equal file.
    `blocks`: number → all places, the likeliest first."""

    files: Mapping[str, tuple[str, str]]
    blocks: Mapping[int, tuple[HeldBlock, ...]]


def find(bundle: Bundle, blocks: Sequence[Block], slots: Slots, kept: Iterable[str]) -> Held:
    """What of these blocks of `bundle` the artifacts in `kept` have; of several places, the earliest first.

    An artifact whose documents cannot be read counts as not there: without it, more is fetched.
    """
    wanted = {(block.sha256, block.size) for block in blocks}
    places: dict[tuple[bytes, int], list[HeldBlock]] = {}
    equal: dict[tuple[str, int], list[tuple[str, str]]] = {}
    for name in dict.fromkeys(kept):
        listed, cut = (bundle, blocks) if name == bundle.digest else _documents(slots, name)
        if listed is None or slots.folder(name) is None:
            continue
        for file in listed.files:
            equal.setdefault((file.sha256, file.size), []).append((name, file.path))
        for block in cut:
            if (block.sha256, block.size) in wanted:
                places.setdefault((block.sha256, block.size), []).append(HeldBlock(name, block.path, block.offset))
    files = {file.path: equal[file.sha256, file.size] for file in bundle.files if (file.sha256, file.size) in equal}
    here: dict[int, tuple[HeldBlock, ...]] = {}
    for block in blocks:  # equal files have equal blocks, wherever theirs were cut
        same = [HeldBlock(*file, block.offset) for file in files.get(block.path, ())]
        found = tuple(dict.fromkeys((*same, *places.get((block.sha256, block.size), ()))))[:_MAX_PLACES]
        if found:
            here[block.index] = found
    return Held({path: found[0] for path, found in files.items()}, here)


def _documents(slots: Slots, name: str) -> tuple[Bundle | None, Sequence[Block]]:
    try:
        index = slots.index(name)
        return slots.bundle(name), index.blocks if index is not None else ()
    except ArtifactDamaged:
        return None, ()


class HeldFiles:
    """Reads pieces of kept artifacts' files, with at most one of them open. `close` when done."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self._name = ("", "")
        self._handle = -1

    def read(self, artifact: str, path: str, offset: int, size: int) -> tuple[bytes, int]:
        """Up to `size` bytes there, fewer where the file ends, and the open file. Raises OSError."""
        if self._name != (artifact, path):
            self.close()
            folder = self._slots.folder(artifact)
            if folder is None:
                raise FileNotFoundError(errno.ENOENT, "this artifact is not here any more", artifact)
            self._handle = plain_file.open_below(folder, path, os.O_RDONLY)
            self._name = (artifact, path)
        os.lseek(self._handle, offset, os.SEEK_SET)
        data = bytearray()
        while len(data) < size and (piece := os.read(self._handle, size - len(data))):
            data += piece
        return bytes(data), self._handle

    def close(self) -> None:
        """Close what is open."""
        if self._handle >= 0:
            os.close(self._handle)
        self._name, self._handle = ("", ""), -1
