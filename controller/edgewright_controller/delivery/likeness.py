"""What an older artifact has in the place of each block of a newer one. Pure.

A block of a tensor is compared with the same bytes of the tensor of that name, wherever it lies there. What is cut by
content is compared with what stands between the nearest neighbours that did not change, which is just what was edited
away; after many edits with bytes as far into it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Final

from edgewright_contract.block_index import MAX_BLOCK_BYTES, Block, BlockIndex
from edgewright_contract.bundle import Bundle
from edgewright_controller.delivery.layout import Kind, Layout, Region

# Of what was edited away at least so much is looked at, with what stands around it: an insertion edits nothing away.
MIN_WINDOW_BYTES: Final = 64 << 10


@dataclass(frozen=True)
class Place:
    """Bytes of an artifact's file."""

    path: str
    offset: int
    size: int


@dataclass(frozen=True)
class Comparison:
    """A block, and bytes of the older artifact that it is likely to be like: somewhere in `near`, at most 1 MiB; byte
    by byte in `beside`, which has the block's size. Either may be None, and not both."""

    block: Block
    near: Place | None
    beside: Place | None


@dataclass(frozen=True)
class Cut:
    """An artifact as it is cut."""

    bundle: Bundle
    layout: Layout
    index: BlockIndex

    @cached_property
    def sizes(self) -> dict[str, int]:
        """Path → bytes."""
        return {file.path: file.size for file in self.bundle.files}

    @cached_property
    def digests(self) -> frozenset[bytes]:
        """What a device that holds the artifact need not be sent at all."""
        return frozenset(block.sha256 for block in self.index.blocks)

    @cached_property
    def blocks(self) -> dict[str, list[Block]]:
        """Path → its blocks in order."""
        found: dict[str, list[Block]] = {path: [] for path in self.sizes}
        for block in self.index.blocks:
            found[block.path].append(block)
        return found

    def tensor(self, path: str, name: str) -> tuple[str, Region] | None:
        """Where a tensor lies: in the file `path`, else in any; the first of this name."""
        return self._tensors.get((path, name)) or self._tensors.get(("", name))

    @cached_property
    def _tensors(self) -> dict[tuple[str, str], tuple[str, Region]]:
        found: dict[tuple[str, str], tuple[str, Region]] = {}
        for path, regions in self.layout.items():
            for region in regions:
                if region.name:
                    found.setdefault((path, region.name), (path, region))
                    found.setdefault(("", region.name), (path, region))
        return found


def comparisons(wanted: Cut, base: Cut) -> Iterator[Comparison]:
    """Each block of `wanted` that is not one of `base`'s, and has something there to be compared with."""
    for path, blocks in wanted.blocks.items():
        other = _same_file(path, wanted, base)
        regions = wanted.layout[path]
        starts = [region.start for region in regions]
        by_region: dict[int, list[Block]] = {}
        for block in blocks:
            by_region.setdefault(bisect_right(starts, block.offset) - 1, []).append(block)
        for number, inside in by_region.items():
            region = regions[number]
            if region.kind is Kind.TENSOR:
                yield from _tensor(region, inside, path, base)
            elif other is not None:
                mine = _ordinal(regions, number)
                theirs = [one for one in base.layout[other] if one.kind is region.kind]
                if mine < len(theirs):
                    yield from _by_content(region, inside, other, theirs[mine], base)


def _tensor(region: Region, blocks: list[Block], path: str, base: Cut) -> Iterator[Comparison]:
    """Blocks of one tensor, and of small ones behind it."""
    found = base.tensor(path, region.name) if region.name else None
    if found is None:
        return
    place, same = found
    for block in blocks:
        if block.sha256 in base.digests:
            continue
        into = block.offset - region.start
        if into >= same.size:
            continue
        start = same.start + into
        size = min(block.size, base.sizes[place] - start)
        near = Place(place, start, size)
        yield Comparison(block, near, near if size == block.size and same.size == region.size else None)


def _by_content(region: Region, blocks: list[Block], path: str, there: Region, base: Cut) -> Iterator[Comparison]:
    """Blocks of a header or of an opaque file, against what stands there between the same neighbours."""
    known = {one.sha256: one for one in base.blocks[path] if there.start <= one.offset < there.end}
    run: list[Block] = []
    begin = there.start
    for block in [*blocks, None]:
        same = known.get(block.sha256) if block is not None else None
        if block is not None and same is None:
            if block.sha256 not in base.digests:
                run.append(block)
            continue
        end = same.offset if same is not None else there.end
        if run:
            yield from _run(region, run, there, Place(path, begin, max(0, end - begin)))
            run = []
        if same is not None:
            begin = same.offset + same.size


def _run(region: Region, run: list[Block], there: Region, gap: Place) -> Iterator[Comparison]:
    """Changed blocks side by side, in whose place the older file has `gap`."""
    begin, end = gap.offset, gap.offset + gap.size
    first, last = run[0].offset, run[-1].offset + run[-1].size
    for block in run:
        if gap.size <= MAX_BLOCK_BYTES:
            low, high = begin, end
        else:
            middle = begin + (block.offset + block.size // 2 - first) * gap.size // (last - first)
            low, high = max(begin, middle - MAX_BLOCK_BYTES // 2), min(end, middle + MAX_BLOCK_BYTES // 2)
        if high - low < MIN_WINDOW_BYTES:
            more = (MIN_WINDOW_BYTES - (high - low)) // 2
            low, high = max(there.start, low - more), min(there.end, high + more)
        beside = None
        start = there.start + block.offset - region.start
        if there.size == region.size:  # as numbers that nobody looks into are, whatever they became
            beside = Place(gap.path, start, block.size)
        yield Comparison(block, Place(gap.path, low, high - low), beside)


def _same_file(path: str, wanted: Cut, base: Cut) -> str | None:
    """The file of `base` that is in the place of `path`: of its name, or the only other one of its kind."""
    if path in base.sizes:
        return path
    suffix = PurePosixPath(path).suffix
    mine = [one for one in wanted.sizes if one not in base.sizes and PurePosixPath(one).suffix == suffix]
    theirs = [one for one in base.sizes if one not in wanted.sizes and PurePosixPath(one).suffix == suffix]
    return theirs[0] if len(mine) == len(theirs) == 1 else None


def _ordinal(regions: tuple[Region, ...], number: int) -> int:
    """Which of its kind the region is, from 0."""
    return sum(one.kind is regions[number].kind for one in regions[:number])
