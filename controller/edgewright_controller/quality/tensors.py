"""Whether each tensor of an artifact is the source's, up to what its type must lose. Pure.

A fault in one tensor hides in a 4-bit model's divergence, which is mostly noise, but not in the tensor itself. Each is
dequantised and compared with the source's, the converter's rearrangements undone:

    error       ‖a − s‖ / ‖s‖ over the whole tensor                     the rounding that a type must cost
    gain        ⟨a, s⟩ / ⟨s, s⟩                                         what is left of it: 1, or 0 for another tensor
    worst block the largest ‖a − s‖ / ‖s‖ of a run of weights            a zeroed head, a wrong scale
    worst row   the same of a row                                       permuted rows
    rounding    error / the error of the source rounded anew            another adapter, a checkpoint of another day
    coherence   how much of the difference has one direction            the same, where rounding cannot be done anew

Another adapter changes every weight a little, at 4 bits by less than rounding does: no limit on the error itself sees
it. But how large the error of rounding must be is known, and that it has no direction (children/rounding.py).

A block is as long as the runs that share a scale, and at least BLOCK: within such a run one weight far from the others
leaves nothing of its neighbours, and that is no fault. Blocks and rows whose norm is far below the tensor's (QUIET) are
measured against that floor instead of their own, since rounding is relative to what stands beside them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

BLOCK: Final = 32
QUIET: Final = 0.1
# The most that rounding was measured to be is 1.0007, the most of coherence 1.2, whatever the type and the recipe.
ROUNDING: Final = 1.01
COHERENCE: Final = 2.0

_ANOTHER: Final = "it differs from the source by more than rounding: was it built of another checkpoint or adapter?"


class TensorsDiffer(ValueError):
    """The artifact does not have the source's tensors: some are missing, or have another shape."""


@dataclass(frozen=True)
class TensorMeasure:
    """One tensor: its name in the source, the type it has in the artifact, how many weights, and the figures above.
    `rounding` and `coherence` are None where they were not measured: of a quantised tensor one of them is."""

    name: str
    type: str
    weights: int
    error: float
    gain: float
    worst_block: float
    worst_row: float
    block: int = BLOCK
    rounding: float | None = None
    coherence: float | None = None


@dataclass(frozen=True)
class TypeLimit:
    """What a type may cost. `gain` is how far from `usual_gain` it may be: some types always shrink what they round.
    docs/quality.md has how the limits on rounding and coherence were found."""

    error: float
    gain: float
    worst_block: float
    worst_row: float
    usual_gain: float = 1.0
    rounding: float = ROUNDING
    coherence: float = COHERENCE


@dataclass(frozen=True)
class Finding:
    """A tensor outside its limits, and in which way, for a person."""

    tensor: str
    why: str


def judge(
    measures: Iterable[TensorMeasure],
    limits: Mapping[str, TypeLimit],
    expected: Iterable[str],
    surplus: Iterable[str] = (),
) -> tuple[Finding, ...]:
    """Every tensor that is not as it should be, the worst first; `expected` are the names that must be there,
    `surplus` those of tensors that nothing in the source stands for.

    A type without a limit, and a figure that is no number, are findings: nothing passes unjudged.
    """
    known = {one.name: one for one in measures}
    findings = [(math.inf, Finding(name, "is missing in the artifact")) for name in expected if name not in known]
    findings += [
        (math.inf, Finding(name, "is in the artifact, and nothing in the source is like it")) for name in surplus
    ]
    for one in known.values():
        limit = limits.get(one.type)
        if limit is None:
            findings.append((math.inf, Finding(one.name, f"has the type {one.type}, for which there is no limit")))
            continue
        excess, why = _worst(one, limit)
        if why:
            findings.append((excess, Finding(one.name, why)))
    findings.sort(key=lambda found: (-found[0], found[1].tensor))
    return tuple(finding for _, finding in findings)


def _worst(one: TensorMeasure, limit: TypeLimit) -> tuple[float, str]:
    """By how many times the worst figure exceeds its limit, and how to say it; (0, "") when none does."""
    figures = (
        (one.error, limit.error, "relative error {0:.3g}, at most {1:.3g}"),
        (
            abs(one.gain - limit.usual_gain),
            limit.gain,
            f"gain {one.gain:.4g}, within {{1:.3g}} of {limit.usual_gain:g}",
        ),
        (
            one.worst_block,
            limit.worst_block,
            f"a block of {one.block} weights with relative error {{0:.3g}}, at most {{1:.3g}}",
        ),
        (one.worst_row, limit.worst_row, "a row with relative error {0:.3g}, at most {1:.3g}"),
    )
    excess, words = 0.0, ""
    for value, most, form in (*figures, *_beyond_rounding(one, limit)):
        if value <= most:
            continue
        by = value / most if math.isfinite(value) else math.inf
        if by > excess:
            excess, words = by, f"{form.format(value, most)} for {one.type}"
    return excess, words


def _beyond_rounding(one: TensorMeasure, limit: TypeLimit) -> Iterator[tuple[float, float, str]]:
    if one.rounding is not None:
        anew = one.error / one.rounding if one.rounding else math.nan
        yield (
            one.rounding,
            limit.rounding,
            f"relative error {one.error:.3g}, {{0:.4g}} times the {anew:.3g} of the source rounded anew, at most"
            f" {{1:g}} times; {_ANOTHER}",
        )
    if one.coherence is not None:
        yield (
            one.coherence,
            limit.coherence,
            f"relative error {one.error:.3g}, of which one direction has {{0:.3g}} times as much as it would of"
            f" rounding, at most {{1:g}} times; {_ANOTHER}",
        )


def fallbacks(measures: Sequence[TensorMeasure], wanted: str) -> dict[str, int]:
    """Weights by type, of tensors that have another type than the one that most of a recipe's have: for the report."""
    return {name: weights for name, weights in weights_by_type(measures).items() if name != wanted}


def worst(measures: Iterable[TensorMeasure]) -> tuple[TensorMeasure, ...]:
    """Of each type the tensors that are worst by one of the figures: any limit that refuses a tensor refuses one of
    these. A figure that is no number is the worst there is. In the order in which they were given."""
    chosen: dict[tuple[str, str], TensorMeasure] = {}
    every = list(measures)
    for one in every:
        for figure, value in _badness(one).items():
            known = chosen.get((one.type, figure))
            if known is None or value > _badness(known).get(figure, -math.inf):
                chosen[one.type, figure] = one
    kept = {one.name for one in chosen.values()}
    return tuple(one for one in every if one.name in kept)


def _badness(one: TensorMeasure) -> dict[str, float]:
    figures = {
        "error": one.error,
        "gain": one.gain,
        "lost": -one.gain,
        "block": one.worst_block,
        "row": one.worst_row,
        "rounding": one.rounding,
        "coherence": one.coherence,
    }
    return {name: math.inf if math.isnan(value) else value for name, value in figures.items() if value is not None}


def weights_by_type(measures: Iterable[TensorMeasure]) -> dict[str, int]:
    """How many weights have each type."""
    found: dict[str, int] = {}
    for one in measures:
        found[one.type] = found.get(one.type, 0) + one.weights
    return found
