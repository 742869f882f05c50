"""A request to stop that reaches a thread wherever it waits: between two blocks, in a pause, in a network call."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
