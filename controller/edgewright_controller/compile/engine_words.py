"""What an engine says while it is measured: into its build's log up to a size, and its last line; never its secret."""

from __future__ import annotations

from collections import deque
from typing import BinaryIO, Final

MAX_LINE: Final = 1 << 16
MAX_LOG_BYTES: Final = 1 << 20


class Words:
    """The words of one engine."""

    def __init__(self, log: BinaryIO, secret: str) -> None:
        self._log, self._secret = log, secret
        self._left = MAX_LOG_BYTES
        self._lines: deque[str] = deque(maxlen=1)
        self._rest = b""

    @property
    def last(self) -> str:
        """The last line."""
        return self._lines[-1] if self._lines else ""

    def add(self, data: bytes) -> None:
        """Some more, cut anywhere."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-MAX_LINE:]
        for line in lines:
            text = line.decode("utf-8", "replace").rstrip().replace(self._secret, "[hidden]")
            if text:
                self._lines.append(text[:500])
                self._write(text.encode() + b"\n")

    def _write(self, line: bytes) -> None:
        if self._left <= 0:
            return
        self._left -= len(line)
        try:
            self._log.write(line if self._left > 0 else b"[the log ends here: it has reached its size]\n")
        except OSError:
            self._left = 0  # a full disk costs the log only
