"""Revocations reach the broker: a new list of what is revoked, and an end to the connections that stand.

A broker reads the list for new connections only, and goes on with those that it has. So it is started again, once for
all revocations of a few seconds; honest devices come back by themselves and lose nothing, for what the controller has
not confirmed is still in their spools.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

from edgewright_controller import log
from edgewright_controller.pki import Authority
from edgewright_controller.service.revocations import Denials, Revocations, revoked_serials

# Several revocations that come together make one restart.
GATHER_S: Final = 2.0
AGAIN_S: Final = 10.0

_log = log.of(__name__)


class Restarts(Protocol):
    """The broker, if it is ours."""

    async def restart(self) -> None:
        """End every connection; new ones are let in by the new list."""


class ShuttingOut:
    """Runs from `start` to `close`."""

    def __init__(
        self,
        authority: Authority,
        revocations: Revocations,
        broker: Restarts | None,
        clock: Callable[[], datetime],
        *,
        gather_s: float = GATHER_S,
    ) -> None:
        self._authority, self._revocations, self._broker = authority, revocations, broker
        self._clock, self._gather_s = clock, gather_s
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen for revocations."""
        self._revocations.listen(self._due.set)
        self._task = asyncio.create_task(self._run(), name="shutting out")

    async def close(self) -> None:
        """End. What was revoked a moment ago is in the list that the next start writes."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await self._due.wait()
            await asyncio.sleep(self._gather_s)  # others that come in this time share the restart
            self._due.clear()
            try:
                write_list(self._authority, self._revocations.current, self._clock())
                if self._broker is not None:
                    await self._broker.restart()
            except Exception as error:
                # Whoever was revoked may still be connected: not an end, but the next try.
                _log.error("the broker was not told of a revocation; it is tried again", why=repr(error))
                self._due.set()
                await asyncio.sleep(AGAIN_S)  # the pace of trying again


def write_list(authority: Authority, current: Denials, now: datetime) -> None:
    """Write the list of what is revoked now. Raises OSError."""
    authority.write_crl(revoked_serials(current), now)
