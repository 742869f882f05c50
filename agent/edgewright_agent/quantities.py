"""Sizes and durations as a person writes them in a configuration, "512MB", "16GiB", "90s", "2h", and reads them."""

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


def size_in_words(count: int) -> str:
    """Bytes, "12 B" to "1.5 TB"."""
    for name, factor in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {name}"
    return f"{count} B"


def span_in_words(seconds: int) -> str:
    """A length of time, "45 s", "12 min", "1 h 30 min": rounded up, so that nothing is over before it is said to be."""
    if seconds < 100:
        return f"{seconds} s"
    minutes = -(-seconds // 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
