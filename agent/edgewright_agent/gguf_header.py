"""A bounded look at a GGUF file's header before llama.cpp parses it in C++.

Counts, lengths, types and offsets are checked against the file's size, nothing is kept, and nothing is
allocated by a number from the file.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

MAX_TENSORS: Final = 1 << 17
MAX_KEYS: Final = 1 << 16
MAX_NAME_BYTES: Final = 1 << 16
MAX_ARRAY: Final = 1 << 24
_STRING, _ARRAY = 8, 9
_SIZES: Final = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


class HeaderError(ValueError):
    """Not a GGUF file that may be given to an engine."""


def check(path: Path) -> None:
    """Raise HeaderError unless the header of `path` is whole and within bounds; OSError."""
    size = path.stat().st_size
    with open(path, "rb", buffering=1 << 20) as file:
        _Reader(file, size).header()


class _Reader:
    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def header(self) -> None:
        if self._take(4) != b"GGUF":
            raise HeaderError("does not begin with GGUF")
        version = self._number("<I")
        if version not in (2, 3):
            raise HeaderError(f"GGUF version {version}; 2 and 3 are known")
        tensors, keys = self._number("<Q"), self._number("<Q")
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            raise HeaderError(f"{tensors} tensors and {keys} keys are too many")
        for _ in range(keys):
            self._text(MAX_NAME_BYTES)
            self._value(self._number("<I"))
        for _ in range(tensors):
            self._tensor()

    def _tensor(self) -> None:
        self._text(MAX_NAME_BYTES)
        dimensions = self._number("<I")
        if dimensions > 4:
            raise HeaderError(f"a tensor of {dimensions} dimensions")
        elements = 1
        for _ in range(dimensions):
            elements *= self._number("<Q")
            if elements >= 1 << 63:
                raise HeaderError("a tensor with more elements than can be counted")
        self._number("<I")  # its type; a type unknown to the engine is the engine's own plain error
        if self._number("<Q") > self._left:
            raise HeaderError("a tensor that begins behind the end of the file")

    def _value(self, kind: int) -> None:
        if kind == _STRING:
            self._skip(self._number("<Q"))
        elif kind == _ARRAY:
            self._array(self._number("<I"), self._number("<Q"))
        elif kind in _SIZES:
            self._skip(_SIZES[kind])
        else:
            raise HeaderError(f"a value of unknown type {kind}")

    def _array(self, kind: int, count: int) -> None:
        if count > MAX_ARRAY:
            raise HeaderError(f"an array of {count} values")
        if kind == _STRING:
            for _ in range(count):
                self._skip(self._number("<Q"))
        elif kind in _SIZES:
            self._skip(count * _SIZES[kind])
        else:
            raise HeaderError(f"an array of values of type {kind}")

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._take(struct.calcsize(form)))[0])

    def _text(self, most: int) -> None:
        length = self._number("<Q")
        if length > most:
            raise HeaderError(f"a name of {length} bytes")
        self._skip(length)

    def _take(self, count: int) -> bytes:
        self._spend(count)
        return self._file.read(count)

    def _skip(self, count: int) -> None:
        self._spend(count)
        if count < 1 << 16:
            self._file.read(count)  # stays in the buffer, which a seek would throw away
        else:
            self._file.seek(count, 1)

    def _spend(self, count: int) -> None:
        if count > self._left:
            raise HeaderError("the header goes on behind the end of the file")
        self._left -= count
