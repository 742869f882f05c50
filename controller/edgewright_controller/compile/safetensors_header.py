"""The header of a safetensors file: which tensors it holds, checked against the file's size. Reads no weights."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

# The format's own limit.
MAX_HEADER_BYTES: Final = 100_000_000

# Bits of one element.
_BITS: Final = MappingProxyType(
    {"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "I16": 16, "U16": 16}
    | {"F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64}
)


class HeaderError(ValueError):
    """The file is not a whole safetensors file."""


@dataclass(frozen=True)
class Header:
    """What a file holds: elements of all tensors together, by type; and the tensors' names."""

    elements: Mapping[str, int]
    names: frozenset[str]


def read(path: Path) -> Header:
    """The checked header of `path`. Raises HeaderError, OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
            raise HeaderError("not a safetensors file, or one that was cut off")
        data = file.read(length)
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"its header is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise HeaderError("its header is not a table of tensors")
    return _checked(document, size - 8 - length)


def _checked(document: dict[str, Any], size: int) -> Header:
    elements: Counter[str] = Counter()
    spans = []
    for name, entry in document.items():
        if name == "__metadata__":
            continue
        try:
            kind, shape, (start, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
            numbers = [*shape, start, end]
            if any(type(number) is not int or number < 0 for number in numbers):
                raise HeaderError(f"tensor {name!r}: a size or position is not a whole number")
            count = math.prod(shape)
            bits = _BITS[kind] * count
        except HeaderError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            raise HeaderError(f"tensor {name!r}: {error!r} in its description") from error
        if (end - start) * 8 != bits:
            raise HeaderError(f"tensor {name!r}: {end - start} bytes do not hold {count} of {kind}")
        elements[kind] += count
        spans.append((start, end))
    # The format wants the tensors side by side, without a gap or anything after them.
    position = 0
    for start, end in sorted(spans):
        if start != position:
            raise HeaderError("its tensors overlap or leave gaps")
        position = end
    if position != size:
        raise HeaderError(f"{size:,} bytes of tensors, {position:,} described: the file was cut off or grew")
    return Header(MappingProxyType(dict(elements)), frozenset(document) - {"__metadata__"})
