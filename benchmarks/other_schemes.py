"""What the same updates cost by other schemes: content-defined chunks, whole tensors, zstd --patch-from.

Each is given what a careful implementation would have: the chunks of the old version are known, files that did not
change cost nothing, and the device checks what it put together by sha256.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyfastcdc import FastCDC

from edgewright_contract import bundle
from edgewright_controller.delivery.layout import layout

ZSTD: Final = shutil.which("zstd")


@dataclass(frozen=True)
class Cost:
    """Bytes that are fetched, and CPU seconds where the update is made and where it is put together."""

    fetched: int
    making_s: float
    applying_s: float


@dataclass(frozen=True)
class _Chunk:
    digest: bytes
    path: str
    start: int
    size: int


Cutter = Callable[[Path], list[_Chunk]]


def by_content(base: Path, wanted: Path) -> Cost:
    """FastCDC, 64 KiB on average."""
    return _chunked(base, wanted, _content)


def whole_tensors(base: Path, wanted: Path) -> Cost:
    """A chunk for each tensor, and one for what is between two."""
    return _chunked(base, wanted, _tensors)


def patch_from(base: Path, wanted: Path) -> Cost:
    """zstd -3 --patch-from, file by file."""
    fetched, making, applying = 0, 0.0, 0.0
    with tempfile.TemporaryDirectory() as place:
        patch, out = Path(place, "patch"), Path(place, "out")
        for file in bundle.from_folder(wanted).files:
            old, new = base / file.path, wanted / file.path
            if old.is_file() and old.read_bytes() == new.read_bytes():
                continue
            against = [f"--patch-from={old}"] if old.is_file() else []
            making += _run([str(ZSTD), "-q", "-f", "-3", "-T1", *against, str(new), "-o", str(patch)])
            fetched += patch.stat().st_size
            applying += _run([str(ZSTD), "-q", "-f", "-d", "--long=31", *against, str(patch), "-o", str(out)])
            began = time.thread_time()
            assert hashlib.sha256(out.read_bytes()).hexdigest() == file.sha256
            applying += time.thread_time() - began
    return Cost(fetched, making, applying)


def _run(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _chunked(base: Path, wanted: Path, cut: Cutter) -> Cost:
    held = {chunk.digest: chunk for chunk in cut(base)}
    began = time.thread_time()
    chunks = cut(wanted)
    lacking = {chunk.digest: chunk for chunk in chunks if chunk.digest not in held}
    making = time.thread_time() - began
    fetched = {digest: _read(wanted, chunk) for digest, chunk in lacking.items()}
    began = time.thread_time()
    with tempfile.TemporaryDirectory() as place:
        for chunk in chunks:
            data = fetched.get(chunk.digest) or _read(base, held[chunk.digest])
            assert hashlib.sha256(data).digest() == chunk.digest
            path = Path(place, chunk.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(path, "ab", buffering=0) as out:
                out.write(data)
        assert bundle.from_folder(Path(place)).digest == bundle.from_folder(wanted).digest
    return Cost(sum(len(data) for data in fetched.values()), making, time.thread_time() - began)


def _content(folder: Path) -> list[_Chunk]:
    return [
        _Chunk(hashlib.sha256(chunk.data).digest(), path, chunk.offset, chunk.length)
        for path in _files(folder)
        for chunk in FastCDC(64 << 10).cut_file(folder / path)
    ]


def _tensors(folder: Path) -> list[_Chunk]:
    chunks: list[_Chunk] = []
    for path, regions in layout(bundle.from_folder(folder), folder).items():
        for region in regions:
            data = _read(folder, _Chunk(b"", path, region.start, region.size))
            chunks.append(_Chunk(hashlib.sha256(data).digest(), path, region.start, region.size))
    return chunks


def _files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())


def _read(folder: Path, chunk: _Chunk) -> bytes:
    with open(folder / chunk.path, "rb", buffering=0) as file:
        return os.pread(file.fileno(), chunk.size, chunk.start)
