"""The header of a safetensors file: which tensors it holds, checked against the file's size. Reads no weights.

The header is JSON, and a general reader would make of a hostile one whatever it likes to hold in memory. So it is
taken apart here tensor by tensor, and only a description of a few hundred bytes is given to `json` at a time.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from edgewright_contract.model_files import FileUnsafe, TensorSpan, plain_json

# The format allows 100 MB; a hundred thousand tensors need a tenth of it, and no model has as many.
MAX_HEADER_BYTES: Final = 16 << 20
MAX_TENSORS: Final = 1 << 17
MAX_NAME_BYTES: Final = 1 << 10
MAX_DESCRIPTION_BYTES: Final = 1 << 10
MAX_DIMENSIONS: Final = 16
MAX_METADATA_BYTES: Final = 1 << 18
MAX_METADATA: Final = 1 << 10

# Bits of one element.
_BITS: Final = MappingProxyType(
    {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "I16": 16, "U16": 16}
    | {"F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64}
    | {"F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8}
)
_METADATA: Final = "__metadata__"
_BLANK = re.compile(rb"[ \t\n\r]*")
_KEY = re.compile(rb'[ \t\n\r]*("(?:[^"\\\x00-\x1f]|\\.){0,%d}")[ \t\n\r]*:[ \t\n\r]*' % MAX_NAME_BYTES)
_DESCRIPTION = re.compile(rb"\{[^{}]{0,%d}\}" % MAX_DESCRIPTION_BYTES)
_TABLE_OF_TEXTS = re.compile(
    rb"\{[ \t\n\r]*(?:%(text)s[ \t\n\r]*:[ \t\n\r]*%(text)s[ \t\n\r]*,?[ \t\n\r]*){0,%(most)d}\}"
    % {b"text": rb'"[^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*"', b"most": MAX_METADATA}
)
_DESCRIBED: Final = frozenset({"dtype", "shape", "data_offsets"})


@dataclass(frozen=True)
class Header:
    """What a file holds: elements of all tensors together, by type; and the tensors' names."""

    elements: Mapping[str, int]
    names: frozenset[str]


def read(path: Path) -> Header:
    """The checked header of `path`. Raises FileUnsafe, OSError."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= size - 8:
            raise FileUnsafe("not a safetensors file, or one that was cut off")
        if length > MAX_HEADER_BYTES:
            raise FileUnsafe(f"its header of {length:,} bytes is too long; at most {MAX_HEADER_BYTES:,}")
        data = file.read(length)
    return _checked(data, size - 8 - length)


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by name, when the whole header is in order. Raises FileUnsafe, OSError."""
    read(path)
    with open(path, "rb") as file:
        data = file.read(int.from_bytes(file.read(8), "little"))
    return {
        name: tuple(_json(description, name)["shape"])
        for name, description in _entries(data)
        if description is not None
    }


def tensor_spans(path: Path) -> list[TensorSpan]:
    """Where each tensor lies, in the file's order, when the whole header is in order. Raises FileUnsafe, OSError."""
    read(path)
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        data = file.read(length)
    spans = []
    for name, description in _entries(data):
        if description is not None:
            start, end = _json(description, name)["data_offsets"]
            spans.append(TensorSpan(name, 8 + length + start, end - start))
    return sorted(spans, key=lambda span: span.offset)


def _checked(data: bytes, size: int) -> Header:
    elements: Counter[str] = Counter()
    spans: list[tuple[int, int]] = []
    names: set[str] = set()
    for name, description in _entries(data):
        if name in names:
            raise FileUnsafe(f"{name!r} is described twice")
        if len(names) >= MAX_TENSORS:
            raise FileUnsafe(f"more than {MAX_TENSORS:,} tensors")
        names.add(name)
        if description is not None:
            kind, count, span = _tensor(name, description)
            elements[kind] += count
            spans.append(span)
    # The format wants the tensors side by side, without a gap or anything after them.
    position = 0
    for start, end in sorted(spans):
        if start != position:
            raise FileUnsafe("its tensors overlap or leave gaps")
        position = end
    if position != size:
        raise FileUnsafe(f"{size:,} bytes of tensors, {position:,} described: the file was cut off or grew")
    return Header(MappingProxyType(dict(elements)), frozenset(names - {_METADATA}))


def _entries(data: bytes) -> Iterator[tuple[str, bytes | None]]:
    """Each tensor's name and description, as JSON. The metadata is checked here, and comes as None."""
    if data[:1] != b"{":
        raise FileUnsafe("its header is not a table of tensors")
    at = 1
    while True:
        key = _KEY.match(data, at)
        if key is None:
            break
        name = _json(key[1], "a name")
        if name == _METADATA:  # a long text of escapes would cost the matcher much memory
            value = _TABLE_OF_TEXTS.match(data, key.end(), key.end() + MAX_METADATA_BYTES)
        else:
            value = _DESCRIPTION.match(data, key.end())
        if value is None:
            if name == _METADATA:
                raise FileUnsafe(
                    f"{_METADATA} is no table of texts: at most {MAX_METADATA}, in {MAX_METADATA_BYTES:,} bytes"
                )
            raise FileUnsafe(f"tensor {name!r}: no description of at most {MAX_DESCRIPTION_BYTES} bytes")
        if name == _METADATA:
            _json(value[0], _METADATA)
        yield name, None if name == _METADATA else value[0]
        at = _past_blanks(data, value.end())
        if data[at : at + 1] != b",":
            break
        at += 1
    at = _past_blanks(data, at)
    # The header may be filled up with blanks, so that the weights are aligned.
    if data[at : at + 1] != b"}" or _past_blanks(data, at + 1) != len(data):
        raise FileUnsafe(f"its header is not JSON as the format has it, from byte {at} on")


def _tensor(name: str, text: bytes) -> tuple[str, int, tuple[int, int]]:
    """Type, elements, and first and last position of one tensor."""
    description = _json(text, f"tensor {name!r}")
    try:
        if set(description) != _DESCRIBED:
            raise FileUnsafe(f"tensor {name!r}: {sorted(description)} in its description")
        kind, shape, (start, end) = description["dtype"], description["shape"], description["data_offsets"]
        if len(shape) > MAX_DIMENSIONS:
            raise FileUnsafe(f"tensor {name!r} has {len(shape)} dimensions")
        if any(type(number) is not int or not 0 <= number < 1 << 63 for number in [*shape, start, end]):
            raise FileUnsafe(f"tensor {name!r}: a size or position is not a whole number")
        count = math.prod(shape)
        bits = _BITS[kind] * count
    except FileUnsafe:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise FileUnsafe(f"tensor {name!r}: {error!r} in its description") from error
    if (end - start) * 8 != bits:
        raise FileUnsafe(f"tensor {name!r}: {end - start} bytes do not hold {count} of {kind}")
    return kind, count, (start, end)


def _json(text: bytes, what: str) -> Any:
    try:
        return plain_json.loads(text)
    except ValueError as error:
        raise FileUnsafe(f"{what}: not JSON: {error}") from error


def _past_blanks(data: bytes, at: int) -> int:
    found = _BLANK.match(data, at)
    return found.end() if found else at
