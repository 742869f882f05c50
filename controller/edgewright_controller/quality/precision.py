"""How many bits a weight really takes in an artifact, and the class of precision that this makes it. Pure.

The class goes by what was measured, never by the recipe's name: a mixture, and tensors whose rows do not divide by a
type's block, take more bits than the name says.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class Precision(Enum):
    """A class of precision, by measured bits per weight."""

    ULTRA_LOW = "ultra-low"
    LOW = "low"
    MEDIUM = "medium"
    FULL = "full"


# The upper end of each class, which is not in it; medium has its upper end in it.
_LOW_FROM: Final = 3.0
_MEDIUM_FROM: Final = 5.0
_MEDIUM_TO: Final = 9.0


def bits_per_weight(weight_bytes: int, parameters: int) -> float:
    """Bits of a weight, all told: scales, minima and tensors kept in another type included.

    `weight_bytes` are those of the tensors alone; `parameters` are the source's, a shared embedding counted once.
    Raises ValueError for a model without parameters.
    """
    if parameters <= 0 or weight_bytes < 0:
        raise ValueError(f"{weight_bytes} bytes for {parameters} parameters")
    return 8 * weight_bytes / parameters


def precision(bits: float) -> Precision:
    """The class of an artifact with so many bits per weight. Raises ValueError for a number that is none."""
    if not bits > 0:
        raise ValueError(f"{bits} bits per weight")
    if bits < _LOW_FROM:
        return Precision.ULTRA_LOW
    if bits < _MEDIUM_FROM:
        return Precision.LOW
    return Precision.MEDIUM if bits <= _MEDIUM_TO else Precision.FULL
