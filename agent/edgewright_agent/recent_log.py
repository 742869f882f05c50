"""The agent's own last log lines, kept in memory for whoever asks from afar. Bounded, and without secrets."""

from __future__ import annotations

import logging
import re
import threading
from collections import deque
from typing import Final

MAX_LINES: Final = 200
_MAX_LINE: Final = 500
_MAX_RECORD: Final = 1 << 16
_HIDDEN: Final = "[hidden]"
# Nothing writes these on purpose. A message that quotes a file, a header or a command line may still contain one.
_SECRETS: Final = (
    re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL),
    re.compile(r"ewt1\.[A-Za-z0-9_-]+"),  # an enrolment token
    re.compile(r"(?i)(?<=bearer )\S+"),
    re.compile(r"(?i)(?<=api_keys: )\S+"),  # llama.cpp shows the end of its key
)


class RecentLog(logging.Handler):
    """The last MAX_LINES lines of what the agent logged since it started."""

    def __init__(self, format_: str) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(logging.Formatter(format_))
        self._lines: deque[str] = deque(maxlen=MAX_LINES)
        self._turn = threading.Lock()

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        text = without_secrets(self.format(record)[:_MAX_RECORD])
        with self._turn:
            self._lines.extend(line[:_MAX_LINE] for line in text.splitlines())

    def lines(self) -> tuple[str, ...]:
        """The oldest first."""
        with self._turn:
            return tuple(self._lines)


def without_secrets(text: str) -> str:
    """`text` with whatever looks like a key, a token or a password to an engine taken out. Pure."""
    for secret in _SECRETS:
        text = secret.sub(_HIDDEN, text)
    return text
