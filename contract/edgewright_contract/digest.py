"""sha256 as lower-case hex: the only digest that names anything here."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable
from typing import BinaryIO, Final

_HEX = re.compile(r"[0-9a-f]{64}")
_READ_BYTES: Final = 1 << 20


def is_sha256(text: str) -> bool:
    """Whether `text` is a sha256 in lower-case hex."""
    return _HEX.fullmatch(text) is not None


def of_bytes(data: bytes | memoryview) -> str:
    """The digest of bytes in memory."""
    return hashlib.sha256(data).hexdigest()


def of_file(path: str | os.PathLike[str], checkpoint: Callable[[], None] | None = None) -> str:
    """The digest of a file, read a MiB at a time. `checkpoint` is called before each and may raise. Raises OSError."""
    with open(path, "rb") as file:
        return of_open(file, checkpoint)


def of_open(file: BinaryIO, checkpoint: Callable[[], None] | None = None) -> str:
    """As `of_file`, of an open file from where it stands."""
    state = hashlib.sha256()
    while piece := file.read(_READ_BYTES):
        if checkpoint is not None:
            checkpoint()
        state.update(piece)
    return state.hexdigest()
