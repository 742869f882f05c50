"""How far one tensor is from another: the figures of quality/tensors.py. Imported by the stages that measure."""

from __future__ import annotations

from typing import Any

import numpy as np

ROWS_AT_ONCE = 4096


def measure(wanted: Any, got: Any, block: int, quiet: float) -> dict[str, float]:
    """The figures of `got` against `wanted`, both [rows, columns] of float32, summed in float64.

    Blocks are runs of `block` weights of a row; the rest of a row that it does not divide is a shorter one.
    """
    rows, columns = wanted.shape
    total = difference = product = 0.0
    for start in range(0, rows, ROWS_AT_ONCE):
        s = wanted[start : start + ROWS_AT_ONCE].astype(np.float64)
        a = got[start : start + ROWS_AT_ONCE].astype(np.float64)
        total += float((s * s).sum())
        difference += float(((a - s) ** 2).sum())
        product += float((a * s).sum())
    if total == 0.0:
        same = difference == 0.0
        return {"error": 0.0 if same else float("inf"), "gain": 1.0, "worst_block": 0.0, "worst_row": 0.0}
    # What a run of so many weights of this tensor would have, if all were alike.
    usual = total / (rows * columns)
    worst_block = worst_row = 0.0
    edges = np.arange(0, columns, block)
    lengths = np.diff([*edges, columns])
    for start in range(0, rows, ROWS_AT_ONCE):
        s = wanted[start : start + ROWS_AT_ONCE].astype(np.float64)
        squares, misses = s * s, (got[start : start + ROWS_AT_ONCE].astype(np.float64) - s) ** 2
        norm = np.maximum(np.add.reduceat(squares, edges, axis=1), quiet**2 * usual * lengths)
        worst_block = max(worst_block, float((np.add.reduceat(misses, edges, axis=1) / norm).max()))
        row_norm = np.maximum(squares.sum(axis=1), quiet**2 * usual * columns)
        worst_row = max(worst_row, float((misses.sum(axis=1) / row_norm).max()))
    return {
        "error": float(np.sqrt(difference / total)),
        "gain": product / total,
        "worst_block": float(np.sqrt(worst_block)),
        "worst_row": float(np.sqrt(worst_row)),
    }
