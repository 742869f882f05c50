"""The files of an unfinished download: made at their full size, written by position, synced together.

The folder is the agent's own, but nothing in it is believed: what stands there was left by an agent that was killed,
or planted. Files are made new (O_EXCL), links are never followed, and what the bundle does not list goes.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edgewright_contract import digest, durable, plain_file
from edgewright_contract.bundle import Bundle

_NO_PREALLOCATION = frozenset({errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
_NEW: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL


class PartialFiles:
    """Files below `folder`, as `bundle` lists them. Keeps at most one of them open besides those to be synced."""

    def __init__(self, folder: Path, bundle: Bundle) -> None:
        self._folder = folder
        self._sizes = {file.path: file.size for file in bundle.files}
        self._open: dict[str, int] = {}

    def prepare(self, name: str, *, keep: bool) -> bool:
        """Make the file with room for all its bytes; whether it was made now, so that nothing in it counts.

        `keep`: it is another artifact's too and already whole; leave it alone. Raises OSError, ENOSPC among them.
        """
        if keep:
            return False
        path, size = self._folder / name, self._sizes[name]
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
            handle = plain_file.open_below(self._folder, name, _NEW)
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

    def take_over(self, name: str, old: Path) -> None:
        """Make the file a link to another artifact's; a copy where the file system has no links. Raises OSError."""
        self._make_room(name)
        new = self._folder / name
        plain_file.remove(new)
        try:
            os.link(old, new, **({"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}))
        except OSError:
            with (
                plain_file.read_below(old.parent, old.name) as source,
                os.fdopen(plain_file.open_below(self._folder, name, _NEW), "wb") as file,
            ):
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(file.fileno())

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Put `data` at `offset`. Not durable before `sync`. Raises OSError."""
        handle = self._open.get(name)
        if handle is None:
            handle = self._open[name] = plain_file.open_below(self._folder, name, os.O_RDWR)
        os.lseek(handle, offset, os.SEEK_SET)
        view = memoryview(data)
        while view:
            view = view[os.write(handle, view) :]

    def sync(self) -> None:
        """Make everything written durable. Raises OSError."""
        for handle in self._open.values():
            getattr(os, "fdatasync", os.fsync)(handle)
        self.close()

    def sha256(self, name: str, checkpoint: Callable[[], None]) -> str:
        """The digest of the file as it stands; empty when it is no plain file any more. Raises OSError."""
        try:
            with plain_file.read_below(self._folder, name) as file:
                return digest.of_open(file, checkpoint)
        except (plain_file.NotPlain, FileNotFoundError):
            return ""

    def discard(self, name: str) -> None:
        """Remove one file. Raises OSError."""
        self.close()
        plain_file.remove(self._folder / name)

    def seal(self) -> None:
        """Nothing but the bundle's files, read-only; folders durable, innermost first. Raises OSError."""
        folders = {parent for name in self._sizes for parent in (self._folder / name).parents}
        for place, names, leaves in os.walk(self._folder):
            for path in [Path(place, name) for name in names + leaves]:
                if path not in folders and path.relative_to(self._folder).as_posix() not in self._sizes:
                    plain_file.remove(path)
        for name in self._sizes:
            self._set_mode(name, 0o444)
        for place, _names, _leaves in os.walk(self._folder, topdown=False):
            durable.sync_folder(Path(place))

    def close(self) -> None:
        """Close what is open."""
        while self._open:
            os.close(self._open.popitem()[1])

    def _make_room(self, name: str) -> None:
        """The folder that the file is to stand in, whatever stood in its way."""
        parent, _, _ = name.rpartition("/")
        if parent:
            plain_file.make_folders_below(self._folder, parent)

    def _set_mode(self, name: str, mode: int) -> None:
        handle = plain_file.open_below(self._folder, name, os.O_RDONLY)
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(handle, mode)
            else:
                (self._folder / name).chmod(mode)
        finally:
            os.close(handle)


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
