"""A rollout shown whole, and watched until it ends.

A watcher is told first how everything stands, then, a few times a second at most, what has changed since. What it has
not taken yet is not kept for it: the next event says how things stand by then.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.ledger import NotInLedger, rollouts
from edgewright_controller.rollout import RolloutError
from edgewright_controller.service import rollout_views
from edgewright_controller.service.rollout_news import RolloutNews
from edgewright_controller.service.rollout_storing import Storage
from edgewright_controller.service.rollouts_runner import RolloutsRunner
from edgewright_controller.service.waits_for import waits_for

# So long a watcher lets changes gather; nobody's eye is quicker.
GATHER_S: Final = 0.2
# So often it is told anew what is waited for, when nothing else happens.
REPEAT_S: Final = 10.0
# Devices in one event: some 50 KB, well below the 4 MB that a client takes by default, and few enough that building
# them keeps nobody waiting.
BATCH: Final = 1000
FIND_TIMES: Final = 25

Event = operator_pb2.ApplyEvent


class RolloutWatches:
    """Answers ShowRollout and WatchRollout."""

    def __init__(self, ledger: Storage, runner: RolloutsRunner, clock: Callable[[], datetime]) -> None:
        self._ledger, self._runner, self._clock = ledger, runner, clock
        self._closing = asyncio.Event()

    def close(self) -> None:
        """The controller stops: watchers are told so, and their streams end."""
        self._closing.set()

    async def show(self, rollout: str) -> operator_pb2.ShowRolloutResponse:
        """All that is known of a rollout; "" means the newest. Raises NotInLedger, LedgerError."""
        now = self._clock().timestamp()

        def look(connection: Connection) -> operator_pb2.ShowRolloutResponse:
            return rollout_views.shown(connection, _row(connection, rollout), now)

        return await self._ledger.read(look)

    async def watch(self, rollout: str) -> AsyncIterator[Event]:
        """How a rollout stands, then what changes, then its result; "" means one that runs, else the newest.

        Without a result only when the controller stops before it ends. Raises NotInLedger, LedgerError.
        """
        async for event in self._told(await self._found(rollout)):
            yield event

    async def _found(self, rollout: str) -> RolloutNews:
        """The news of the rollout that is meant."""
        for _ in range(FIND_TIMES):
            if (running := self._runner.news(rollout)) is not None:
                return running
            row = await self._ledger.read(lambda c: _row(c, rollout))
            if (running := self._runner.news(row.id)) is not None:
                return running
            state = await self._ledger.read(lambda c, row=row: rollouts.load(c, row.id))  # type: ignore[misc]  # mypy cannot type a lambda's default
            if state.finished:
                news = RolloutNews(state)
                news.about = rollout_views.about(row)
                return news
            await asyncio.sleep(GATHER_S)  # it is in the ledger, and the runner is about to take it up
        raise RolloutError(f"rollout {row.id} is not carried out just now; ask again, or see the controller's log")

    async def _told(self, news: RolloutNews) -> AsyncIterator[Event]:
        state, seen, first = news.state, news.count, True
        devices: Sequence[str] = list(state.targets)
        while True:
            ended = state.finished
            if first or not ended:
                yield Event(rollout=self._progress(news, with_waves=first))
            for batch in _batches(devices):
                yield Event(devices=operator_pb2.DevicesProgress(devices=_standing(news, batch)))
            if ended:
                if not first:
                    yield Event(rollout=self._progress(news, with_waves=False))
                yield Event(result=rollout_views.result(state.phase, state.reason, state.counts))
                return
            if not await self._more(news, seen, waits_for(state, self._clock().timestamp()).seconds):
                yield Event(message=f"the controller stops; {state.spec.id} goes on when it is back")
                return
            devices, seen, first = news.since(seen), news.count, False

    def _progress(self, news: RolloutNews, *, with_waves: bool) -> operator_pb2.RolloutProgress:
        now = self._clock().timestamp()
        return rollout_views.progress(news.state, now, news.about, with_waves=with_waves)

    async def _more(self, news: RolloutNews, seen: int, due_s: float | None) -> bool:
        """Wait for changes and let some gather, or for a while, at most until what is waited for is due; False when
        the controller stops."""
        changed = asyncio.ensure_future(news.changed(seen))
        closing = asyncio.ensure_future(self._closing.wait())
        patience = REPEAT_S if due_s is None else min(REPEAT_S, due_s + 1.0)
        try:
            await asyncio.wait({changed, closing}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            if changed.done() and not news.state.finished:
                await asyncio.wait({closing}, timeout=GATHER_S)
            return not closing.done()
        finally:
            changed.cancel()
            closing.cancel()
            await asyncio.gather(changed, closing, return_exceptions=True)


def _row(connection: Connection, rollout: str) -> rollouts.RolloutRow:
    if rollout:
        return rollouts.get(connection, rollout)
    newest = rollouts.every(connection, 1)
    if not newest:
        raise NotInLedger("there was no rollout yet; `edgewright apply` begins one")
    return newest[0]


def _batches(devices: Sequence[str]) -> Iterator[Sequence[str]]:
    return (devices[start : start + BATCH] for start in range(0, len(devices), BATCH))


def _standing(news: RolloutNews, devices: Sequence[str]) -> list[operator_pb2.DeviceProgress]:
    """How these devices stand at this moment, and how far those under way are."""
    views = rollout_views.device_progress(news.state, devices)
    for view in views:
        if (status := news.progress(view.device)) is not None:
            view.status.CopyFrom(status)
    return views
