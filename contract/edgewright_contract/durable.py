"""The write rule for one file: temporary file in the same folder, fsync, rename, fsync of the folder.

After `write` returns, a power cut leaves the new bytes; before that, the old ones or none. Never half of them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
from pathlib import Path


def write(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Put `data` at `path`, whole and durable. `mode` holds from the first byte on. Raises OSError."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            if hasattr(os, "fchmod"):
                os.fchmod(handle, mode)
            file.write(data)
            file.flush()
            os.fsync(handle)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_folder(path.parent)


def unlink(path: Path) -> None:
    """Remove a file, read-only or not, if it is there. Raises OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    except PermissionError:
        if os.name != "nt":
            raise
        path.chmod(0o644)  # Windows removes no read-only file, nor another name of one
        path.unlink()


def sync_folder(folder: Path) -> None:
    """Make renames and removals in `folder` durable. Raises OSError."""
    if sys.platform == "win32":
        # Windows cannot open a folder for fsync; NTFS keeps renames in its own journal.
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path, *, mode: int = 0o755) -> None:
    """Make `folder` and its parents, durably; nothing when it is there. Raises NotADirectoryError, OSError."""
    if folder.is_dir():
        return
    if folder.exists():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    make_folder(folder.parent)
    folder.mkdir(mode=mode, exist_ok=True)
    sync_folder(folder.parent)
