"""How a manifest writes durations, sizes, shares and paths. Inside they are whole seconds, bytes and devices."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = r"[1-9][0-9]{0,8}[smhd]"

_BYTES: Final = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12} | {
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
_SIZE: Final = r"([0-9]{1,9}(?:\.[0-9]{1,3})?) ?([KMGT]i?B)"
MAX_BYTES: Final = 2**60

_PERCENT: Final = r"([1-9][0-9]?|100)%"


def _refuse(kind: str, message: str) -> PydanticCustomError:
    # The message is a template of pydantic's: what an operator wrote must not be read as one.
    return PydanticCustomError(kind, "{text}", {"text": message})


def seconds(text: str) -> int | None:
    """The seconds of a duration like "90s", "15m", "2h" or "7d"; None when it is none."""
    return int(text[:-1]) * _SECONDS[text[-1]] if re.fullmatch(_DURATION, text) else None


def _duration(value: Any) -> int:
    found = seconds(value) if isinstance(value, str) else None
    if found is None:
        raise _refuse("duration", 'must be a duration with its unit, like "90s", "15m" or "2h"')
    return found


def _size(value: Any) -> int:
    size = -1
    if type(value) is int:
        size = value
    elif isinstance(value, str) and (match := re.fullmatch(_SIZE, value)):
        size = int(float(match.group(1)) * _BYTES[match.group(2)])
    if 0 < size <= MAX_BYTES:
        return size
    raise _refuse("size", 'must be a size, like "8GB" (8,000,000,000), "16GiB" (17,179,869,184), or a number of bytes')


def _first_wave(value: Any) -> int | str:
    if type(value) is int and value > 0:
        return value
    if isinstance(value, str) and re.fullmatch(_PERCENT, value):
        return value
    raise _refuse("first_wave", 'must be a number of devices from 1, or a share like "10%"')


def _path(value: str) -> str:
    if "://" in value:
        raise _refuse("path", "must be a path on the controller's machine; this version reads no other sources")
    if value.startswith("~"):
        raise _refuse("path", '"~" is not expanded; write the whole path, or one from the manifest')
    if not value.isprintable():
        raise _refuse("path", "has a character that cannot be printed")
    return value


def devices_of_share(first_wave: int | str, total: int) -> int:
    """How many of `total` devices a `FirstWave` means: at least one, never more than there are."""
    if isinstance(first_wave, int):
        return min(first_wave, total)
    return min(total, max(1, -(-total * int(first_wave[:-1]) // 100)))


Seconds = Annotated[int, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": f"^{_DURATION}$"})]
Bytes = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{_SIZE}$"}, {"type": "integer", "minimum": 1}]}),
]
FirstWave = Annotated[
    int | str,
    BeforeValidator(_first_wave),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_PERCENT}$"}]}),
]
LocalPath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_path)]
