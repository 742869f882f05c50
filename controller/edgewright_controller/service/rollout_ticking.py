"""Time reaches the rollouts: each hears of it when something of its own falls due, and not much oftener."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from edgewright_controller import log
from edgewright_controller.ledger import LedgerError
from edgewright_controller.rollout import Started, Tick, seconds_until_due
from edgewright_controller.service.live_rollouts import LiveRollouts

_SHORTEST_S: Final = 0.05

_log = log.of(__name__)


async def tick(live: LiveRollouts, after: Callable[[], Awaitable[None]], look_every_s: float) -> None:
    """Tick until cancelled. `after` is awaited after each round, in the same turn. `look_every_s`: the clock is looked
    at so often at least, since somebody may set it."""
    while True:
        now = live.clock().timestamp()
        due = [seconds_until_due(one.state, now) for one in live.running.values()]
        waits = [min(seconds, look_every_s) for seconds in due if seconds is not None]
        live.news.clear()
        try:
            # Not wait_for: before Python 3.12 it loses a cancellation that comes together with news.
            async with asyncio.timeout(max(_SHORTEST_S, min(waits)) if waits else None):
                await live.news.wait()
            continue
        except TimeoutError:
            pass  # the time has come
        async with live.turn:
            await _all(live)
            await after()


async def _all(live: LiveRollouts) -> None:
    for rollout in list(live.running):
        try:
            await live.event(rollout, Tick() if live.running[rollout].begun else Started())
        except LedgerError as error:
            # The next tick tries again.
            _log.error("rollout waits", rollout=rollout, why=str(error))
        except Exception:
            _log.exception("a tick ended by a fault", rollout=rollout)
