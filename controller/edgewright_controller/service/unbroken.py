"""Work that goes on when whoever asked for it leaves.

gRPC cancels a handler when its caller goes away or its deadline passes. What the ledger has taken by then cannot be
taken back, and must not be left without what follows from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from edgewright_controller import log

T = TypeVar("T")

_log = log.of(__name__)


class Unbroken:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is done to its end also when this is cancelled. Raises what it raises."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_say_failure)
            raise


def _say_failure(task: asyncio.Task[Any]) -> None:
    """Nobody else is told of it any more."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _log.error("what a caller left behind failed", why=str(error))
