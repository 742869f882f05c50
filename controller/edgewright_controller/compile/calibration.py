"""The calibration text: what a model is shown while some recipes measure which of its weights matter.

It is other text than the one that the gate judges with: a build must not be fitted to its examination.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

SHIPPED: Final = Path(__file__).parent.parent / "quality" / "texts" / "calibration.txt"
MAX_BYTES: Final = 64 << 20
# A token of any vocabulary is a byte at least, and this many tokens is the least that any recipe takes.
MIN_BYTES: Final = 4096

# Tokens that recipes read: fewer say too little of a weight's columns, more change nothing any more.
LEAST_TOKENS: Final = 4096
MOST_TOKENS: Final = 1 << 17


class CalibrationError(Exception):
    """The text cannot be used; the message names the file and says what is wrong."""


@dataclass(frozen=True)
class Calibration:
    """A text and the sha256 of its bytes."""

    path: Path
    digest: str


def read(path: Path) -> Calibration:
    """The text at `path`. Raises CalibrationError when it is none, or obviously too short."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CalibrationError(f"{path}: a calibration text of more than {MAX_BYTES:,} bytes; a part of it will do")
        data = path.read_bytes()
        data.decode()
    except OSError as error:
        raise CalibrationError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CalibrationError(f"{path}: is not UTF-8 text (byte {error.start:,})") from error
    if len(data) < MIN_BYTES:
        raise CalibrationError(
            f"{path}: {len(data):,} bytes of text; calibration needs at least {LEAST_TOKENS:,} tokens, about"
            f" {4 * LEAST_TOKENS:,} bytes"
        )
    return Calibration(path, hashlib.sha256(data).hexdigest())


@cache
def shipped() -> Calibration:
    """The text that comes with Edgewright."""
    return read(SHIPPED)
