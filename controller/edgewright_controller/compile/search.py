"""`quantization = "auto"`: the smallest artifact that passes its gate and fits. Pure.

Names of recipes are no guarantee (on one small model Q5_K_M diverges more than Q4_K_M), so nothing is skipped because
of its name: candidates are tried by size, the smallest first, and the first that passes is the smallest there is.
What was tried is known by its build key, so the search has no state of its own: it goes on where it was, whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from edgewright_controller.compile.recipe import Recipe


class Standing(Enum):
    """What is known of a candidate."""

    PASSED = "passed"
    REFUSED = "refused"
    UNTRIED = "not tried"
    TOO_LARGE = "does not fit"


@dataclass(frozen=True)
class Candidate:
    """A recipe that may be the one: its build key, the artifact's bytes, measured or predicted, and the bytes of memory
    that serving it takes."""

    recipe: Recipe
    key: str
    size_bytes: int
    memory_bytes: int


@dataclass(frozen=True)
class Outcome:
    """How a build of a candidate ended: what was measured of it, and why it was refused, empty when it passed.
    `kl` is the mean divergence in nats, None when it was refused before that was measured."""

    refused: str = ""
    kl: float | None = None


@dataclass(frozen=True)
class Row:
    """One line of the search's table."""

    candidate: Candidate
    standing: Standing
    kl: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Search:
    """How far the search is. One of `chosen` and `next` is there, neither when no candidate is left."""

    table: tuple[Row, ...]
    chosen: Candidate | None
    next: Candidate | None

    @property
    def found_nothing(self) -> bool:
        """Whether every candidate was refused or is too large."""
        return self.chosen is None and self.next is None


def search(candidates: Iterable[Candidate], outcomes: Mapping[str, Outcome], memory_bytes: int) -> Search:
    """Where the search stands. `outcomes` is by build key; `memory_bytes` is what the profile grants.

    Of two candidates of one size the more exact type's comes last in the list, so that ties go to the earlier.
    """
    rows = []
    chosen = following = None
    for candidate in sorted(candidates, key=lambda one: one.size_bytes):
        outcome = outcomes.get(candidate.key)
        row = _row(candidate, outcome, memory_bytes)
        rows.append(row)
        if chosen is None and following is None:
            if row.standing is Standing.PASSED:
                chosen = candidate
            elif row.standing is Standing.UNTRIED:
                following = candidate
    return Search(tuple(rows), chosen, following)


def _row(candidate: Candidate, outcome: Outcome | None, memory_bytes: int) -> Row:
    if outcome is not None and outcome.refused:
        return Row(candidate, Standing.REFUSED, outcome.kl, outcome.refused)
    if candidate.memory_bytes > memory_bytes:
        why = f"serving it takes {candidate.memory_bytes:,} bytes of memory, the profile grants {memory_bytes:,}"
        return Row(candidate, Standing.TOO_LARGE, outcome.kl if outcome else None, why)
    if outcome is None:
        return Row(candidate, Standing.UNTRIED)
    return Row(candidate, Standing.PASSED, outcome.kl)
