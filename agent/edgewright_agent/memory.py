"""Keeps the agent small: a device's memory is for its model.

glibc gives each thread an arena of its own and keeps what was freed. A few threads that fetched blocks once would
hold some ten MB for ever.
"""

from __future__ import annotations

import gc
from typing import Final

from edgewright_contract import heap

_ARENAS: Final = 2


def begin_small() -> None:
    """Few arenas, from now on. Call it before threads start."""
    heap.set_for_blocks(_ARENAS)


def give_back() -> None:
    """Return freed memory to the system: after a start, after an update."""
    gc.collect()
    heap.give_back()
