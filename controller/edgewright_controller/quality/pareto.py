"""Which of several artifacts nobody would leave for another: the Pareto front. Pure."""

from __future__ import annotations

from collections.abc import Sequence


def front(points: Sequence[tuple[float, ...]]) -> frozenset[int]:
    """The places of the points that no other one beats: none is as small in every figure, and smaller in one.

    Where larger is better, give the figure with the other sign. Equal points beat nobody and stay together.
    """
    return frozenset(
        place
        for place, one in enumerate(points)
        if not any(
            all(theirs <= ours for theirs, ours in zip(other, one, strict=True)) and other != one for other in points
        )
    )
