"""Who runs while an engine is timed: nobody else, as far as that is ours to say.

Builds are `busy`, as many at once as there is room for. Timing waits until none is, and while it lasts none begins: it
comes when the last build of a batch is done, and not in the middle of it. A controller that never comes to rest is not
waited for for ever; then the card says that others ran.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

PATIENCE_S: Final = 900.0


class Quiet:
    """Counts who is busy, and lets one at a time be alone."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        """`patience_s`: how long timing waits for the others."""
        self._patience_s = patience_s
        self._busy = 0
        self._changed = asyncio.Condition()
        self._one = asyncio.Lock()
        self._timing = False

    @contextlib.asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """At work until the block ends. Waits while somebody is alone."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._timing)
            self._busy += 1
        try:
            yield
        finally:
            await asyncio.shield(self._leave())

    @contextlib.asynccontextmanager
    async def alone(self) -> AsyncIterator[bool]:
        """One at a time, and nobody busy until the block ends; False when the others did not end in time."""
        async with self._one:
            alone = await self._hush()
            try:
                yield alone
            finally:
                await asyncio.shield(self._resume())

    async def _hush(self) -> bool:
        async with self._changed:
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._changed.wait_for(lambda: self._busy == 0)
            except TimeoutError:
                return False
            self._timing = True
            return True

    async def _resume(self) -> None:
        async with self._changed:
            self._timing = False
            self._changed.notify_all()

    async def _leave(self) -> None:
        async with self._changed:
            self._busy -= 1
            self._changed.notify_all()
