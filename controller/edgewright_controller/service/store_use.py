"""Who counts on what is in the store, so that nothing is collected that is about to be named.

A change looks for what is built already long before the ledger has an entry that says so. From its look until its
rollout is entered it *uses* the store, and nothing is collected; while something is collected, which takes no longer
than some renames, changes wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StoreBusy(Exception):
    """Something uses the store. The text says what."""


class Use:
    """One use of the store, until `end`."""

    def __init__(self, uses: dict[Use, str]) -> None:
        self._uses = uses

    def end(self) -> None:
        """What was counted on is entered, or is not needed. May be said again."""
        self._uses.pop(self, None)


class StoreUse:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        self._uses: dict[Use, str] = {}
        self._collecting = asyncio.Lock()

    async def begin(self, what: str) -> Use:
        """Count on what is there from now on; `what` is told to whom that hinders."""
        async with self._collecting:
            use = Use(self._uses)
            self._uses[use] = what
        return use

    @asynccontextmanager
    async def collecting(self) -> AsyncIterator[None]:
        """Until the block ends, nobody begins to count on anything. Raises StoreBusy."""
        async with self._collecting:
            if self._uses:
                first = next(iter(self._uses.values()))
                raise StoreBusy(f"{first} is under way, and counts on what is built; collect when its rollout runs")
            yield
