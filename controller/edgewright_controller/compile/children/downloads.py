"""What the stages that fetch share: a file grows as NAME.partial, goes on where it was cut, and gets its name when it
is whole. A file that gets more bytes than were listed ends the stage: nobody fills the disk.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from stage import Say, StageError

PARTIAL: Final = ".partial"
AT_ONCE: Final = 4
SAY_S: Final = 0.25
MAX_OTHER: Final = 20

File = dict[str, Any]


def sorted_out(names: Iterable[str], wanted: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names that are wanted by themselves or by their ending, and some of the others. Only of the top folder."""
    exact = {name for name in wanted if not name.startswith("*")}
    endings = tuple(name[1:] for name in wanted if name.startswith("*"))
    found, other = [], []
    for name in names:
        if "/" not in name and (name in exact or name.endswith(endings or ("\0",))):
            found.append(name)
        elif len(other) < MAX_OTHER:
            other.append(name[:200])
    return found, other


class Download:
    """Files on their way into a folder."""

    def __init__(self, folder: Path, files: list[File], say: Say) -> None:
        self._folder, self._files, self._say = folder, files, say
        self._total = sum(file["size"] for file in files)
        self._have = 0
        self._said = 0.0
        self._lock = threading.Lock()
        self.stopped = threading.Event()

    def run(self, fetch: Callable[[File, Growing], None]) -> None:
        """Fetch what is not here, a few at once. `fetch` writes the rest of one file, from `growing.at` on."""
        left = []
        for file in self._files:
            if _size(self._folder / file["path"]) == file["size"]:
                self.count(file["size"])
            else:
                left.append(file)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for done in [pool.submit(self._one, file, fetch) for file in left]:
                    done.result()
            except BaseException:
                self.stopped.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _one(self, file: File, fetch: Callable[[File, Growing], None]) -> None:
        target = self._folder / file["path"]
        half = target.with_name(target.name + PARTIAL)
        with Growing(half, file, self) as growing:
            if growing.at < file["size"]:
                fetch(file, growing)
            if growing.at != file["size"]:
                raise StageError(f"{file['path']}: {growing.at:,} bytes came, {file['size']:,} are listed; apply again")
        if file.get("git") and _git_blob(half) != file["git"]:
            half.unlink()
            raise StageError(f"{file['path']}: other bytes than its place lists; apply again fetches it anew")
        os.replace(half, target)

    def count(self, size: int) -> None:
        """Note bytes that are here, or, below zero, that are gone again."""
        with self._lock:
            self._have += size
            now = time.monotonic()
            if now - self._said < SAY_S and self._have < self._total:
                return
            self._said = now
            self._say(self._have / max(self._total, 1), f"{self._have / 1e6:,.1f} of {self._total / 1e6:,.1f} MB")


class Growing:
    """A file that is written to its end: what libraries that download need of one."""

    def __init__(self, path: Path, file: File, download: Download) -> None:
        self._path, self._file, self._download = path, file, download
        self._half = path.open("ab")
        if self._half.tell() > file["size"]:
            self._half.truncate(0)
        self.at = self._half.seek(0, os.SEEK_END)
        download.count(self.at)

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        self._half.flush()
        os.fsync(self._half.fileno())
        self._half.close()

    def write(self, data: bytes) -> int:
        """Append. Raises StageError beyond the size that was listed, or when another file failed."""
        if self._download.stopped.is_set():
            raise StageError("ended, because another file failed")
        if self.at + len(data) > self._file["size"]:
            raise StageError(f"{self._file['path']}: more than the {self._file['size']:,} bytes that are listed")
        self._half.write(data)
        self.at += len(data)
        self._download.count(len(data))
        return len(data)

    def tell(self) -> int:
        """How many bytes are here."""
        return self.at

    def seek(self, position: int) -> int:
        """Only to begin anew: the file is cut there by the `truncate` that follows."""
        self._half.flush()
        self._download.count(position - self.at)
        self.at = position
        return position

    def truncate(self) -> None:
        """Cut the file where it stands."""
        self._half.truncate(self.at)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _git_blob(path: Path) -> str:
    """The id that git gives such a file. Such files are small: configurations and vocabularies."""
    state = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            state.update(piece)
    return state.hexdigest()
