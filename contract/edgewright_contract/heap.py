"""The C library's heap, set for a process that moves blocks. Where it is not glibc's (musl, macOS, Windows): nothing.

By default, glibc takes each piece above 128 KiB from the system and gives it back at once, and its heap's end, too:
each part of a download then costs page faults, a third of all processor time and more. The same can be had by the
environment (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_), which a process cannot set for itself.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any, Final

# <malloc.h>
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
# The most that glibc takes; nothing here is near it.
_MMAP_ABOVE_BYTES: Final = 32 << 20
_KEPT_BYTES: Final = 32 << 20


def set_for_blocks(arenas: int) -> None:
    """Keep what was freed, up to 32 MiB a heap, and have at most `arenas` heaps. Call it before threads start."""
    mallopt = _of_c("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, arenas)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_ABOVE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def give_back() -> None:
    """Return what is free to the system."""
    trim = _of_c("malloc_trim")
    if trim is not None:
        trim(0)


def _of_c(name: str) -> Any:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
