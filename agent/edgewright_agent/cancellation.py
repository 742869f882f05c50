"""A request to stop that reaches a thread wherever it waits: between two blocks, in a pause, in a network call."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class Cancelled(Exception):
    """Somebody asked for an end. What is safely on the disk stays there."""


class Cancellation:
    """Set once, by any thread; never unset."""

    def __init__(self) -> None:
        self._set = threading.Event()
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []

    def cancel(self) -> None:
        """Ask for an end: wakes `wait` and runs what `calling` has registered."""
        with self._lock:
            self._set.set()
            callbacks = list(self._callbacks)
        for callback in callbacks:
            callback()

    def check(self) -> None:
        """Raise Cancelled when an end was asked for."""
        if self._set.is_set():
            raise Cancelled

    def wait(self, seconds: float) -> None:
        """Pause for `seconds`. Raises Cancelled at once when an end is asked for."""
        if self._set.wait(seconds):
            raise Cancelled

    @contextmanager
    def calling(self, callback: Callable[[], object]) -> Iterator[None]:
        """Within the block, `cancel` calls `callback` once, at once when it came before."""
        with self._lock:
            self._callbacks.append(callback)
            early = self._set.is_set()
        if early:
            callback()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(callback)


async def in_thread(work: Callable[[Cancellation], _T]) -> _T:
    """Run `work` in a thread. When this is cancelled, the thread is asked to end, and waited for."""
    cancellation = Cancellation()
    running = asyncio.ensure_future(asyncio.to_thread(work, cancellation))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        cancellation.cancel()
        await asyncio.wait({running})
        if not running.cancelled() and not isinstance(running.exception(), Cancelled | None):
            _log.info("what was cancelled had failed meanwhile: %s", running.exception())
        raise
