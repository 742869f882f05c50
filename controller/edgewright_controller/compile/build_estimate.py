"""How long a build will take yet, from how long stages took before. Pure.

What was not measured is not guessed: without a build of the same recipe, or of another of the runtime's, there is no
estimate. A larger model is taken to need more in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# A smaller model still has to load the toolchain.
_LEAST_SHARE = 0.3


@dataclass(frozen=True)
class PastBuild:
    """A build that succeeded: its runtime and quantization, bytes of its source, and its stages with their seconds."""

    runtime: str
    quantization: str
    source_bytes: int
    stages: tuple[tuple[str, float], ...]


def seconds_left(
    past: Sequence[PastBuild], runtime: str, quantization: str, source_bytes: int, *, stage: str, elapsed_s: float
) -> float | None:
    """Seconds until a build ends that has been in `stage` for `elapsed_s`; None when nothing tells. `past` is in the
    order of time."""
    alike = [one for one in past if one.runtime == runtime and any(name == stage for name, _ in one.stages)]
    if not alike:
        return None
    model = max(
        enumerate(alike),
        key=lambda pair: (pair[1].quantization == quantization, -_distance(pair[1], source_bytes), pair[0]),
    )[1]
    share = max(_LEAST_SHARE, source_bytes / max(1, model.source_bytes))
    names = [name for name, _ in model.stages]
    at = names.index(stage)
    here = share * model.stages[at][1]
    rest = share * sum(seconds for _, seconds in model.stages[at + 1 :])
    return max(0.0, here - elapsed_s) + rest


def words(seconds: float | None) -> str:
    """`about 2 min left`, for a person; empty when nobody knows."""
    if seconds is None:
        return ""
    if seconds < 5:
        return "about to end"
    if seconds < 60:
        return f"about {round(seconds / 5) * 5} s left"
    if seconds < 5400:
        return f"about {round(seconds / 60)} min left"
    return f"about {round(seconds / 3600)} h left"


def _distance(past: PastBuild, source_bytes: int) -> float:
    """How many times larger or smaller its source was."""
    one, other = max(1, past.source_bytes), max(1, source_bytes)
    return max(one / other, other / one)
