"""Which stages and builds run at the same time: as many as there is room for, by the bytes that each should take.

A small one does not wait behind a large one that has no room yet, unless so many have been let past it that it would
never come. One that is larger than all the room runs alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

# So often later ones go first; then the first in the line is waited for.
MAX_PASSED: Final = 8


@dataclass
class Waiting:
    """One that waits for so many bytes, and how often others were let past it."""

    bytes: int
    passed: int = 0


def admitted(waiting: Sequence[Waiting], free_bytes: int, free_places: int, *, idle: bool) -> int | None:
    """The place in the line of the one that goes next, None while all must wait. Pure.

    `idle`: nothing runs, so the first goes whatever it needs.
    """
    if not waiting or free_places < 1:
        return None
    if idle:
        return 0
    for place, one in enumerate(waiting):
        if one.bytes <= free_bytes:
            return place
        if one.passed >= MAX_PASSED:
            return None
    return None


class Room:
    """Bytes, of memory or of disk, and places. `total_bytes` is asked whenever one comes or goes."""

    def __init__(self, total_bytes: Callable[[], int], places: int) -> None:
        """`total_bytes`: what all together may take now, those that run included; `places`: how many may run."""
        self._total_bytes, self._places = total_bytes, places
        self._taken_bytes = 0
        self._running = 0
        self._line: list[tuple[Waiting, asyncio.Future[None]]] = []

    @contextlib.asynccontextmanager
    async def take(self, expected_bytes: int, waits: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
        """Room for one until the block ends; `waits` is called if it has to wait for it."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (Waiting(expected_bytes), turn)
        self._line.append(entry)
        self._admit()
        if not turn.done():
            waits()
        try:
            await turn
        except asyncio.CancelledError:
            if entry in self._line:
                self._line.remove(entry)
            else:
                self._leave(expected_bytes)  # its turn came at the same moment
            self._admit()
            raise
        try:
            yield
        finally:
            self._leave(expected_bytes)
            self._admit()

    def _leave(self, expected_bytes: int) -> None:
        self._taken_bytes -= expected_bytes
        self._running -= 1

    def _admit(self) -> None:
        while True:
            free_bytes = self._total_bytes() - self._taken_bytes
            line = [waiting for waiting, _ in self._line]
            place = admitted(line, free_bytes, self._places - self._running, idle=self._running == 0)
            if place is None:
                return
            for waiting in line[:place]:
                waiting.passed += 1
            waiting, turn = self._line.pop(place)
            self._taken_bytes += waiting.bytes
            self._running += 1
            turn.set_result(None)
