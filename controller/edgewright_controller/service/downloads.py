"""Downloads as they are sent: a slot for each, part after part as its reader takes them, and an end to one that stalls.

Of a stream, this process holds one block and the part that gRPC has not got rid of yet; that is all the back-pressure
there is, since a part is made when the one before it was taken.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from typing import Any, Final

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.delivery.terms import Terms
from edgewright_controller.service.blocks import Blocks
from edgewright_controller.service.download_slots import TURN_BYTES, DownloadSlots, TooMany
from edgewright_controller.service.pacing import Pacing
from edgewright_controller.service.reading import PATIENCE_S, Reading, TooSlow

# What each of a site's downloads has of its line at the least; with more of them, none would get on.
SHARE_BYTES_PER_S: Final = 64_000
# Devices that waited for a window come within so many seconds of its beginning.
_SCATTER_S: Final = 60.0

Write = Callable[[Any], Awaitable[None]]


class NotNow(TooMany):
    """The device's window is shut."""


class Downloads:
    """Sends documents and blocks to devices. One instance for all."""

    def __init__(
        self,
        blocks: Blocks,
        slots: DownloadSlots | None = None,
        terms: Callable[[str], Terms] = lambda device: Terms(),
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`terms`: how fast and when a device may download. `wall`: Unix seconds, for windows."""
        self._blocks, self._slots, self._terms = blocks, slots or DownloadSlots(), terms
        self._patience_s, self._clock, self._wall = patience_s, clock, wall
        self._pacing, self._of_sites = Pacing(), dict[tuple[str, int], DownloadSlots]()

    async def document(self, device: str, sha256: str, write: Write) -> None:
        """Send the document of this digest. Raises NotHere, TooMany, BadRange, TooSlow."""
        with self._slot(device):
            reading = Reading(self._patience_s)
            async with aclosing(_generator(self._blocks.object(sha256))) as parts:
                async for data in parts:
                    await self._send(agent_pb2.ObjectPart(data=data), len(data), write, reading)

    async def blocks(self, device: str, request: agent_pb2.FetchBlocksRequest, write: Write) -> None:
        """Send the blocks asked for, or as many whole ones as make a turn while others wait for theirs.

        Raises NotHere, TooMany, NotNow, BadRange, TooSlow.
        """
        terms = self._terms(device)
        self._check_window(terms)
        with self._site_slot(device, terms), self._slot(device):
            reading, sent, at = Reading(self._patience_s), 0, -1
            async with aclosing(_generator(self._blocks.blocks(request))) as parts:
                async for part in parts:
                    if part.head.index != at:
                        if sent >= TURN_BYTES and self._slots.crowded:
                            return
                        if sent and not terms.is_open(self._wall()):
                            return
                        at = part.head.index
                    size, message = len(part.data), part.encoded()
                    del part  # the message has a copy of its data
                    if wait_s := self._pacing.wait_s(device, terms, size, self._clock()):
                        await asyncio.sleep(wait_s)
                    await self._send(message, size, write, reading)
                    sent += size

    def _check_window(self, terms: Terms) -> None:
        now = self._wall()
        if terms.is_open(now):
            return
        wait_s = terms.opens_in(now)
        # Not for secrets: it keeps a site's devices from coming at the same moment.
        scatter_s = random.random() * _SCATTER_S  # noqa: S311 jitter needs no cryptography
        again_s = scatter_s + (wait_s if wait_s is not None else 24 * 3600.0)
        raise NotNow(f"downloads wait for their window: {terms.words(now)}", again_s)

    @contextmanager
    def _site_slot(self, device: str, terms: Terms) -> Iterator[None]:
        """So many of a site's devices at once that each gets on at its site's rate."""
        if terms.site_rate is None:
            yield
            return
        streams = max(terms.site_rate // SHARE_BYTES_PER_S, 1)
        slots = self._of_sites.setdefault((terms.site, streams), DownloadSlots(streams))
        with _taken(slots, device, self._clock):
            yield

    def _slot(self, device: str) -> AbstractContextManager[None]:
        return _taken(self._slots, device, self._clock)

    async def _send(self, message: Any, size: int, write: Write, reading: Reading) -> None:
        began = self._clock()
        allowed_s = reading.allowed_s(size, crowded=self._slots.crowded)
        try:
            async with asyncio.timeout(allowed_s):
                await write(message)
        except TimeoutError:
            raise TooSlow(f"{size} bytes were not taken within {allowed_s:.0f} s; come again") from None
        reading.took(self._clock() - began, size)


@contextmanager
def _taken(slots: DownloadSlots, device: str, clock: Callable[[], float]) -> Iterator[None]:
    began = clock()
    slots.take(device, began)
    try:
        yield
    finally:
        slots.give_back(device, clock() - began)


def _generator(messages: AsyncIterator[Any]) -> Any:
    """The async generator that it is, which AsyncIterator does not say."""
    return messages
