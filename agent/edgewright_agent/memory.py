"""Keeps the agent small: a device's memory is for its model.

glibc gives each thread an arena of its own and keeps what was freed. A few threads that fetched blocks once would
hold some ten MB for ever. Elsewhere (musl, macOS, Windows) there is nothing to do.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Final

_M_ARENA_MAX: Final = -8
_ARENAS: Final = 2


def begin_small() -> None:
    """Few arenas, from now on. Call it before threads start."""
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, _ARENAS)


def give_back() -> None:
    """Return freed memory to the system: after a start, after an update."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
