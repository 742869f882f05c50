"""Revocations reach the broker: a list of what is revoked that is always in its time, and an end to what stands.

A broker reads the list for new connections only, and goes on with those that it has. So it is started again, once for
all revocations of a few seconds, and not more often than every half minute; honest devices come back by themselves and
lose nothing, for what the controller has not confirmed is still in their spools.

A list that has ended, or that begins in the future, lets nobody in at all. So it is looked at every minute: a host
that slept for weeks, or whose clock was set, has a good one a minute later.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final, Protocol

from edgewright_controller import log
from edgewright_controller.pki import Authority
from edgewright_controller.pki_files import crl_ages, crl_left
from edgewright_controller.service.revocations import Denials, Revocations, revoked_serials

# Several revocations that come together make one restart.
GATHER_S: Final = 2.0
SPACING_S: Final = 30.0
LOOK_S: Final = 60.0
AGAIN_S: Final = 10.0
ALARM: Final = timedelta(days=3)

_log = log.of(__name__)


class ManagedBroker(Protocol):
    """The broker, if it is ours."""

    async def restart(self) -> None:
        """End every connection; new ones are let in by the new list."""

    def reload(self) -> None:
        """Read the list again; connections that stand go on."""


class ShuttingOut:
    """Runs from `start` to `close`."""

    def __init__(
        self,
        authority: Authority,
        revocations: Revocations,
        broker: ManagedBroker | None,
        clock: Callable[[], datetime],
        *,
        gather_s: float = GATHER_S,
        spacing_s: float = SPACING_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._authority, self._revocations, self._broker, self._clock = authority, revocations, broker, clock
        self._gather_s, self._spacing_s, self._look_s = gather_s, spacing_s, look_s
        self._due = asyncio.Event()
        self._restarted: float | None = None
        self._complaint = ""
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
            if await self._revoked_within(self._look_s):
                await self._shut_out()
            else:
                await self._renew()

    async def _revoked_within(self, seconds: float) -> bool:
        due = asyncio.ensure_future(self._due.wait())
        try:
            done, _ = await asyncio.wait({due}, timeout=seconds)
        finally:
            due.cancel()
        return bool(done)

    async def _shut_out(self) -> None:
        await asyncio.sleep(self._pause_s())  # others that come in this time share the restart
        self._due.clear()
        try:
            await self._write()
            if self._broker is not None:
                await self._broker.restart()
                self._restarted = time.monotonic()
        except Exception as error:
            # Whoever was revoked may still be connected: not an end, but the next try.
            _log.error("the broker was not told of a revocation; it is tried again", why=repr(error))
            self._due.set()
            await asyncio.sleep(AGAIN_S)  # the pace of trying again

    def _pause_s(self) -> float:
        since = self._spacing_s if self._restarted is None else time.monotonic() - self._restarted
        return max(self._gather_s, self._spacing_s - since)

    async def _renew(self) -> None:
        """Write the list anew when it is a day old, lost, damaged, or from a time that has not come."""
        now = self._clock()
        try:
            await self._revocations.refresh()  # what has ended by itself needs no denial any more
            if not await asyncio.to_thread(crl_ages, self._authority.crl_path, now):
                return
            await self._write()
            if self._broker is not None:
                await self._read_again(self._broker)
            self._complaint = ""
        except Exception as error:
            self._complain(now, repr(error))

    @staticmethod
    async def _read_again(broker: ManagedBroker) -> None:
        if sys.platform == "win32":  # no signal there has it read the list again
            await broker.restart()
        else:
            broker.reload()

    async def _write(self) -> None:
        current, now = self._revocations.current, self._clock()
        await asyncio.to_thread(write_list, self._authority, current, now)

    def _complain(self, now: datetime, why: str) -> None:
        """Once for each hour that is left, and as an error when it is time that somebody comes."""
        left = crl_left(self._authority.crl_path, now)
        hours = max(0, left // timedelta(hours=1))
        complaint = f"{hours} {why}"
        if complaint == self._complaint:
            return
        self._complaint = complaint
        about = {"file": str(self._authority.crl_path), "hours_left": hours, "why": why}
        if left < ALARM:
            _log.error(
                "the list of revoked certificates cannot be renewed; when it has ended, the broker lets no device in:"
                " make room on the disk, or see to the folder's permissions",
                **about,
            )
        else:
            _log.warning("the list of revoked certificates was not renewed; it is tried again", **about)


def write_list(authority: Authority, current: Denials, now: datetime) -> None:
    """Write the list of what is revoked now. Raises OSError."""
    authority.write_crl(revoked_serials(current), now)
