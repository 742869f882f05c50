"""The fixed mix of texts on which divergence is measured, and the order in which its pieces are taken. Pure.

Code and prose diverge two to four times as much as tables of numbers, so figures compare only over the same mix.
It is cut into chunks and taken so that any first part of it is a fair share of every kind: a verdict after few
chunks then stands for the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from edgewright_contract import canonical, digest

FOLDER: Final = Path(__file__).parent / "texts"
KINDS: Final = ("chat", "code", "numbers", "prose", "structured")
# Tokens of a chunk. Short ones make many, and the spread of their means is what a verdict goes by.
CHUNK_TOKENS: Final = 128
# Chunks after which the verdict may be clear: 1,024 tokens, 4,096, and as far as the mix goes, up to 8,192.
PARTS: Final = (8, 32, 64)

Tokens = Sequence[int]


@cache
def texts() -> Mapping[str, str]:
    """The texts by kind. Raises OSError."""
    return {kind: (FOLDER / f"{kind}.txt").read_text(encoding="utf-8") for kind in KINDS}


@cache
def texts_digest() -> str:
    """The sha256 that names the mix, its cutting included."""
    return digest.of_bytes(canonical.encode({"texts": texts(), "chunk": CHUNK_TOKENS, "parts": PARTS}))


def ordered(chunks: Mapping[str, Sequence[Tokens]]) -> list[list[int]]:
    """The chunks of all kinds in the order in which they are measured: first one of each kind, then in proportion."""
    placed = [
        (number / len(of_kind), kind, list(chunk))
        for kind, of_kind in chunks.items()
        for number, chunk in enumerate(of_kind)
    ]
    return [chunk for _, _, chunk in sorted(placed)][: PARTS[-1]]


def parts(count: int) -> list[range]:
    """The numbers of the chunks that are measured at a time, when there are `count` of them."""
    edges = [0, *(edge for edge in PARTS if edge < count), min(count, PARTS[-1])]
    return [range(first, last) for first, last in pairwise(edges) if last > first]
