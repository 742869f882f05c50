"""Downloads as they are sent: a slot for each, part after part as its reader takes them, and an end to one that stalls.

Of a stream, this process holds one block and the part that gRPC has not got rid of yet; that is all the back-pressure
there is, since a part is made when the one before it was taken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.service.blocks import Blocks
from edgewright_controller.service.download_slots import TURN_BYTES, DownloadSlots
from edgewright_controller.service.reading import PATIENCE_S, Reading, TooSlow

Write = Callable[[Any], Awaitable[None]]


class Downloads:
    """Sends documents and blocks to devices. One instance for all."""

    def __init__(
        self,
        blocks: Blocks,
        slots: DownloadSlots | None = None,
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._blocks, self._slots = blocks, slots or DownloadSlots()
        self._patience_s, self._clock = patience_s, clock

    async def document(self, device: str, sha256: str, write: Write) -> None:
        """Send the document of this digest. Raises NotHere, TooMany, BadRange, TooSlow."""
        with self._slot(device):
            reading = Reading(self._patience_s)
            async with aclosing(_generator(self._blocks.object(sha256))) as parts:
                async for data in parts:
                    await self._send(agent_pb2.ObjectPart(data=data), len(data), write, reading)

    async def blocks(self, device: str, request: agent_pb2.FetchBlocksRequest, write: Write) -> None:
        """Send the blocks asked for, or as many whole ones as make a turn while others wait for theirs.

        Raises NotHere, TooMany, BadRange, TooSlow.
        """
        with self._slot(device):
            reading, sent, at = Reading(self._patience_s), 0, -1
            async with aclosing(_generator(self._blocks.blocks(request))) as parts:
                async for part in parts:
                    if part.head.index != at:
                        if sent >= TURN_BYTES and self._slots.crowded:
                            return
                        at = part.head.index
                    size = len(part.data)
                    await self._send(part.encoded(), size, write, reading)
                    sent += size

    @contextmanager
    def _slot(self, device: str) -> Iterator[None]:
        began = self._clock()
        self._slots.take(device, began)
        try:
            yield
        finally:
            self._slots.give_back(device, self._clock() - began)

    async def _send(self, message: Any, size: int, write: Write, reading: Reading) -> None:
        began = self._clock()
        allowed_s = reading.allowed_s(size, crowded=self._slots.crowded)
        try:
            async with asyncio.timeout(allowed_s):
                await write(message)
        except TimeoutError:
            raise TooSlow(f"{size} bytes were not taken within {allowed_s:.0f} s; come again") from None
        reading.took(self._clock() - began, size)


def _generator(messages: AsyncIterator[Any]) -> Any:
    """The async generator that it is, which AsyncIterator does not say."""
    return messages
