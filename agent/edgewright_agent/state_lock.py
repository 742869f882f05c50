"""One agent on one state folder. The lock is the kernel's, so it ends with the process, however that ends."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from types import TracebackType

from edgewright_contract import durable


class StateInUse(Exception):
    """Another agent runs on this state folder."""


class StateLock:
    """Holds STATE/lock from `__enter__` to `__exit__`. The file has the holder's process id, for messages."""

    def __init__(self, state: Path) -> None:
        self._path = state / "lock"
        self._handle = -1

    def __enter__(self) -> StateLock:
        """Raises StateInUse, OSError."""
        durable.make_folder(self._path.parent)
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _take(handle):
            holder = _holder(handle)
            os.close(handle)
            raise StateInUse(f"another agent{holder} uses {self._path.parent}; stop it, or set another state folder")
        with contextlib.suppress(OSError):  # a full disk costs a message the number, and no agent its start
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, str(os.getpid()).encode())
        self._handle = handle
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)


def is_running(state: Path) -> bool:
    """Whether an agent holds the lock of this state folder. Raises OSError."""
    try:
        handle = os.open(state / "lock", os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _take(handle)
    finally:
        os.close(handle)


def _holder(handle: int) -> str:
    try:
        text = os.read(handle, 20).decode("ascii", "replace")
    except OSError:  # on Windows, what is locked cannot be read
        return ""
    return f" (pid {text})" if text.isdecimal() else ""


def _take(handle: int) -> bool:
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
