"""The machine's clocks, as an envelope reports them. They are for display: nothing is decided by a device's clock."""

from __future__ import annotations

import ctypes
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
_TIMEX_BYTES = 512  # more than struct timex on every Linux
_fallback_boot_id = os.urandom(16)


@dataclass(frozen=True)
class Clocks:
    """One reading: wall clock and time since boot in ms, and whether the wall clock is known to be synchronised."""

    wall_ms: int
    mono_ms: int
    synced: bool


def read_clocks() -> Clocks:
    """The clocks now."""
    return Clocks(time.time_ns() // 1_000_000, time.monotonic_ns() // 1_000_000, _synced())


def boot_id() -> bytes:
    """16 bytes within which `mono_ms` only rises: Linux's boot id, elsewhere one for each start of the agent."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        return bytes.fromhex(text.strip().replace("-", ""))
    except (OSError, ValueError):
        return _fallback_boot_id


def _synced() -> bool:
    if sys.platform != "linux":
        return False  # not known; the controller then reckons with mono_ms
    try:
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    except (OSError, AttributeError):
        return False
    return 0 <= int(state) != _TIME_ERROR
