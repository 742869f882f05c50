"""What an engine's process says, kept within bounds: two files on disk and the last lines in memory."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import Final

MAX_FILE_BYTES: Final = 1 << 20
LAST_LINES: Final = 20
_MAX_LINE: Final = 500


class ChildLog:
    """Appends to `path`; when that would pass MAX_FILE_BYTES it becomes `path`.1 and a new one begins.

    A disk that is full costs the log, never the engine: the lines in memory go on. Those may leave the device, so
    `secret` is not in them.
    """

    def __init__(self, path: Path, secret: str = "") -> None:
        self.path = path
        self._secret = secret
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._rest = b""
        self.lost_bytes = 0

    def write(self, data: bytes) -> None:
        """Take a piece of output as it came."""
        *whole, self._rest = (self._rest + data).split(b"\n")
        self._lines.extend(self._line(line) for line in whole if line.strip())
        self._rest = self._rest[-(1 << 14) :]
        try:
            self._append(data)
        except OSError:
            self.lost_bytes += len(data)

    def last_lines(self) -> tuple[str, ...]:
        """The newest lines, an unfinished one too."""
        rest = (self._line(self._rest),) if self._rest.strip() else ()
        return (*self._lines, *rest)[-LAST_LINES:]

    def _append(self, data: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        size = self.path.stat().st_size if self.path.exists() else 0
        if size + len(data) > MAX_FILE_BYTES and size:
            os.replace(self.path, self.path.with_name(self.path.name + ".1"))
        with self.path.open("ab") as file:
            file.write(data[-MAX_FILE_BYTES:])

    def _line(self, raw: bytes) -> str:
        line = raw.decode("utf-8", "replace").rstrip()
        return (line.replace(self._secret, "[hidden]") if self._secret else line)[:_MAX_LINE]
