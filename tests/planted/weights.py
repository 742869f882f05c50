"""Changing the weights of a finished artifact in place, in any of the three formats.

A tensor is a table of rows. In each format it consists of arrays that have one entry a row: whole numbers that are
levels, and real numbers that are scales, minima, or the weights themselves. Turning rows around moves all of them;
making a tensor larger multiplies the real ones. So each fault is written once, and quantised weights stay quantised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

Reals = Callable[[Any], Any]
"""Takes real numbers [rows, …] of a part of a tensor as float32 and gives others of the same shape."""


class Tensor(Protocol):
    """One tensor of an artifact."""

    @property
    def rows(self) -> int:
        """Outputs, or entries of an embedding."""

    def change(self, change: Reals) -> None:
        """Put `change(part)` in the place of each part that is real numbers, but not of zero points."""

    def move(self, order: Any) -> None:
        """Row i becomes what row order[i] was."""

    def bytes(self) -> list[Any]:
        """Copies of all parts, raw."""

    def put(self, parts: list[Any]) -> None:
        """Parts as `bytes` gave them, of a tensor of the same shape and type."""


class Artifact(Protocol):
    """An artifact's weights by the names of a checkpoint, such as model.layers.0.mlp.down_proj.weight."""

    def tensor(self, name: str) -> Tensor:
        """Raises KeyError."""

    def save(self) -> None:
        """Write everything that was changed."""


class Matrix:
    """A tensor made of arrays with one entry a row. `real` maps each array of real numbers to how it is read as
    float32 and written back; the others are only moved."""

    def __init__(self, arrays: list[Any], reals: list[tuple[Callable[[], Any], Callable[[Any], None]]]) -> None:
        self._arrays, self._reals = arrays, reals

    @property
    def rows(self) -> int:
        return len(self._arrays[0])

    def change(self, change: Reals) -> None:
        for read, write in self._reals:
            write(np.asarray(change(read()), np.float32))

    def move(self, order: Any) -> None:
        for array in self._arrays:
            array[:] = array[order].copy()

    def bytes(self) -> list[Any]:
        return [array.copy() for array in self._arrays]

    def put(self, parts: list[Any]) -> None:
        for array, part in zip(self._arrays, parts, strict=True):
            array[:] = part


def plain(array: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """Reading and writing of an array of float32 or float16."""

    def write(values: Any) -> None:
        array[:] = values.astype(array.dtype)

    return (lambda: array.astype(np.float32)), write


def bf16(halves: Any) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    """Of an array of uint16 that are bfloat16; rounded to the nearest, since cutting off would change a gain."""

    def write(values: Any) -> None:
        wide = np.ascontiguousarray(values, np.float32).view(np.uint32)
        halves[:] = ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype(np.uint16)

    return (lambda: (halves.astype(np.uint32) << 16).view(np.float32)), write
