"""The files of an unfinished download: made at their full size, written by position, synced together.

The folder is the agent's own, but nothing in it is believed: what stands there was left by an agent that was killed,
or planted. Files are made new (O_EXCL), links are never followed, and what the bundle does not list goes.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from edgewright_contract import digest, durable, plain_file
from edgewright_contract.bundle import Bundle

_NO_PREALLOCATION = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_SHARED: Final = 4096  # bytes; what can be shared starts and ends at such a position on any file system that can
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL


class PartialFiles:
    """Files below `folder`, as `bundle` lists them. Keeps at most one of them open besides those to be synced."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self.folder = folder
        self._sizes = {file.path: file.size for file in bundle.files}
        self._open: dict[str, int] = {}

    def prepare(self, name: str, *, keep: bool) -> bool:
        """Make the file with room for all its bytes; whether it was made now, so that nothing in it counts.

        `keep`: it is another artifact's too and already whole; leave it alone. Raises OSError, ENOSPC among them.
        """
        if keep:
            return False
        path, size = self.folder / name, self._sizes[name]
        self._make_room(name)
        fresh = True
        try:
            status = path.lstat()
            fresh = not stat.S_ISREG(status.st_mode) or status.st_size != size or status.st_nlink != 1
            if fresh:
                plain_file.remove(path)
            else:
                self._set_mode(name, 0o644)  # a power cut may have come between sealing and naming
        except FileNotFoundError:
            pass
        if fresh:
            handle = plain_file.open_below(self.folder, name, _NEW)
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

    def take_over(self, name: str, old: Path) -> bool:
        """Make the file a link to another artifact's; False when that cannot be linked to. Raises OSError."""
        self._make_room(name)
        plain_file.remove(self.folder / name)
        return link(old, self.folder / name)

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Put `data` at `offset`. Not durable before `sync`. Raises OSError."""
        handle = self._opened(name)
        os.lseek(handle, offset, os.SEEK_SET)
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]

    def copy(self, name: str, offset: int, data: bytes, source: int, at: int) -> None:
        """As `write`, of `data` that stands at `at` in the open file `source`: shared, where the file system can."""
        handle, copied = self._opened(name), 0
        # File systems share whole pages only; for anything else the system would just copy what is in hand here.
        if hasattr(os, "copy_file_range") and not (offset % _SHARED or at % _SHARED or len(data) % _SHARED):
            try:
                while copied < len(data) and (
                    more := os.copy_file_range(source, handle, len(data) - copied, at + copied, offset + copied)
                ):
                    copied += more
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    raise
        if copied < len(data):
            self.write(name, offset + copied, data[copied:])

    def sync(self) -> None:
        """Make everything written durable. Raises OSError."""
        for handle in self._open.values():
            getattr(os, "fdatasync", os.fsync)(handle)
        self.close()

    def sha256(self, name: str, checkpoint: Callable[[], None]) -> str:
        """The digest of the file as it stands; empty when it is no plain, legible file any more. Raises OSError."""
        try:
            with plain_file.read_below(self.folder, name) as file:
                return digest.of_open(file, checkpoint)
        except (plain_file.NotPlain, FileNotFoundError):
            return ""
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            return ""

    def discard(self, name: str) -> None:
        """Remove one file. Raises OSError."""
        self.close()
        plain_file.remove(self.folder / name)

    def seal(self) -> None:
        """Nothing but the bundle's files, read-only; modes and folders durable, innermost first. Raises OSError."""
        keep_only(self.folder, self._sizes)
        for name in self._sizes:
            self._set_mode(name, 0o444)
        for place, _names, _leaves in os.walk(self.folder, topdown=False):
            durable.sync_folder(Path(place))

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _opened(self, name: str) -> int:
        handle = self._open.get(name)
        if handle is None:
            handle = self._open[name] = plain_file.open_below(self.folder, name, os.O_RDWR)
        return handle

    def _make_room(self, name: str) -> None:
        """The folder that the file is to stand in, whatever stood in its way."""
        parent, _, _ = name.rpartition("/")
        if parent:
            plain_file.make_folders_below(self.folder, parent)

    def _set_mode(self, name: str, mode: int) -> None:
        handle = plain_file.open_below(self.folder, name, os.O_RDONLY)
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(handle, mode)
                os.fsync(handle)  # else it is open to be written to again after a power cut
            else:
                (self.folder / name).chmod(mode)
        finally:
            os.close(handle)


def keep_only(folder: Path, names: Collection[str]) -> None:
    """Remove what is below `folder` but these files and the folders on the way to them. Raises OSError."""
    folders = {parent for name in names for parent in (folder / name).parents}
    for place, inner, leaves in os.walk(folder):
        for path in [Path(place, name) for name in inner + leaves]:
            if (path not in folders or path.is_symlink()) and path.relative_to(folder).as_posix() not in names:
                plain_file.remove(path)


def link(old: Path, new: Path) -> bool:
    """Give a file another name; False when the file system has no links, or not one more of this file."""
    try:
        os.link(old, new, **({"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}))
    except OSError:
        return False
    return True


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
