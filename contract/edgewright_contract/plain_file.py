"""Opening files below a folder so that nothing planted there leads elsewhere: no link, no pipe, no device.

Every folder on the way is opened without following links, and the file at its end is asked what it is after it was
opened, so that nothing can be swapped in between the look and the use. Where the system cannot open below an open
folder (Windows), each part of the path is looked at first.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO, Final

from edgewright_contract import durable

_BELOW: Final = os.open in os.supports_dir_fd
_NOFOLLOW: Final = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
# Without O_NONBLOCK, opening a pipe would wait for somebody at its other end.
_FILE: Final = _NOFOLLOW | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_FOLDER: Final = os.O_RDONLY | _NOFOLLOW | getattr(os, "O_DIRECTORY", 0)
_REPARSE_POINT: Final = 0x400  # Windows: a link, or a junction, which lstat takes for a folder


class NotPlain(OSError):
    """At the path stands a link, a pipe or a device, or a link is on the way to it."""

    def __init__(self, path: Path, found: str = "neither a file nor a folder") -> None:
        self._said = f"{path}: {found}"
        super().__init__(errno.ELOOP, found, str(path))

    def __str__(self) -> str:
        return self._said


def open_below(folder: Path, name: str, flags: int, mode: int = 0o644) -> int:
    """A descriptor of the file `name` (with `/`) below `folder`. Raises NotPlain, OSError."""
    path = folder / name
    try:
        handle = _open_at(folder, name, flags | _FILE, mode) if _BELOW else _open_looked_at(folder, name, flags, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):
            raise NotPlain(path) from error
        if error.errno == errno.ENOTDIR:
            raise NotPlain(path, "something on the way to it is no folder") from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise NotPlain(path)
    return handle


def read_below(folder: Path, name: str) -> BinaryIO:
    """The file `name` below `folder`, open for reading. Raises NotPlain, OSError."""
    return os.fdopen(open_below(folder, name, os.O_RDONLY), "rb")


def make_folders_below(folder: Path, name: str) -> Path:
    """The folder `name` (with `/`) below `folder`, made durably. What stands in its way is removed. Raises OSError."""
    place = folder
    for part in name.split("/"):
        place = place / part
        if not _is_folder(place):
            remove(place)
            place.mkdir()
            durable.sync_folder(place.parent)
    return place


def remove(path: Path) -> None:
    """Remove whatever is there, if anything; of a link the link. Raises OSError."""
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        durable.unlink(path)


def _is_folder(path: Path) -> bool:
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISDIR(found.st_mode) and not getattr(found, "st_file_attributes", 0) & _REPARSE_POINT


def _open_at(folder: Path, name: str, flags: int, mode: int) -> int:
    *parts, leaf = name.split("/")
    at = os.open(folder, _FOLDER)
    try:
        for part in parts:
            inner = os.open(part, _FOLDER, dir_fd=at)
            os.close(at)
            at = inner
        return os.open(leaf, flags, mode, dir_fd=at)
    finally:
        os.close(at)


def _open_looked_at(folder: Path, name: str, flags: int, mode: int) -> int:
    place = folder
    *parts, leaf = name.split("/")
    for part in parts:
        place = place / part
        if not _is_folder(place):
            raise NotPlain(place, "no folder")
    path = place / leaf
    if path.exists() and getattr(path.lstat(), "st_file_attributes", 0) & _REPARSE_POINT:
        raise NotPlain(path)
    return os.open(path, flags | _FILE, mode)
