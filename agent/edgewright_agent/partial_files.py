"""The files of an unfinished download: made at their full size, written by position, synced together."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from edgewright_contract import durable
from edgewright_contract.bundle import Bundle

_NO_PREALLOCATION = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_OPEN = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class PartialFiles:
    """Files below `folder`, as `bundle` lists them. Keeps at most one of them open besides those to be synced."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self._folder = folder
        self._sizes = {file.path: file.size for file in bundle.files}
        self._open: dict[str, int] = {}

    def path(self, name: str) -> Path:
        """Where the file stands."""
        return self._folder / name

    def prepare(self, name: str, *, keep: bool) -> bool:
        """Make the file with room for all its bytes; whether it was made now, so that nothing in it counts.

        `keep`: it is another artifact's too and already whole; leave it alone. Raises OSError, ENOSPC among them.
        """
        path, size = self.path(name), self._sizes[name]
        if keep:
            return False
        durable.make_folder(path.parent)
        fresh = True
        try:
            status = path.lstat()
            fresh = status.st_size != size or status.st_nlink != 1
            if fresh:
                durable.unlink(path)
            else:
                path.chmod(0o644)  # a power cut may have come between sealing and naming
        except FileNotFoundError:
            pass
        if fresh:
            handle = os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                _reserve(handle, size)
                os.fsync(handle)
            except BaseException:
                # Of the wrong size, it would be taken for fresh again; but do not fill the disk meanwhile.
                os.close(handle)
                path.unlink()
                raise
            os.close(handle)
            durable.sync_folder(path.parent)
        return fresh

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Put `data` at `offset`. Not durable before `sync`. Raises OSError."""
        handle = self._open.get(name)
        if handle is None:
            handle = self._open[name] = os.open(self.path(name), _OPEN)
        os.lseek(handle, offset, os.SEEK_SET)
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]

    def sync(self) -> None:
        """Make everything written durable. Raises OSError."""
        for handle in self._open.values():
            getattr(os, "fdatasync", os.fsync)(handle)
        self.close()

    def discard(self, name: str) -> None:
        """Remove one file. Raises OSError."""
        self.close()
        durable.unlink(self.path(name))

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            os.close(self._open.popitem()[1])


def _reserve(handle: int, size: int) -> None:
    """Take the room now, so that a disk that is too small shows before an hour of download."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in _NO_PREALLOCATION:
                raise
        else:
            return
    os.ftruncate(handle, size)
