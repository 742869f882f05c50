"""Filling a pack: every block that an older artifact lacks, in the fewest bytes, decoded once before it is kept.

Runs in a thread of its own and holds a few blocks at a time. It may be ended between any two blocks.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_contract import block_coding, block_index
from edgewright_contract.block_index import BlockIndexError
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.compile.store import ArtifactStore, StoreError
from edgewright_controller.delivery import encoding
from edgewright_controller.delivery.layout import layout
from edgewright_controller.delivery.likeness import Comparison, Cut, Place, comparisons
from edgewright_controller.delivery.packs import Base, Kept, PackKey, Packs

# A pack is for saving; it must not be what fills the disk.
MIN_FREE_RATIO: Final = 0.1


@dataclass(frozen=True)
class Made:
    """What came of it: `lacking` bytes that a holder of the base does not have, which cross the wire as `sent`; how
    many blocks are kept for that, in `kept` bytes."""

    lacking: int
    sent: int
    blocks: int
    kept: int


def cut_of(store: ArtifactStore, artifact: str, indexed: str) -> Cut:
    """An artifact of the store as the index `indexed` cuts it. Raises StoreError, OSError."""
    bundle = store.bundle(artifact)
    try:
        with store.open_object(indexed) as file:
            index = block_index.parse(file.read(), bundle)
    except (KeyError, BlockIndexError) as error:
        raise StoreError(f"artifact {artifact}: its block index {indexed} cannot be read: {error}") from error
    return Cut(bundle, layout(bundle, store.path(artifact)), index)


def make(
    store: ArtifactStore, packs: Packs, key: PackKey, base_index: str, checkpoint: Callable[[], None] = lambda: None
) -> Made:
    """Make the pack `key`; `base_index` is the block index by which devices hold the base, empty without a base.

    `checkpoint` is called before each block, and may raise to end it. Raises StoreError when an artifact is not here
    whole, OSError.
    """
    wanted = cut_of(store, key.wanted, key.block_index)
    _leave_room(store.path(key.wanted), wanted.bundle.size)
    if key.base:
        if not store.is_intact(key.base):
            raise StoreError(f"artifact {key.base} is damaged here; nothing is made against it")
        base = cut_of(store, key.base, base_index)
        files = {file.path: number for number, file in enumerate(base.bundle.files)}
        compared: Iterator[Comparison] = iter(sorted(comparisons(wanted, base), key=lambda one: one.block.index))
        held = base.digests
    else:
        files, held = {}, frozenset()
        compared = (Comparison(block, None, None) for block in wanted.index.blocks)
    blocks = raw = kept = 0
    with packs.write(key) as pack:
        for one in compared:
            checkpoint()
            found = _kept(store, key, one, files)
            if found is not None:
                pack.add(one.block.index, found)
                blocks, raw, kept = blocks + 1, raw + one.block.size, kept + len(found.data)
        if not key.base and raw - kept < encoding.MIN_SAVING * wanted.bundle.size:
            pack.forget()  # that it is not worth it is kept, so that nobody tries again
            blocks = raw = kept = 0
        pack.finish()
    packs.written(key)
    lacking = sum(block.size for block in wanted.index.blocks if block.sha256 not in held)
    return Made(lacking, lacking - raw + kept, blocks, kept)


def _kept(store: ArtifactStore, key: PackKey, one: Comparison, files: dict[str, int]) -> Kept | None:
    block = store.read_block(key.wanted, one.block)
    near = _read(store.path(key.base), one.near) if one.near else None
    beside = near if one.beside == one.near else _read(store.path(key.base), one.beside) if one.beside else None
    found = encoding.smallest(block, near, beside)
    if found is None:
        return None
    how, data = found
    place, base = None, None
    if how in block_coding.BASED:
        place, base = (one.near, near) if how == agent_pb2.ENCODING_DICT_ZSTD else (one.beside, beside)
    if block_coding.decode(how, data, len(block), base or b"") != block:
        raise StoreError(f"{one.block.path}: block {one.block.index} does not come back from encoding {how}")
    return Kept(how, data, Base(files[place.path], place.offset, place.size) if place else None)


def _read(folder: Path, place: Place) -> bytes:
    with open(folder / place.path, "rb", buffering=0) as file:
        file.seek(place.offset)
        data = file.read(place.size)
    if len(data) != place.size:
        raise StoreError(f"{place.path}: {len(data)} bytes at {place.offset}, {place.size} expected")
    return data


def _leave_room(folder: Path, size: int) -> None:
    usage = shutil.disk_usage(folder)
    if usage.free - size < MIN_FREE_RATIO * usage.total:
        raise StoreError(f"{usage.free:,} bytes are free here; a pack of up to {size:,} would leave too few")
