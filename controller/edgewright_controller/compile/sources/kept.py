"""What was fetched or made of other sources, in STATE/sources: each under a key that says everything that shaped it.

<key>/          the files, complete and looked at
<key>.json      what is known of them: it stays when the files had to make room, so that builds that are there
                already need no second download
.<key>/         on its way; what came of it before a cut or a crash is gone on from
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from edgewright_contract import digest, durable
from edgewright_controller.compile.source import ModelFacts, Source, SourceError, SourceFile

FORMAT: Final = 1
MAX_RECORD_BYTES: Final = 4 << 20
MAX_RECORDS: Final = 2_000
# Left free for everything else that the machine does.
RESERVE_BYTES: Final = 256 << 20
_RECORD: Final = ".json"
_LOG: Final = ".log"


@dataclass(frozen=True)
class Known:
    """A source that is, or was, here: what a plan needs of it. `bytes` of all files."""

    key: str
    digest: str
    bytes: int
    facts: ModelFacts | None
    origin: str
    requantised: bool


class Kept:
    """The folder STATE/sources. Belongs to one event loop; what reads many bytes is not done here."""

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        """Open the folder, made if absent, and remove what nobody can go on with. Raises OSError."""
        self.folder, self._budget = folder, budget_bytes
        self._held: Counter[str] = Counter()
        self._locks: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        durable.make_folder(folder)
        for entry in folder.iterdir():
            if entry.name.startswith(".") and not digest.is_sha256(entry.name[1:]):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def known(self, key: str) -> Known | None:
        """What is known of it, None for nothing."""
        record = self._record(key)
        return record[0] if record else None

    def source(self, key: str) -> Source | None:
        """It itself, when all its files are as they were put here."""
        record = self._record(key)
        if record is None:
            return None
        known, files = record
        source = Source(self.folder / key, known.digest, files, known.facts, known.origin, known.requantised)
        try:
            if not all(file.unchanged for file in files):
                return None
            os.utime(source.folder)
        except OSError:
            return None
        return source

    def newest_commit(self, repository: str) -> str:
        """The commit of the repository that was put here last; empty for none."""
        beginning = f"hf://{repository}@"
        for record in self._records():
            known = self.known(record.stem)
            if known is not None and known.origin.startswith(beginning) and known.facts is not None:
                return known.origin.removeprefix(beginning)
        return ""

    def half(self, key: str) -> Path:
        """Where it is put together; made if absent. Raises OSError."""
        path = self.folder / f".{key}"
        path.mkdir(exist_ok=True)
        return path

    def alone(self, key: str) -> asyncio.Lock:
        """Held by who brings or makes it, so that it is brought or made once."""
        return self._locks[key]

    def log(self, key: str) -> BinaryIO:
        """Where those who bring or make it write. Raises OSError."""
        return (self.folder / f"{key}{_LOG}").open("ab", buffering=0)

    def check_disk(self, more_bytes: int) -> None:
        """Raises SourceError when there is no room for as much more."""
        free = shutil.disk_usage(self.folder).free
        needed = max(0, more_bytes) + RESERVE_BYTES
        if free < needed:
            raise SourceError(
                f"{self.folder}: about {needed:,} bytes of disk are needed, {free:,} are free; make room, or serve "
                "with --state on a larger disk"
            )

    def drop_half(self, key: str) -> None:
        """Give up what came so far."""
        shutil.rmtree(self.folder / f".{key}", ignore_errors=True)

    def put(self, key: str, made: Source, *, origin: str, requantised: bool) -> Source:
        """Keep `made`, which stands in `half(key)`, and make room for it. Raises OSError."""
        half, target = self.half(key), self.folder / key
        for file in made.files:
            os.chmod(file.place, 0o444)
        durable.sync_folder(half)
        if target.exists():
            shutil.rmtree(target)  # damaged: `source` did not know it any more
        os.rename(half, target)
        durable.sync_folder(self.folder)
        files = tuple(dataclasses.replace(file, place=target / file.path) for file in made.files)
        source = dataclasses.replace(made, folder=target, files=files, origin=origin, requantised=requantised)
        durable.write(self.folder / f"{key}{_RECORD}", json.dumps(_to_json(source)).encode())
        with self.holding([key]):
            self._make_room()
        return source

    @contextlib.contextmanager
    def holding(self, keys: Iterable[str]) -> Iterator[None]:
        """Until the block ends, these do not make room for others, half or whole."""
        held = list(keys)
        self._held.update(held)
        try:
            yield
        finally:
            self._held.subtract(held)

    def unused(self) -> list[tuple[Known, int, int]]:
        """What nobody holds, halves left out: what is known of it, its bytes, and when it was used last (Unix
        milliseconds). Raises OSError."""
        found = []
        for record in self._records():
            folder, known = record.with_suffix(""), self.known(record.stem)
            if known is not None and folder.is_dir() and not self._held[known.key]:
                found.append((known, known.bytes, folder.stat().st_mtime_ns // 1_000_000))
        return found

    def drop(self, keys: Iterable[str]) -> None:
        """Remove the files of these; what is known of them stays, and what somebody holds by now does. Raises
        OSError."""
        for key in keys:
            if digest.is_sha256(key) and not self._held[key]:
                shutil.rmtree(self.folder / key, ignore_errors=False)

    def _record(self, key: str) -> tuple[Known, tuple[SourceFile, ...]] | None:
        path = self.folder / f"{key}{_RECORD}"
        try:
            if path.stat().st_size > MAX_RECORD_BYTES:
                return None
            return _from_json(key, self.folder / key, json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            # As if it were not here: it can be had again.
            return None

    def _make_room(self) -> None:
        """Remove the longest unused beyond the budget, halves too, and the oldest records beyond their number."""
        found = []
        for entry in self.folder.iterdir():
            if entry.is_dir():
                size = sum(file.stat().st_size for file in entry.iterdir() if file.is_file())
                found.append((entry.stat().st_mtime_ns, size, entry))
        total = 0
        for _used, size, entry in sorted(found, reverse=True):
            total += size
            if total > self._budget and not self._held[entry.name.removeprefix(".")]:
                shutil.rmtree(entry)
                total -= size
        for old in self._records()[MAX_RECORDS:]:
            if not old.with_suffix("").exists():
                old.unlink()
                old.with_suffix(_LOG).unlink(missing_ok=True)

    def _records(self) -> list[Path]:
        """The newest first."""
        return sorted(self.folder.glob(f"*{_RECORD}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _to_json(source: Source) -> dict[str, Any]:
    return {
        "edgewright_source": FORMAT,
        "digest": source.digest,
        "origin": source.origin,
        "requantised": source.requantised,
        "facts": dataclasses.asdict(source.facts) if source.facts else None,
        "files": [[file.path, file.size, file.sha256, file.mtime_ns, file.inode] for file in source.files],
    }


def _from_json(key: str, folder: Path, document: Any) -> tuple[Known, tuple[SourceFile, ...]] | None:
    if document["edgewright_source"] != FORMAT:
        return None
    files = tuple(
        SourceFile(path, folder / path, size, sha256, mtime_ns, inode)
        for path, size, sha256, mtime_ns, inode in document["files"]
    )
    facts = ModelFacts(**document["facts"]) if document["facts"] else None
    size = sum(file.size for file in files)
    known = Known(key, document["digest"], size, facts, document["origin"], document["requantised"])
    return known, files
