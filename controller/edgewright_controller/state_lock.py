"""One controller for one state folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class StateInUse(Exception):
    """Another controller has the state folder; the message names its process."""


class StateLock:
    """The lock on `folder`/lock, held from `take` until `release`."""

    def __init__(self, folder: Path, handle: int) -> None:
        self._folder, self._handle = folder, handle

    @classmethod
    def take(cls, folder: Path) -> StateLock:
        """Take the lock without waiting. Raises StateInUse, OSError."""
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise StateInUse(f"{folder}: another controller (pid {holder}) uses this state folder") from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        return cls(folder, handle)

    def release(self) -> None:
        """Let another controller in."""
        os.close(self._handle)
