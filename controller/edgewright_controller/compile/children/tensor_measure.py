"""How far one tensor is from another: the figures of quality/tensors.py. Imported by the stages that measure."""

from __future__ import annotations

from typing import Any

import numpy as np

WEIGHTS_AT_ONCE = 1 << 20


def measure(wanted: Any, got: Any, block: int, quiet: float) -> dict[str, float]:
    """The figures of `got` against `wanted`, both [rows, columns] of float32, summed in float64.

    Both are only ever sliced, some rows at a time, so either may be a `source_tensors.Rows`. Blocks are runs of
    `block` weights of a row; the rest of a row that it does not divide is a shorter one.
    """
    rows, columns = wanted.shape
    step = max(1, WEIGHTS_AT_ONCE // columns)
    starts = range(0, rows, step)
    total = sum(_square(wanted[start : start + step]) for start in starts)
    # What a run of so many weights of this tensor would have, if all were alike.
    usual = total / (rows * columns)
    difference = product = worst_block = worst_row = 0.0
    edges = np.arange(0, columns, block)
    lengths = np.diff([*edges, columns])
    # With a floor of nothing, nothing is worse than it only where there is no difference either.
    block_floor, row_floor = quiet**2 * usual * lengths, quiet**2 * usual * columns
    for start in starts:
        s = wanted[start : start + step].astype(np.float64)
        a = got[start : start + step].astype(np.float64)
        squares, misses = s * s, (a - s) ** 2
        difference += float(misses.sum())
        product += float(np.vdot(a, s))
        if total == 0.0:
            continue
        norm = np.maximum(np.add.reduceat(squares, edges, axis=1), block_floor)
        worst_block = max(worst_block, _worst(np.add.reduceat(misses, edges, axis=1) / norm))
        worst_row = max(worst_row, _worst(misses.sum(axis=1) / np.maximum(squares.sum(axis=1), row_floor)))
    if total == 0.0:
        return {"error": 0.0 if difference == 0.0 else float("inf"), "gain": 1.0, "worst_block": 0.0, "worst_row": 0.0}
    return {
        "error": float(np.sqrt(difference / total)),
        "gain": product / total,
        "worst_block": float(np.sqrt(worst_block)),
        "worst_row": float(np.sqrt(worst_row)),
    }


def _square(values: Any) -> float:
    wide = values.astype(np.float64).reshape(-1)
    return float(np.vdot(wide, wide))


def _worst(shares: Any) -> float:
    """The largest; a number that is none is worse than any."""
    most = float(shares.max())
    return float("inf") if np.isnan(most) else most
