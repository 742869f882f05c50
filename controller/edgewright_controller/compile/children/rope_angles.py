"""How a rotary embedding is told: the slowest angle of a step, and the geometric mean of all. See
quality/hyperparameters.py, which compares them. Imported by the stages that read what a runtime computes with."""

from __future__ import annotations

from typing import Any

import numpy as np


def of_angles(angles: Any) -> dict[str, float]:
    """From the angle of one step for each pair of dimensions, in radians; pairs that do not turn are left out."""
    wide = np.asarray(angles, np.float64)
    turning = wide[wide > 0]
    if not turning.size:
        return {}
    return {"rope_slowest": float(turning.min()), "rope_middle": float(np.exp(np.log(turning).mean()))}
