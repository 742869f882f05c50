"""Which blocks of a wanted artifact stand on this disk already, in artifacts that the device keeps.

Nothing found here is believed: it says where to look, and what is read there counts by its sha256, as what comes by
the line does. So a damaged artifact is as good a place to look as any other.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright_agent.slots import ArtifactDamaged, Slots
from edgewright_contract import plain_file
from edgewright_contract.block_index import Block
from edgewright_contract.bundle import Bundle, BundleFile


@dataclass(frozen=True)
class HeldBlock:
    """Where bytes stand: an artifact (its bundle), the path of a file in it, the position in that file."""

    artifact: str
    path: str
    offset: int


@dataclass(frozen=True)
class Held:
    """What of a wanted artifact is here. `files`: path in it → (artifact, path in that one) of an equal file."""

    files: Mapping[str, tuple[str, str]]
    blocks: Mapping[int, HeldBlock]


def find(bundle: Bundle, blocks: Sequence[Block], slots: Slots, kept: Iterable[str]) -> Held:
    """What of these blocks of `bundle` the artifacts in `kept` have; of several places, the one in the earliest.

    An artifact whose documents cannot be read counts as not there: without it, more is fetched.
    """
    wanted = {(block.sha256, block.size) for block in blocks}
    places: dict[tuple[bytes, int], HeldBlock] = {}
    equal: dict[tuple[str, int], tuple[str, str]] = {}
    for name in kept:
        try:
            listed: Sequence[BundleFile] = slots.bundle(name).files if slots.has(name) else ()
        except ArtifactDamaged:
            continue
        for file in listed:
            equal.setdefault((file.sha256, file.size), (name, file.path))
        index = slots.index(name)
        for block in index.blocks if index is not None else ():
            if (block.sha256, block.size) in wanted:
                places.setdefault((block.sha256, block.size), HeldBlock(name, block.path, block.offset))
    files = {file.path: equal[file.sha256, file.size] for file in bundle.files if (file.sha256, file.size) in equal}
    here: dict[int, HeldBlock] = {}
    for block in blocks:
        if block.path in files:  # equal files have equal blocks, wherever theirs were cut
            here[block.index] = HeldBlock(*files[block.path], block.offset)
        elif (place := places.get((block.sha256, block.size))) is not None:
            here[block.index] = place
    return Held(files, here)


class HeldFiles:
    """Reads pieces of kept artifacts' files, with at most one of them open. `close` when done."""

    def __init__(self, folder_of: Callable[[str], Path]) -> None:
        self._folder_of = folder_of
        self._name = ("", "")
        self._handle = -1

    def read(self, artifact: str, path: str, offset: int, size: int) -> tuple[bytes, int]:
        """Up to `size` bytes there, fewer where the file ends, and the open file. Raises OSError."""
        if self._name != (artifact, path):
            self.close()
            self._handle = plain_file.open_below(self._folder_of(artifact), path, os.O_RDONLY)
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
