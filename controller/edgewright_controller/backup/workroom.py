"""A folder for the time of one act: nobody else's meanwhile, and emptied of what a killed process left in it."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgewright_controller.backup.errors import BackupRefused


@contextmanager
def working_in(folder: Path) -> Iterator[Path]:
    """`folder`, new and private; gone afterwards, unless it was renamed. Raises BackupRefused, OSError."""
    handle = _taken(folder)
    try:
        for leftover in folder.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
        yield folder
    finally:
        if _is(folder, handle):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _taken(folder: Path) -> int:
    while True:
        folder.mkdir(mode=0o700, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(handle)
            raise BackupRefused(f"{folder}: another backup or restore is at work; wait for its end") from error
        if _is(folder, handle):
            return handle
        os.close(handle)  # whoever had it has removed it just now


def _is(folder: Path, handle: int) -> bool:
    try:
        return os.path.samestat(folder.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False
