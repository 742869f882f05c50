"""Which artifacts and unfinished downloads stay on the disk when nothing names them any more. Pure.

What is active, previous, staged or being fetched stays, whatever it takes. The rest is kept for what can be copied
from it, as long as all together stays below the quota; what was needed last goes last.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Holding:
    """One artifact with its unfinished download, if any. `files`: (device, inode) → bytes, for artifacts share equal
    files. `needed_at`: when something last named it, in seconds of any clock that only orders."""

    name: str
    files: Mapping[tuple[int, int], int]
    needed_at: float


def taken(holdings: Sequence[Holding]) -> int:
    """Bytes that these take together."""
    files: dict[tuple[int, int], int] = {}
    for one in holdings:
        files.update(one.files)
    return sum(files.values())


def spare(holdings: Sequence[Holding], needed: Collection[str]) -> int:
    """Bytes that would be free without what is not needed."""
    return taken(holdings) - taken([one for one in holdings if one.name in needed])


def surplus(holdings: Sequence[Holding], needed: Collection[str], quota: int) -> list[str]:
    """What has to go so that all together takes at most `quota` bytes, the oldest first; never what is needed."""
    left, gone = sorted(holdings, key=lambda one: (one.needed_at, one.name)), []
    for one in list(left):
        if one.name not in needed and taken(left) > quota:
            left.remove(one)
            gone.append(one.name)
    return gone
