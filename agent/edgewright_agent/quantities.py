"""Sizes and durations as a person writes them in a configuration: "512MB", "16GiB", "90s", "2h"."""

from __future__ import annotations

import re
from typing import Final

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGT]i?B|B)")
_DURATION: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?(ms|s|m|h|d)")
_BYTES: Final = {"B": 1} | {
    prefix + ending: base ** (power + 1)
    for power, prefix in enumerate("KMGT")
    for ending, base in (("B", 1000), ("iB", 1024))
}
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int:
    """Bytes. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'{text!r} is not a size; write "512MB" or "8GiB"')
    return int(float(match.group(1)) * _BYTES[match.group(2)])


def parse_duration(text: str) -> float:
    """Seconds. Raises ValueError."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'{text!r} is not a duration; write "90s", "15m" or "2h"')
    return float(match.group(1)) * _SECONDS[match.group(2)]
