"""The agent's care for what lies on its disk: now and then every artifact is hashed again, and what is bad is mended.

It has time, and gives way: it works while no update is under way, a tenth of the time, and stops for one at once.
What it finds is in the status, here and at the controller, until it is mended.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, TypeVar

from edgewright_agent.cancellation import Cancellation, in_thread
from edgewright_agent.database import StateDamaged
from edgewright_agent.inspection import Finding, Paced, inspect
from edgewright_agent.mending import Mended, Mender
from edgewright_agent.slots import Slots
from edgewright_agent.state_store import StateStore
from edgewright_agent.upkeep_folder import Report, UpkeepFolder

LOOK_S: Final = 1.0
AGAIN_S: Final = 600.0  # before what could not be mended is tried again

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def due(ended: float, every_s: float, now: float) -> bool:
    """Whether it is time for another round. A round that ended later than now was timed by a clock that was wrong."""
    return not 0 <= now - ended < every_s


class Upkeep:
    """Runs on the agent's event loop."""

    def __init__(
        self,
        folder: UpkeepFolder,
        slots: Slots,
        store: StateStore,
        mender: Mender,
        *,
        every_s: float,
        idle: Callable[[], bool],
        on_news: Callable[[], None],
    ) -> None:
        """`idle`: no update is under way. `on_news` is called when `findings` are others than before."""
        self._folder, self._slots, self._store, self._mender = folder, slots, store, mender
        self._every_s, self._idle, self._on_news = every_s, idle, on_news
        self._report = folder.report()
        self._again_at = 0.0
        self._work: asyncio.Future[Any] | None = None
        self._complaint = ""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is damaged, as far as is known, and not mended yet."""
        return self._report.findings

    async def run(self) -> None:
        """Look, for ever, until cancelled."""
        while True:
            try:
                await self.once()
            except (StateDamaged, OSError) as error:
                if str(error) != self._complaint:
                    _log.error("artifacts at rest cannot be seen to: %s", error)
                self._complaint = str(error)
            except Exception:
                # A fault of ours must not take the engine down with it.
                _log.exception("the care for artifacts failed in a way that nobody thought of")
            await asyncio.sleep(LOOK_S)

    async def give_way(self) -> None:
        """Stop whatever is being done; it begins anew when there is time again."""
        work = self._work
        if work is not None and not work.done():
            work.cancel()
            await asyncio.wait({work})

    async def once(self) -> None:
        """A round, if one is asked for or due, and what could not be mended before. Raises StateDamaged, OSError."""
        mark = self._folder.wanted()
        if not self._idle():
            return
        if not self._report.ended and not mark:  # all of it was looked at when it came, and when the agent started
            self._keep(replace(self._report, ended=time.time()))
        round_due = bool(mark) or due(self._report.ended, self._every_s, time.time())
        if round_due:
            found = await self._yielding(lambda cancellation: self._look(cancellation, in_haste=bool(mark)))
            if found is None:
                return
            artifacts, findings = found
            for finding in findings:
                _log.error("%s", finding)
            self._keep(Report(time.time(), artifacts, findings))
        if self._report.findings and (round_due or time.monotonic() >= self._again_at):
            self._again_at = time.monotonic() + AGAIN_S
            mended = await self._yielding(self._mend)
            if mended is None:
                return
            for line in (*mended.done, *mended.why):
                _log.info("%s", line)
            self._keep(replace(self._report, findings=mended.left, done=mended.done, why=mended.why))
        if mark:
            self._keep(replace(self._report, asked=mark))
            self._folder.take_back()

    def _look(self, cancellation: Cancellation, *, in_haste: bool) -> tuple[int, tuple[Finding, ...]]:
        checkpoint = cancellation.check if in_haste else Paced(cancellation)
        names = self._slots.names()
        return len(names), tuple(finding for name in names for finding in inspect(self._slots, name, checkpoint))

    def _mend(self, cancellation: Cancellation) -> Mended:
        return self._mender.mend(self._report.findings, self._store.targets(), cancellation)

    def _keep(self, report: Report) -> None:
        news = report.findings != self._report.findings
        self._folder.keep(report)
        self._report = report
        if news:
            self._on_news()

    async def _yielding(self, work: Callable[[Cancellation], _T]) -> _T | None:
        """What `work` gives; None when it gave way."""
        running = asyncio.ensure_future(in_thread(work))
        self._work = running
        try:
            await asyncio.wait({running})
        finally:
            running.cancel()
            await asyncio.wait({running})
        return None if running.cancelled() else running.result()
