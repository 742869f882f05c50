"""A change in progress, as those who watch it see it.

Progress is state, not history: of each build and device only the newest event is kept, so a watcher that
comes late, or is slow, gets the picture as it is and never makes the controller remember more than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from edgewright_contract.v1 import operator_pb2


class Job:
    """Events of one change. The last one holds the result; after it nothing more is said."""

    def __init__(self) -> None:
        self._events: dict[str, tuple[int, operator_pb2.ApplyEvent]] = {}
        self._count = 0
        self._result: operator_pb2.ApplyResult | None = None
        self._changed = asyncio.Event()

    @property
    def result(self) -> operator_pb2.ApplyResult | None:
        """How it ended, None while it runs."""
        return self._result

    def say(self, event: operator_pb2.ApplyEvent) -> None:
        """Tell everyone who follows. Nothing can be said after the result."""
        if self._result is not None:
            raise ValueError("the job has ended")
        key = _key(event) or f"message {self._count}"
        self._count += 1
        self._events.pop(key, None)  # so that the newest stands last
        self._events[key] = (self._count, event)
        if event.HasField("result"):
            self._result = event.result
        self._changed.set()
        self._changed = asyncio.Event()

    def message(self, text: str) -> None:
        """Tell a line of text."""
        self.say(operator_pb2.ApplyEvent(message=text))

    async def follow(self) -> AsyncIterator[operator_pb2.ApplyEvent]:
        """Every event that is still the newest of its kind, in order, until the result."""
        seen = 0
        while True:
            changed = self._changed
            news = []
            for count, event in reversed(self._events.values()):
                if count <= seen:
                    break
                news.append((count, event))
            for count, event in reversed(news):
                seen = count
                yield event
                if event.HasField("result"):
                    return
            await changed.wait()


def _key(event: operator_pb2.ApplyEvent) -> str:
    kind = event.WhichOneof("event")
    if kind == "build":
        return f"build {event.build.build_key}"
    if kind == "device":
        return f"device {event.device.device}"
    return "" if kind == "message" else str(kind)
