"""How a manifest writes durations, times of day, sizes, rates, shares, time zones and paths. Inside they are whole
seconds, minutes, bytes and devices."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from edgewright_controller.manifest.errors import nearest, quoted
from edgewright_controller.rollout.window import zones

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

# A device takes a slower source for a dead one.
MIN_RATE: Final = 64_000

_PERCENT: Final = r"([1-9][0-9]?|100)%"
ALL: Final = "100%"

_START: Final = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]"
_END: Final = rf"{_START}|24:00"


HOURS: Final = f"^({_START}) ?- ?({_END})$"


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


def duration_text(count: int) -> str:
    """Seconds as a manifest writes them, in the largest unit that needs no fraction: "90s", "15m"."""
    unit = next(unit for unit in reversed(_SECONDS) if count % _SECONDS[unit] == 0)
    return f"{count // _SECONDS[unit]}{unit}"


def _start(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(_START, value):
        return _minute(value)
    raise _refuse("time_of_day", 'must be a time of day in quotes, from "00:00" to "23:59"')


def _end(value: Any) -> int:
    if isinstance(value, str) and re.fullmatch(_END, value):
        return _minute(value)
    raise _refuse("time_of_day", 'must be a time of day in quotes, from "00:00" to "24:00"')


def hours(text: str) -> tuple[str, str] | None:
    """Start and end of hours like "22:00-06:00"; None when it is no such thing."""
    found = re.fullmatch(HOURS, text)
    return (found.group(1), found.group(2)) if found else None


def _minute(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])


def _time_zone(value: str) -> str:
    if value in zones():
        return value
    near = nearest(value, zones())
    cure = f"did you mean {quoted(near)}?" if near else 'the names are those of the IANA, like "Europe/Berlin" or "UTC"'
    raise _refuse("time_zone", f"there is no time zone {quoted(value)}; {cure}")


def size_bytes(value: object) -> int | None:
    """The bytes of a size like "8GB" or "16GiB", or of a number of bytes; None when it is none."""
    size = -1
    if type(value) is int:
        size = value
    elif isinstance(value, str) and (match := re.fullmatch(_SIZE, value)):
        size = int(float(match.group(1)) * _BYTES[match.group(2)])
    return size if 0 < size <= MAX_BYTES else None


def _size(value: Any) -> int:
    size = size_bytes(value)
    if size is not None:
        return size
    raise _refuse("size", 'must be a size, like "8GB" (8,000,000,000), "16GiB" (17,179,869,184), or a number of bytes')


def _rate(value: Any) -> int:
    found = size_bytes(value[:-2]) if isinstance(value, str) and value.endswith("/s") else None
    if found is None or found < MIN_RATE:
        raise _refuse("rate", 'must be bytes a second, at least "64KB/s", like "20MB/s" or "500KB/s"')
    return found


def _share(value: Any) -> int | str:
    if type(value) is int and value > 0:
        return value
    if isinstance(value, str) and re.fullmatch(_PERCENT, value):
        return value
    raise _refuse("share", 'must be a number of devices from 1, or a share like "10%"')


def _path(value: str) -> str:
    if "://" in value:
        raise _refuse("path", "must be a path on the controller's machine")
    if value.startswith("~"):
        raise _refuse("path", '"~" is not expanded; write the whole path, or one from the manifest')
    if not value.isprintable():
        raise _refuse("path", "has a character that cannot be printed")
    return value


def devices_of_share(share: int | str, total: int) -> int:
    """How many of `total` devices a `Share` means: at least one, never more than there are."""
    if isinstance(share, int):
        return min(share, total)
    return min(total, max(1, -(-total * int(share[:-1]) // 100)))


Seconds = Annotated[int, BeforeValidator(_duration), WithJsonSchema({"type": "string", "pattern": f"^{_DURATION}$"})]
Bytes = Annotated[
    int,
    BeforeValidator(_size),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": f"^{_SIZE}$"}, {"type": "integer", "minimum": 1}]}),
]
Rate = Annotated[int, BeforeValidator(_rate), WithJsonSchema({"type": "string", "pattern": f"^{_SIZE}/s$"})]
StartOfWindow = Annotated[int, BeforeValidator(_start), WithJsonSchema({"type": "string", "pattern": f"^({_START})$"})]
EndOfWindow = Annotated[int, BeforeValidator(_end), WithJsonSchema({"type": "string", "pattern": f"^({_END})$"})]
TimeZone = Annotated[str, Field(max_length=64), AfterValidator(_time_zone)]
Share = Annotated[
    int | str,
    BeforeValidator(_share),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": f"^{_PERCENT}$"}]}),
]
LocalPath = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_path)]
