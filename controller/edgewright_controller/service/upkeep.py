"""What must happen from time to time: metadata and certificates renewed, old reports forgotten, times kept.

Each is a round of its own, and each renewal stands alone: what keeps one from being done keeps up no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from edgewright_controller import log
from edgewright_controller.ledger import Ledger, LedgerError, device_health, devices, telemetry
from edgewright_controller.pki_files import AuthorityError
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.service.presence import Presence
from edgewright_controller.service.renewals import Renewal
from edgewright_controller.unix_time import unix_ms

SEEN_EVERY_S: Final = 30.0
RENEW_EVERY_S: Final = 3600.0
STORE_EVERY_S: Final = 600.0
# Reports above a gap wait this long for what is missing before them.
KEEP_ABANDONED: Final = timedelta(days=30)
# What devices did before an update is compared with what they do after it, for as long as a wave may be watched.
KEEP_HEALTH: Final = timedelta(days=6)

_log = log.of(__name__)


class Upkeep:
    """Runs from `start` to `close`. One failure is logged and tried again; nothing that serves depends on it."""

    def __init__(
        self,
        ledger: Ledger,
        presence: Presence,
        *,
        renewals: Mapping[str, Renewal],
        keep_reports: timedelta,
        clock: Callable[[], datetime],
        keep_store: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        """`renewals`: what is renewed → what does it, where it is due; called in a thread, every hour. `keep_store`
        keeps the store within its quota."""
        self._ledger, self._presence, self._clock = ledger, presence, clock
        self._renewals, self._keep_reports = renewals, keep_reports
        self._keep_store = keep_store
        self._last = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; the first round is now."""
        rounds: list[tuple[str, Callable[[], Awaitable[None]], float]] = [
            ("reports", self._forget, RENEW_EVERY_S),
            ("times", self._keep_times, SEEN_EVERY_S),
            *([("store", self._keep_store, STORE_EVERY_S)] if self._keep_store else []),
            *((what, partial(self._renew, act), RENEW_EVERY_S) for what, act in self._renewals.items()),
        ]
        self._tasks = [asyncio.create_task(_again(*one)) for one in rounds]

    async def close(self) -> None:
        """End, and keep the last times."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keep_times()

    async def _renew(self, act: Renewal) -> None:
        await asyncio.to_thread(act, self._clock())

    async def _forget(self) -> None:
        now = self._clock()
        before, abandoned = unix_ms(now - self._keep_reports), unix_ms(now - max(KEEP_ABANDONED, self._keep_reports))
        pruned = 1
        while pruned:  # in portions, so that other writes come in between
            pruned = await self._ledger.write(lambda c: telemetry.prune(c, before, abandoned))
        health_before, pruned = unix_ms(now - KEEP_HEALTH), 1
        while pruned:
            pruned = await self._ledger.write(lambda c: device_health.prune(c, health_before))

    async def _keep_times(self) -> None:
        ago, self._last = self._presence.since(self._last)
        if ago:
            now = self._clock()
            times = {device: unix_ms(now - timedelta(seconds=seconds)) for device, seconds in ago.items()}
            await self._ledger.write(lambda c: devices.seen(c, times))


async def _again(what: str, act: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        try:
            await act()
        except (LedgerError, PublishError, AuthorityError, OSError) as error:
            _log.error("upkeep failed and is tried again", what=what, why=str(error))
        except Exception:
            # A fault of ours. Were this the end of it, metadata would expire in silence, and the fleet stand still.
            _log.exception("upkeep failed by a fault and is tried again", what=what)
        await asyncio.sleep(every_s)  # the pace of upkeep, not a wait for something
