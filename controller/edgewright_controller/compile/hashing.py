"""sha256 of files, remembered by what the file system says of them, so that an unchanged checkpoint is read once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgewright_contract import digest, durable

# A file may change twice within one tick of the file system's clock; what is younger is not remembered.
SETTLED_NS: Final = 2_000_000_000
MAX_ENTRIES: Final = 10_000
MAX_CACHE_BYTES: Final = 8 << 20


class Hashes:
    """Digests of files, kept in `file` between runs (only in memory without one). Not for many processes at once."""

    def __init__(self, file: Path | None = None) -> None:
        """Read what was kept; a damaged cache is an empty one, because it can be made again."""
        self._file = file
        self._known: dict[str, str] = _load(file) if file else {}
        self._changed = False

    def of(self, path: Path) -> str:
        """The file's sha256. Raises OSError."""
        stat = path.stat()
        key = f"{path.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ino}"
        if key in self._known:
            return self._known[key]
        found = digest.of_file(path)
        after = path.stat()
        unchanged = (after.st_size, after.st_mtime_ns, after.st_ino) == (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        if unchanged and time.time_ns() - stat.st_mtime_ns > SETTLED_NS:
            while len(self._known) >= MAX_ENTRIES:
                self._known.pop(next(iter(self._known)))
            self._known[key] = found
            self._changed = True
        return found

    def save(self) -> None:
        """Keep what is known for the next run. Raises OSError."""
        if self._file and self._changed:
            durable.make_folder(self._file.parent)
            durable.write(self._file, json.dumps(self._known).encode())
            self._changed = False


def _load(file: Path) -> dict[str, str]:
    try:
        if os.stat(file).st_size > MAX_CACHE_BYTES:
            return {}
        known = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, Mapping):
        return {}
    return {str(key): value for key, value in known.items() if isinstance(value, str) and digest.is_sha256(value)}
