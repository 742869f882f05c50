"""A checkpoint's tensors, mapped and read a few rows at a time. Imported by the stages that measure tensors.

Only numpy: a toolchain's interpreter need not have a library that knows bfloat16.
"""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stage import StageError

_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


class Rows:
    """A tensor as [rows, columns] of float32, made only where it is asked for. `take(start, stop)` gives some rows.

    Of a quantised one whose levels are known, `anew(start, stop, values)` gives other values [stop − start, columns],
    rounded as these rows were.
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        take: Callable[[int, int], Any],
        anew: Callable[[int, int, Any], Any] | None = None,
    ) -> None:
        self.shape = (rows, columns)
        self._take, self.anew = take, anew

    def __getitem__(self, part: slice) -> Any:
        start, stop, _ = part.indices(self.shape[0])
        return np.asarray(self._take(start, stop), np.float32).reshape(stop - start, self.shape[1])

    def cut(self, start: int, stop: int) -> Rows:
        """These rows only. Raises StageError where there are fewer."""
        if not 0 <= start <= stop <= self.shape[0]:
            raise StageError(f"rows {start} to {stop} of a tensor that has {self.shape[0]}")
        anew = self.anew
        of_these = anew and (lambda a, b, values: anew(start + a, start + b, values))
        return Rows(stop - start, self.shape[1], lambda a, b: self._take(start + a, start + b), of_these)

    def plus(self, offset: float) -> Rows:
        """The same with `offset` added to every value."""
        return Rows(*self.shape, lambda a, b: np.asarray(self._take(a, b), np.float32) + np.float32(offset))


def of_array(array: Any) -> Rows:
    """The rows of an array that is there; one of fewer than two dimensions is one row."""
    flat = array.reshape(-1, array.shape[-1]) if array.ndim > 1 else array.reshape(1, -1)
    return Rows(*flat.shape, lambda start, stop: flat[start:stop])


class Checkpoint:
    """The safetensors files of a folder. `shapes` has every tensor's shape, by name."""

    def __init__(self, folder: str) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, tuple[str, Any]] = {}
        files = sorted(Path(folder).glob("*.safetensors"))
        if not files:
            raise StageError(f"{folder}: no *.safetensors to compare with")
        for file in files:
            self._open(file)

    @property
    def parameters(self) -> int:
        """Numbers in all tensors."""
        return sum(int(np.prod(shape, dtype=np.int64)) for shape in self.shapes.values())

    def rows(self, name: str) -> Rows:
        """The tensor of this name."""
        kind, raw = self._places[name]
        shape = self.shapes[name]
        columns = shape[-1] if shape else 1
        rows = int(np.prod(shape, dtype=np.int64)) // columns

        def take(start: int, stop: int) -> Any:
            values = np.frombuffer(raw, _TYPES[kind], (stop - start) * columns, start * columns * _width(kind))
            return (values.astype(np.uint32) << 16).view(np.float32) if kind == "BF16" else values

        return Rows(rows, columns, take)

    def _open(self, file: Path) -> None:
        with file.open("rb") as stream:
            mapped = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
        try:
            length = int.from_bytes(mapped[:8], "little")
            header = json.loads(bytes(mapped[8 : 8 + length]))
        except ValueError as error:
            raise StageError(f"{file}: not safetensors: {error}") from error
        for name, about in header.items():
            if name == "__metadata__":
                continue
            if about["dtype"] not in _TYPES:
                raise StageError(f"{file}: {name} is of type {about['dtype']}, which nothing here compares with")
            first, last = about["data_offsets"]
            self.shapes[name] = tuple(about["shape"])
            self._places[name] = (about["dtype"], mapped[8 + length + first : 8 + length + last])


def _width(kind: str) -> int:
    return np.dtype(_TYPES[kind]).itemsize


def stacked(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts, one after the other. Raises StageError where their widths differ."""
    columns = {part.shape[1] for part in parts}
    if len(columns) != 1:
        raise StageError(f"tensors of {sorted(columns)} columns cannot stand in one")
    edges = np.cumsum([0, *(part.shape[0] for part in parts)])

    def take(start: int, stop: int) -> Any:
        pieces = [
            part[max(start - first, 0) : max(stop - first, 0)]
            for first, part in zip(edges[:-1].tolist(), parts, strict=True)
            if start < first + part.shape[0] and stop > first
        ]
        return np.concatenate(pieces) if pieces else np.zeros((0, columns.copy().pop()), np.float32)

    return Rows(int(edges[-1]), columns.copy().pop(), take)
