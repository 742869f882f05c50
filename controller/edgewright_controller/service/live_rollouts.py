"""The rollouts that run, and the one way in which anything happens to them: step, store, then act.

What a step changes is stored with all that it sets, in one transaction, before anybody hears of it. So whatever dies in
between, a restart finds either nothing of it or everything, and acts again on what does no harm twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2
from edgewright_controller import log
from edgewright_controller.ledger import GenerationTaken, devices, rollouts
from edgewright_controller.rollout import (
    Actions,
    Changes,
    Event,
    Finish,
    Hint,
    RolloutPhase,
    RolloutState,
    Started,
    Superseded,
    apply_changes,
    step,
)
from edgewright_controller.service import rollout_telling, rollout_views, standing
from edgewright_controller.service.job import Job
from edgewright_controller.service.rollout_news import RolloutNews
from edgewright_controller.service.rollout_storing import Storage, stored

Statuses = Mapping[str, agent_pb2.DeviceStatus]
T = TypeVar("T")

_log = log.of(__name__)


@dataclass
class LiveRollout:
    """One rollout that runs. `undoes`: it takes something back, rather than handing something out. `by_itself`: no
    operator asked for it."""

    state: RolloutState
    undoes: bool = False
    by_itself: bool = False
    jobs: list[Job] = field(default_factory=list)
    ended: asyncio.Future[Finish] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    news: RolloutNews = field(init=False)

    def __post_init__(self) -> None:
        self.news = RolloutNews(self.state)

    @property
    def begun(self) -> bool:
        """Whether it was started; what comes between its creation and its start is made up for."""
        return self.state.wave > 0 or self.state.phase is not RolloutPhase.WAITING

    @property
    def followers(self) -> list[rollout_telling.Follower]:
        """All who are told of it."""
        return [self.news, *self.jobs]


class LiveRollouts:
    """All that run. Belongs to one event loop; whoever changes anything holds `turn`, so that events come one by one.

    `running` is by id, the oldest first; `last` is the one that ended last. `news` is set when it is to be looked anew
    at what falls due next. `on_end` are called when one has ended; they must not block.
    """

    def __init__(self, ledger: Storage, hint: Callable[[str, int], None], clock: Callable[[], datetime]) -> None:
        self.ledger, self.clock = ledger, clock
        self._hint = hint
        self.running: dict[str, LiveRollout] = {}
        self.last: LiveRollout | None = None
        self.turn = asyncio.Lock()
        self.news = asyncio.Event()
        self.on_end: list[Callable[[], None]] = []

    async def take_up(self) -> dict[str, agent_pb2.DeviceStatus]:
        """Go on with what an earlier controller left; what its devices said meanwhile. Raises LedgerError."""
        heard: dict[str, agent_pb2.DeviceStatus] = {}
        for name in await self.ledger.read(rollouts.live):
            state = await self.ledger.read(lambda c, name=name: rollouts.load(c, name))  # type: ignore[misc]  # mypy cannot type a lambda's default
            row = await self.ledger.read(lambda c, name=name: rollouts.get(c, name))  # type: ignore[misc]  # mypy cannot type a lambda's default
            undoes, by_itself = (bool(row.about.get(said)) for said in ("undoes", "by_itself"))
            self.running[name] = LiveRollout(state, undoes, by_itself)
            self.running[name].news.about = rollout_views.about(row)
            _log.info("rollout goes on", rollout=name, state=state.phase.value, why=state.reason)
            if not self.running[name].begun:
                await self.event(name, Started())
            rows = await self.ledger.read(lambda c, s=state: devices.every(c, list(s.devices)))  # type: ignore[misc]  # mypy cannot type a lambda's default
            heard |= {row.id: status for row in rows if (status := standing.said(row)) is not None}
        return heard

    async def event(self, rollout: str, event: Event, statuses: Statuses | None = None) -> Changes:
        """Let it happen; what it changed.

        Raises RolloutError when it cannot happen, LedgerError when it cannot be stored; then nothing did.
        """
        now = self.clock()
        done = step(self.running[rollout].state, event, now.timestamp())
        changes, actions = done
        if not changes:
            return changes
        try:
            await self.ledger.write(lambda c: stored(c, rollout, event, done, now))
        except GenerationTaken as taken:
            # Another rollout has taken the device over, or a mandate that was drawn up meanwhile.
            await self.event(rollout, Superseded("another change", frozenset({taken.device})))
            return await self.event(rollout, event, statuses) if rollout in self.running else Changes()
        self._act(rollout, changes, actions, statuses or {})
        return changes

    async def together(self, events: Mapping[str, Event], also: Callable[[Connection], T]) -> T:
        """Let these happen, each to its rollout, and `also`, whose result it is: all in one transaction, or nothing.
        Raises LedgerError, and what `also` raises."""
        now = self.clock()
        done = {name: step(self.running[name].state, event, now.timestamp()) for name, event in events.items()}

        def act(connection: Connection) -> T:
            for name, event in events.items():
                if done[name][0]:
                    stored(connection, name, event, done[name], now)
            return also(connection)

        result = await self.ledger.write(act)
        for name, (changes, actions) in done.items():
            self._act(name, changes, actions, {})
        return result

    def _act(self, rollout: str, changes: Changes, actions: Actions, statuses: Statuses) -> None:
        """What follows once it is stored."""
        live = self.running[rollout]
        moved = [one for one in changes.devices if one.phase is not live.state.devices[one.device].phase]
        apply_changes(live.state, changes)
        for change in moved:
            release = live.state.targets[change.device].release
            about = {"device": change.device, "release": release, "rollout": rollout, "why": change.reason}
            _log.info(f"device {change.phase.value}", generation=change.generation, **about)
        rollout_telling.changed(live.followers, live.news, changes, statuses)
        self.news.set()  # what falls due next may have changed: a wave is being watched, a device has a later deadline
        for action in actions:
            if isinstance(action, Hint):
                self._hint(action.device, action.generation)
            elif isinstance(action, Finish):
                self._finish(rollout, action)

    def _finish(self, rollout: str, finish: Finish) -> None:
        _log.info("rollout ended", rollout=rollout, state=finish.phase.value, why=finish.reason)
        self.last = self.running.pop(rollout)
        if not self.last.ended.done():
            self.last.ended.set_result(finish)
        for told in self.on_end:
            told()

    def follow(self, live: LiveRollout, job: Job) -> None:
        """Let one more job tell how the rollout goes; it begins with how it stands."""
        _log.info("rollout is followed", rollout=live.state.spec.id)
        live.jobs = [one for one in live.jobs if one.result is None] + [job]
        rollout_telling.standing(job, live.news)
