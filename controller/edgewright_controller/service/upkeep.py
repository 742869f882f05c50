"""What must happen from time to time: metadata and certificates renewed, old reports forgotten, times kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from edgewright_controller import log
from edgewright_controller.director import Director
from edgewright_controller.ledger import Ledger, LedgerError, devices, telemetry
from edgewright_controller.pki import Authority
from edgewright_controller.pki_files import AuthorityError
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.image import ImageRepository
from edgewright_controller.service.presence import Presence
from edgewright_controller.service.servers import ServerCertificate

SEEN_EVERY_S: Final = 30.0
RENEW_EVERY_S: Final = 3600.0
# Reports above a gap wait this long for what is missing before them.
KEEP_ABANDONED: Final = timedelta(days=30)

_log = log.of(__name__)


class Upkeep:
    """Runs from `start` to `close`. One failure is logged and tried again; nothing that serves depends on it."""

    def __init__(
        self,
        ledger: Ledger,
        presence: Presence,
        *,
        image: ImageRepository,
        director: Director,
        authority: Authority,
        certificate: ServerCertificate,
        hosts: tuple[str, ...],
        keep_reports: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger, self._presence, self._image, self._director = ledger, presence, image, director
        self._authority, self._certificate, self._hosts, self._clock = authority, certificate, hosts, clock
        self._keep_reports = keep_reports
        self._last = 0.0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin; the first round is now."""
        rounds = ((self._renew, RENEW_EVERY_S), (self._forget, RENEW_EVERY_S), (self._keep_times, SEEN_EVERY_S))
        self._tasks = [asyncio.create_task(_again(act, every_s)) for act, every_s in rounds]

    async def close(self) -> None:
        """End, and keep the last times."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keep_times()

    async def _renew(self) -> None:
        now = self._clock()
        await asyncio.to_thread(self._image.refresh, now)
        await asyncio.to_thread(self._director.refresh, now)
        self._certificate.replace(await asyncio.to_thread(self._authority.server_certificate, self._hosts, now))

    async def _forget(self) -> None:
        now = self._clock()
        before, abandoned = _ms(now - self._keep_reports), _ms(now - max(KEEP_ABANDONED, self._keep_reports))
        pruned = 1
        while pruned:  # in portions, so that other writes come in between
            pruned = await self._ledger.write(lambda c: telemetry.prune(c, before, abandoned))

    async def _keep_times(self) -> None:
        ago, self._last = self._presence.since(self._last)
        if ago:
            now = self._clock()
            times = {device: _ms(now - timedelta(seconds=seconds)) for device, seconds in ago.items()}
            await self._ledger.write(lambda c: devices.seen(c, times))


async def _again(act: Callable[[], Awaitable[None]], every_s: float) -> None:
    while True:
        try:
            await act()
        except (LedgerError, PublishError, AuthorityError, OSError) as error:
            _log.error("upkeep failed and is tried again", why=str(error))
        await asyncio.sleep(every_s)  # the pace of upkeep, not a wait for something


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)
