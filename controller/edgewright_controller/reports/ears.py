"""Between the link's thread and the event loop: a bounded queue, and one wake-up for many messages."""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgewright_contract.mqtt_link import Incoming, Outgoing

MAX_WAITING: Final = 5_000
_FULL_S: Final = 5.0


@dataclass(frozen=True)
class Heard:
    """A message and when it arrived, in Unix milliseconds by the controller's clock."""

    message: Incoming
    recv_ms: int


class Ears:
    """Hears the link (mqtt_link.Listener). `connected` and `confirmed` are called on the event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, on_connected: Callable[[int], None], on_confirmed: Callable[[int], None]
    ):
        self._loop, self._on_connected, self._on_confirmed = loop, on_connected, on_confirmed
        self._waiting: queue.Queue[Heard] = queue.Queue(MAX_WAITING)
        self._arrived = asyncio.Event()

    async def arrival(self) -> None:
        """Return when there may be something to take."""
        await self._arrived.wait()
        self._arrived.clear()

    def wake(self) -> None:
        """Let `arrival` return although nothing arrived."""
        self._arrived.set()

    def take(self, limit: int) -> list[Heard]:
        """At most `limit` messages, in the order of their arrival."""
        batch: list[Heard] = []
        with contextlib.suppress(queue.Empty):
            while len(batch) < limit:
                batch.append(self._waiting.get_nowait())
        return batch

    def will(self) -> Outgoing | None:
        """The controller leaves nothing behind."""
        return None

    def connected(self, connection: int) -> None:
        """Pass it on."""
        self._loop.call_soon_threadsafe(self._on_connected, connection)

    def disconnected(self, connection: int) -> None:
        """Nothing to do: what was not acknowledged comes again."""

    def published(self, connection: int, token: int) -> None:
        """Pass it on."""
        self._loop.call_soon_threadsafe(self._on_confirmed, token)

    def received(self, message: Incoming) -> None:
        """Queue it. When the store has been stuck for long, queue.Full ends the connection; all comes again."""
        self._waiting.put(Heard(message, time.time_ns() // 1_000_000), timeout=_FULL_S)
        if not self._arrived.is_set():
            self._loop.call_soon_threadsafe(self._arrived.set)
