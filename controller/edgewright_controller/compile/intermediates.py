"""What several recipes share on their way, such as the unquantised GGUF or the fp32 graph: made once, kept within a
budget.

Two builds that want the same one at the same time wait for one making. What a build holds is never removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Final

from edgewright_contract import durable

DEFAULT_BUDGET_BYTES: Final = 64 << 30


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
        """Whether it is made already."""
        return (self._folder / name).exists()

    @contextlib.asynccontextmanager
    async def hold(self, name: str, make: Callable[[Path], Awaitable[None]]) -> AsyncIterator[Path]:
        """The file or folder `name`, made by `make(path)` if it is not here, held until the block ends.

        Raises what `make` raises; nothing stays of a making that failed.
        """
        path = self._folder / name
        self._holders[name] += 1
        try:
            async with self._locks[name]:
                if not path.exists():
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
            os.rename(half, path)
            durable.sync_folder(self._folder)
        finally:
            _remove(half)

    def _trim(self) -> None:
        """Remove the longest unused ones beyond the budget."""
        entries = sorted(
            ((entry.stat().st_mtime_ns, _size(entry), entry) for entry in self._folder.iterdir()), reverse=True
        )
        total = 0
        for _used, size, entry in entries:
            total += size
            if total > self._budget and not self._holders[entry.name] and not entry.name.startswith("."):
                _remove(entry)
                total -= size


def copy(path: Path, out: Path) -> None:
    """An intermediate, file or folder, as an artifact. Not by hard links, which readers of ONNX take for an attack.
    Raises OSError."""
    if path.is_dir():
        shutil.copytree(path, out, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(path, out)


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
