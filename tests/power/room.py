"""A folder for many copies of a device's disk: in memory where there is some, for what is synced there costs nothing.

Whether a sync was made is known by the record, not by the disk of the machine that the tests run on.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_MEMORY: Final = Path("/dev/shm")
_NEEDED_BYTES: Final = 1 << 30


@contextlib.contextmanager
def room() -> Iterator[Path]:
    """An empty folder, gone afterwards."""
    fits = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > _NEEDED_BYTES
    with tempfile.TemporaryDirectory(prefix="edgewright-power-", dir=_MEMORY if fits else None) as folder:
        yield Path(folder)
