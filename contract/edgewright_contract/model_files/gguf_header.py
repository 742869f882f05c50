"""A bounded look at a GGUF file's header before llama.cpp parses it in C++.

Counts, lengths, types and positions are checked against one another and against the file's size. Nothing is allocated
by a number from the file: what is kept are the names, within bounds, and the chat template. Each loop has a bound of
its own, so that the worst header takes well under a second.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final

from edgewright_contract.model_files import FileUnsafe, TensorSpan

# Beyond any model that is known, by a factor of ten or so.
MAX_TENSORS: Final = 1 << 15
MAX_KEYS: Final = 1 << 12
MAX_KEY_BYTES: Final = 1 << 10
MAX_STRINGS: Final = 3 << 19
MAX_HEADER_BYTES: Final = 256 << 20
MAX_TEMPLATE_BYTES: Final = 1 << 20
# llama.cpp's own.
MAX_TENSOR_NAME_BYTES: Final = 63
MAX_DIMENSIONS: Final = 4

CHAT_TEMPLATE: Final = "tokenizer.chat_template"
_ALIGNMENT: Final = "general.alignment"
_DEFAULT_ALIGNMENT: Final = 32
_MAX_ALIGNMENT: Final = 1 << 16
_UINT32, _STRING, _ARRAY = 4, 8, 9
_VALUE_BYTES: Final = MappingProxyType({0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8})
# ggml's types: weights in a block, bytes of a block. Without them no tensor's end is known, so another is refused.
BLOCKS: Final = MappingProxyType(
    {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 9: (32, 40)}
    | {10: (256, 84), 11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292)}
    | {16: (256, 66), 17: (256, 74), 18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82)}
    | {23: (256, 136), 24: (1, 1), 25: (1, 2), 26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2)}
    | {34: (256, 54), 35: (256, 66), 39: (32, 17), 40: (64, 36), 41: (128, 18), 42: (64, 18)}
)
_READ_BYTES: Final = 1 << 16


@dataclass(frozen=True)
class GgufHeader:
    """What the rest of the world may know of a checked header. `chat_template` is None when there is none."""

    tensors: int
    chat_template: str | None


def read(path: Path) -> GgufHeader:
    """The checked header of `path`. Raises FileUnsafe, OSError."""
    with open(path, "rb", buffering=0) as file:
        size = file.seek(0, 2)
        return _Header(_Bytes(file, size)).read()


def tensor_spans(path: Path) -> list[TensorSpan]:
    """Where each tensor lies, in the file's order, when the header is in order. Raises FileUnsafe, OSError."""
    with open(path, "rb", buffering=0) as file:
        header = _Header(_Bytes(file, file.seek(0, 2)))
        header.read()
        return header.tensor_spans()


class _Bytes:
    """The file from its beginning on, in small pieces; never beyond its end or the longest header."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size = file, size
        self._most = min(size, MAX_HEADER_BYTES)
        self._buffer, self._start, self.at = b"", 0, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        here = self.at - self._start
        if count > len(self._buffer) - here:
            self._fill(count)
            here = 0
        self.at += count
        return self._buffer[here : here + count]

    def skip(self, count: int) -> None:
        """Leave bytes out. Reads nothing."""
        self._check(count)
        self.at += count

    def skip_strings(self, count: int) -> None:
        """Leave `count` strings out, each behind its length: the one loop that a file may make long."""
        buffer, start, at, most = self._buffer, self._start, self.at, self._most
        unpack = struct.Struct("<Q").unpack_from
        end = start + len(buffer) - 8
        for _ in range(count):
            if not start <= at <= end:
                self.at = at
                self._fill(8)
                buffer, start = self._buffer, self._start
                end = start + len(buffer) - 8
            at += 8 + unpack(buffer, at - start)[0]
            if at > most:
                self.at = most
                self._check(1)
        self.at = at

    def _fill(self, count: int) -> None:
        self._check(count)
        self._file.seek(self.at)
        self._start = self.at
        self._buffer = self._file.read(max(count, min(_READ_BYTES, self._most - self.at)))
        if len(self._buffer) < count:
            raise FileUnsafe("it ends within its header")

    def _check(self, count: int) -> None:
        if count > self._most - self.at:
            if self._most == self.size:
                raise FileUnsafe("its header goes on behind the end of the file")
            raise FileUnsafe(f"its header is longer than {MAX_HEADER_BYTES:,} bytes")


class _Header:
    def __init__(self, data: _Bytes) -> None:
        self._data = data
        self._strings_left = MAX_STRINGS
        self._alignment = _DEFAULT_ALIGNMENT
        self._template: str | None = None
        self._tensors: dict[bytes, tuple[int, int]] = {}

    def read(self) -> GgufHeader:
        if self._data.size < 4 or self._data.take(4) != b"GGUF":
            raise FileUnsafe("it does not begin with GGUF")
        self._version(self._number("<I"))
        tensors, keys = self._number("<Q"), self._number("<Q")
        if tensors > MAX_TENSORS or keys > MAX_KEYS:
            raise FileUnsafe(f"{tensors} tensors and {keys} keys are too many")
        names: dict[bytes, tuple[int, int]] = {}
        for _ in range(keys):
            name = self._name(names, MAX_KEY_BYTES, "key")
            self._pair(name, self._number("<I"))
        names.clear()
        for _ in range(tensors):
            self._tensor()
        self._place(self._tensors.values())
        return GgufHeader(tensors, self._template)

    def tensor_spans(self) -> list[TensorSpan]:
        """Once it was read."""
        data = _aligned(self._data.at, self._alignment)
        return [
            TensorSpan(name.decode("utf-8", "backslashreplace"), data + offset, size)
            for name, (offset, size) in self._tensors.items()
        ]

    def _version(self, version: int) -> None:
        if version in (2, 3):
            return
        if int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3):
            raise FileUnsafe("a GGUF file for big-endian processors; convert it for little-endian ones")
        raise FileUnsafe(f"GGUF version {version}; 2 and 3 are known")

    def _pair(self, name: bytes, kind: int) -> None:
        if name == _ALIGNMENT.encode():
            if kind != _UINT32:
                raise FileUnsafe(f"{_ALIGNMENT} is of type {kind}")
            self._alignment = self._number("<I")
            if self._alignment.bit_count() != 1 or not 8 <= self._alignment <= _MAX_ALIGNMENT:
                raise FileUnsafe(f"{_ALIGNMENT} of {self._alignment}: a power of two from 8 to {_MAX_ALIGNMENT} is one")
        elif name == CHAT_TEMPLATE.encode():
            if kind != _STRING:
                raise FileUnsafe(f"{CHAT_TEMPLATE} is of type {kind}, and no text")
            self._template = self._text(MAX_TEMPLATE_BYTES)
        elif kind == _STRING:
            self._data.skip(self._number("<Q"))
        elif kind == _ARRAY:
            self._array(self._number("<I"), self._number("<Q"))
        elif kind in _VALUE_BYTES:
            self._data.skip(_VALUE_BYTES[kind])
        else:
            raise FileUnsafe(f"a value of unknown type {kind}")

    def _array(self, kind: int, count: int) -> None:
        if kind == _STRING:
            self._strings_left -= count
            if self._strings_left < 0:
                raise FileUnsafe(f"an array of {count} texts; all arrays together may have {MAX_STRINGS:,}")
            self._data.skip_strings(count)
        elif kind in _VALUE_BYTES:
            self._data.skip(count * _VALUE_BYTES[kind])
        elif kind == _ARRAY:
            raise FileUnsafe("an array of arrays")
        else:
            raise FileUnsafe(f"an array of values of unknown type {kind}")

    def _tensor(self) -> None:
        """Note where its weights begin behind the header, and how many bytes they are."""
        name = self._name(self._tensors, MAX_TENSOR_NAME_BYTES, "tensor")
        dimensions = self._number("<I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise FileUnsafe(f"tensor {_told(name)} has {dimensions} dimensions")
        shape = [self._number("<Q") for _ in range(dimensions)]
        elements = math.prod(shape)
        if elements == 0 or max(shape) >= 1 << 63 or elements >= 1 << 63:
            raise FileUnsafe(f"tensor {_told(name)} has more elements than can be counted, or none")
        kind, offset = self._number("<I"), self._number("<Q")
        if kind not in BLOCKS:
            raise FileUnsafe(f"tensor {_told(name)} is of type {kind}, which this version does not know; update it")
        weights, size = BLOCKS[kind]
        if shape[0] % weights:
            raise FileUnsafe(f"tensor {_told(name)}: rows of {shape[0]} are no blocks of {weights}")
        self._tensors[name] = offset, elements // weights * size

    def _place(self, spans: Collection[tuple[int, int]]) -> None:
        """Each tensor must lie behind the one before, aligned and within the file, as llama.cpp wants them."""
        if not spans:
            return
        room = self._data.size - _aligned(self._data.at, self._alignment)
        position = 0
        for offset, size in spans:
            if offset != position:
                raise FileUnsafe(f"a tensor lies at {offset}, where {position} is expected: they overlap or leave gaps")
            if offset + size > room:
                raise FileUnsafe(f"a tensor of {size:,} bytes at {offset:,} ends behind the end of the file")
            position = _aligned(offset + size, self._alignment)

    def _name(self, names: dict[bytes, tuple[int, int]], most: int, what: str) -> bytes:
        length = self._number("<Q")
        if length > most:
            raise FileUnsafe(f"a {what} with a name of {length} bytes")
        name = self._data.take(length)
        if name in names:
            raise FileUnsafe(f"the {what} {_told(name)} is there twice")
        names[name] = (0, 0)
        return name

    def _text(self, most: int) -> str:
        length = self._number("<Q")
        if length > most:
            raise FileUnsafe(f"{CHAT_TEMPLATE} has {length:,} bytes; at most {most:,}")
        try:
            return self._data.take(length).decode()
        except UnicodeDecodeError as error:
            raise FileUnsafe(f"{CHAT_TEMPLATE} is not UTF-8: {error.reason} at {error.start}") from error

    def _number(self, form: str) -> int:
        return int(struct.unpack(form, self._data.take(4 if form == "<I" else 8))[0])


def _aligned(position: int, alignment: int) -> int:
    return (position + alignment - 1) // alignment * alignment


def _told(name: bytes) -> str:
    return repr(name.decode("utf-8", "backslashreplace"))
