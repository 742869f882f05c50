"""Which artifacts are worth comparing: what most devices would come from. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

MAX_BASES: Final = 3


def choose(wanted: Mapping[str, str], held: Mapping[str, str]) -> list[tuple[str, str]]:
    """(wanted, base) by how many devices need it, the most first; at most MAX_BASES for one that is wanted.

    `wanted`: device → the artifact that it is to have. `held`: device → the artifact that it says it serves.
    """
    counts = Counter(
        (artifact, held[device]) for device, artifact in wanted.items() if held.get(device, artifact) != artifact
    )
    chosen: list[tuple[str, str]] = []
    each: Counter[str] = Counter()
    for pair, _ in sorted(counts.items(), key=lambda one: (-one[1], one[0])):
        if each[pair[0]] < MAX_BASES:
            each[pair[0]] += 1
            chosen.append(pair)
    return chosen
