"""Where the blocks of an artifact begin and end: at its tensors' beginnings, and by content where there are none.

So a tensor that is the same in two versions is the same blocks in both, wherever it lies, and a chat template that
grew changes the few blocks around it. Another way to cut renames no artifact: it only gives new indexes, and what is
cut otherwise is fetched whole once more. Devices never cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final

from edgewright_contract import block_index
from edgewright_contract.block_index import MAX_BLOCK_BYTES
from edgewright_contract.bundle import Bundle, BundleFile
from edgewright_controller.delivery.layout import Kind, Region, layout

# Of content-defined cuts (FastCDC 2020): smallest, average and largest block in bytes. Headers are cut finer: they are
# small, and edits of them are what most updates of a chat template are.
CUTS: Final[Mapping[Kind, tuple[int, int, int]]] = MappingProxyType(
    {Kind.HEADER: (4 << 10, 16 << 10, 64 << 10), Kind.OPAQUE: (16 << 10, 64 << 10, 256 << 10)}
)
_NORMALISED: Final = 1
_SEED: Final = 0
# Neighbours below the first of these share a block up to the second: norms, scales and biases would else be half of
# all blocks.
SMALL_TENSOR_BYTES: Final = 16 << 10
SHARED_BLOCK_BYTES: Final = 64 << 10


class CutterMissing(Exception):
    """What cuts by content cannot do so at a bearable speed here; the message says what to install."""


def cut(bundle: Bundle, folder: Path) -> bytes:
    """The encoded block index of `bundle`, whose files stand below `folder`.

    Holds one block at a time. Raises CutterMissing, block_index.BlockIndexError when a file is not what the bundle
    says, OSError.
    """
    check()
    regions = layout(bundle, folder)

    def sizes(file: BundleFile) -> Iterator[int]:
        with open(folder / file.path, "rb", buffering=0) as content:
            yield from block_sizes(regions[file.path], content)

    return block_index.cut(bundle, folder, sizes)


def check() -> None:
    """Raise CutterMissing unless pyfastcdc is here in its compiled form; the other is a hundred times slower."""
    try:
        from pyfastcdc import FastCDC
    except ImportError as error:
        raise CutterMissing(f"artifacts cannot be cut: {error}; pip install 'edgewright[controller]'") from error
    if not FastCDC.__module__.startswith("pyfastcdc.cy"):
        raise CutterMissing(
            "artifacts cannot be cut: pyfastcdc is here without its compiled part; install its wheel for this Python, "
            "or a C compiler and then pip install --force-reinstall --no-binary pyfastcdc pyfastcdc"
        )


def block_sizes(regions: Sequence[Region], content: BinaryIO) -> Iterator[int]:
    """The sizes in bytes of a file's blocks, in order. Reads only what is cut by content. Raises OSError."""
    tensors: list[int] = []
    for region in regions:
        if region.kind is Kind.TENSOR:
            tensors.append(region.size)
            continue
        yield from tensor_blocks(tensors)
        tensors.clear()
        yield from _by_content(content, region)
    yield from tensor_blocks(tensors)


def tensor_blocks(sizes: Iterable[int]) -> Iterator[int]:
    """Blocks of tensors of `sizes` bytes that lie side by side. Pure."""
    shared = 0
    for size in sizes:
        if shared and (size >= SMALL_TENSOR_BYTES or shared + size > SHARED_BLOCK_BYTES):
            yield shared
            shared = 0
        if size < SMALL_TENSOR_BYTES:
            shared += size
            continue
        for start in range(0, size, MAX_BLOCK_BYTES):
            yield min(MAX_BLOCK_BYTES, size - start)
    if shared:
        yield shared


def _by_content(content: BinaryIO, region: Region) -> Iterator[int]:
    from pyfastcdc import FastCDC

    least, average, most = CUTS[region.kind]
    chunker = FastCDC(average, min_size=least, max_size=most, normalized_chunking=_NORMALISED, seed=_SEED)
    for chunk in chunker.cut_stream(_Within(content, region)):
        yield chunk.length


class _Within:
    """A region of an open file, as a stream of its own."""

    def __init__(self, content: BinaryIO, region: Region) -> None:
        self._content, self._left = content, region.size
        content.seek(region.start)

    def readinto(self, buffer: memoryview) -> int:
        """Fill `buffer` with what comes next, as far as the region goes; how many bytes that were."""
        wanted = memoryview(buffer)[: self._left]
        came = self._content.readinto(wanted) if wanted else 0  # type: ignore[attr-defined]  # a raw file has it
        self._left -= came
        return int(came)
