"""Calls into the C library that Python has no name for. An error is an OSError with what was tried."""

from __future__ import annotations

import ctypes
import os
from typing import Any, Final

PR_SET_PDEATHSIG: Final = 1
PR_SET_SECCOMP: Final = 22
PR_CAPBSET_DROP: Final = 24
PR_SET_SECUREBITS: Final = 28
PR_SET_NO_NEW_PRIVS: Final = 38

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(what: str, option: int, *arguments: Any) -> None:
    """prctl(2). Raises OSError."""
    values = [value if not isinstance(value, int) else ctypes.c_ulong(value) for value in arguments]
    padding = [ctypes.c_ulong(0)] * (4 - len(values))
    if _libc.prctl(ctypes.c_int(option), *values, *padding) != 0:
        raise_errno(what)


def syscall(what: str, number: int, *arguments: Any) -> int:
    """A system call by its number; its result. Raises OSError."""
    values = [value if not isinstance(value, int) else ctypes.c_long(value) for value in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *values))
    if result < 0:
        raise_errno(what)
    return result


def unshare(what: str, flags: int) -> None:
    """unshare(2). Raises OSError."""
    if _libc.unshare(ctypes.c_int(flags)) != 0:
        raise_errno(what)


def raise_errno(what: str) -> None:
    """Raises OSError of the call that just failed."""
    number = ctypes.get_errno()
    raise OSError(number, f"{what}: {os.strerror(number)}")
