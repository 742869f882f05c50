"""Whether a quantised tensor differs from the source's by rounding and by nothing else. Imported by the stages that
measure tensors.

    rounding    ‖a − s‖ / ‖n − s‖            n: the source rounded anew, as the tensor's type does
    coherence   c(a − s) / c(±(a − s))       c: the share of the energy that the largest singular value has;
                                             ±: each entry with a sign drawn at random

Whoever rounds each weight by itself has a rounding of 1, whatever chose the scales. Recipes that move weights to make
up for others have more, and types whose levels are vectors have no such n. What they lose has no direction in common,
and drawing its signs anew changes nothing; what another adapter, or more training, adds is of low rank, and is all but
gone then. Rounding has a direction, too, where columns of very different sizes share a scale, or where scales are kept
short at many bits: where there is an n, c(n − s) counts if it is more than c(±(a − s)).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from source_tensors import Rows

# Rows of no more weights than this are looked at, from all over the tensor.
NEAREST_WEIGHTS = 1 << 17
COHERENT_WEIGHTS = 1 << 20
_PLACES = 16
# Of ‖s‖: a difference this small is none. A checkpoint in float32 may be bfloat16 on the way, which costs 0.0017.
FLOOR = 0.002
_STEPS = 12


def beyond_rounding(wanted: Rows, got: Rows, *, moved: bool) -> dict[str, float]:
    """{"rounding": …}, or {"coherence": …} where `got` does not know its levels or the recipe has `moved` weights; of
    a single row neither. Both are [rows, columns]."""
    if got.anew is not None and not moved:
        return {"rounding": _rounding(wanted, got)}
    return {"coherence": _coherence(wanted, got)} if min(got.shape) > 1 else {}


def nearest_level(values: Any, low: Any, unit: Any, top: int) -> Any:
    """Each of the values on the nearest of low, low + unit, …, low + top · unit."""
    with np.errstate(divide="ignore", invalid="ignore"):
        number = np.clip(np.rint((values - low) / unit), 0, top)
    return low + np.where(unit == 0, 0, number) * unit


def _rounding(wanted: Rows, got: Rows) -> float:
    assert got.anew is not None
    missed = least = size = 0.0
    for start, stop in _places(*got.shape, NEAREST_WEIGHTS):
        s, a = wanted[start:stop], got[start:stop]
        missed += _square(a - s)
        least += _square(got.anew(start, stop, s) - s)
        size += _square(s)
    floor = FLOOR**2 * size
    return float(np.sqrt((missed + floor) / (least + floor))) if size else 1.0


def _coherence(wanted: Rows, got: Rows) -> float:
    places = list(_places(*got.shape, COHERENT_WEIGHTS))
    s, a = (np.concatenate([rows[start:stop] for start, stop in places]) for rows in (wanted, got))
    drawn = np.random.default_rng(0)
    begin = drawn.standard_normal(s.shape[1], np.float32)
    rest = _rest(s, a)
    if not np.isfinite(rest).all():
        return float("inf")
    if _square(rest) <= FLOOR**2 * _square(s):
        return 1.0
    signs = drawn.integers(0, 2, rest.shape, np.int8) * np.float32(2) - np.float32(1)
    usual = _largest_share(rest * signs, begin)
    if got.anew is not None:
        n = np.concatenate([got.anew(start, stop, wanted[start:stop]) for start, stop in places])
        usual = max(usual, _largest_share(_rest(s, n), begin))
    return _largest_share(rest, begin) / usual


def _rest(s: Any, a: Any) -> Any:
    """a − s, less the share of s that types which shrink what they round leave in it: s has directions of its own."""
    size = _square(s)
    return a - s * np.float32(np.vdot(a, s) / size if size else 1.0)


def _largest_share(matrix: Any, vector: Any) -> float:
    """The largest singular value's share of the energy, or a little less, by power iteration; 0 of nothing."""
    whole, found = _square(matrix), 0.0
    if not whole:
        return 0.0
    for _ in range(_STEPS):
        vector = matrix.T @ (matrix @ (vector / np.linalg.norm(vector)))
        found = float(np.linalg.norm(vector))
    return found / whole


def _places(rows: int, columns: int, most: int) -> Iterator[tuple[int, int]]:
    """Runs of rows, evenly spread, of about `most` weights together."""
    if rows * columns <= most:
        yield 0, rows
        return
    length = max(1, most // (columns * _PLACES))
    for start in np.linspace(0, rows - length, min(_PLACES, rows)).astype(int).tolist():
        yield start, start + length


def _square(values: Any) -> float:
    flat = values.reshape(-1)
    return float(np.vdot(flat, flat))
