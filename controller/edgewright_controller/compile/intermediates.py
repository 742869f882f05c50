"""What several recipes share on their way, such as the unquantised GGUF or the fp32 graph: made once, kept within a
budget.

Two builds that want the same one at the same time wait for one making. What a build holds is never removed for want of
room. Beside each stands a record of how many bytes its files have: what a disk or a person has cut short, or taken a
part of, is made again, and so is what whoever asks for it finds to be garbage.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

from edgewright_contract import durable

DEFAULT_BUDGET_BYTES: Final = 64 << 30
# Of the record beside each: {path of a file within it: its bytes}.
_RECORD: Final = ".sizes"
_MAX_RECORD_BYTES: Final = 1 << 20

Sound = Callable[[Path], bool]
"""Whether what is there can be what was made; asked before each use, so it must be quick. May raise OSError."""


class Intermediates:
    """Files and folders of files in a folder, each with a name that says everything that shaped its bytes."""

    def __init__(self, folder: Path, budget_bytes: int = DEFAULT_BUDGET_BYTES) -> None:
        """Open `folder`, made if absent, and remove what a crash left half done. Raises OSError."""
        self._folder = folder
        self._budget = budget_bytes
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._holders: Counter[str] = Counter()
        durable.make_folder(folder)
        for leftover in folder.glob(".*"):
            _remove(leftover)

    def has(self, name: str) -> bool:
        """Whether it is made already, and whole."""
        return _is_whole(self._folder / name)

    @contextlib.asynccontextmanager
    async def hold(
        self, name: str, make: Callable[[Path], Awaitable[None]], sound: Sound = Path.exists
    ) -> AsyncIterator[Path]:
        """The file or folder `name`, made by `make(path)` if it is not here whole and `sound`, held until the block
        ends.

        Raises what `make` raises; nothing stays of a making that failed.
        """
        path = self._folder / name
        self._holders[name] += 1
        try:
            async with self._locks[name]:
                if not await asyncio.to_thread(lambda: _is_whole(path) and sound(path)):
                    # Who holds it still has what is broken, and fails or not; nobody else is to.
                    await asyncio.to_thread(_remove, path)
                    await self._make(path, make)
            os.utime(path)
            yield path
        finally:
            self._holders[name] -= 1
            self._trim()

    def unused(self) -> list[tuple[str, int, int]]:
        """What no build holds: name, bytes, and when it was used last (Unix milliseconds). Raises OSError."""
        found = [path for path in self._folder.iterdir() if not path.name.startswith(".")]
        return [
            (path.name, _size(path), path.stat().st_mtime_ns // 1_000_000)
            for path in found
            if not self._holders[path.name]
        ]

    def drop(self, names: Iterable[str]) -> None:
        """Remove these; one that a build holds by now stays. Raises OSError."""
        for name in names:
            if not self._holders[name] and Path(name).name == name:
                _remove(self._folder / name)

    async def _make(self, path: Path, make: Callable[[Path], Awaitable[None]]) -> None:
        # The suffix stays last: a converter may go by it.
        half = path.with_name(f".{path.name}")
        try:
            await make(half)
            await asyncio.to_thread(_sync, half)
            durable.write(_record(path), json.dumps(_sizes(half)).encode())
            os.rename(half, path)
            durable.sync_folder(self._folder)
        finally:
            _remove(half)

    def _trim(self) -> None:
        """Remove the longest unused ones beyond the budget."""
        there = [entry for entry in self._folder.iterdir() if entry.suffix != _RECORD]
        entries = sorted(((entry.stat().st_mtime_ns, _size(entry), entry) for entry in there), reverse=True)
        total = 0
        for _used, size, entry in entries:
            total += size
            if total > self._budget and not self._holders[entry.name] and not entry.name.startswith("."):
                _remove(entry)
                _record(entry).unlink(missing_ok=True)
                total -= size


def copy(path: Path, out: Path) -> None:
    """An intermediate, file or folder, as an artifact. Not by hard links, which readers of ONNX take for an attack.
    Raises OSError."""
    if path.is_dir():
        shutil.copytree(path, out, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(path, out)


def _record(path: Path) -> Path:
    return path.with_name(path.name + _RECORD)


def _is_whole(path: Path) -> bool:
    """Whether all files are there with the sizes that they were made with."""
    record = _record(path)
    try:
        if not path.exists() or record.stat().st_size > _MAX_RECORD_BYTES:
            return False
        return bool(json.loads(record.read_bytes()) == _sizes(path))
    except (FileNotFoundError, ValueError):
        return False  # without a record that can be read nobody knows


def _sizes(path: Path) -> dict[str, int]:
    return {file.relative_to(path).as_posix(): file.stat().st_size for file in _files(path)}


def _files(path: Path) -> list[Path]:
    return sorted(path.iterdir()) if path.is_dir() else [path]


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in _files(path))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    for file in {*_files(path), path}:
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
