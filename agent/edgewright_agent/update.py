"""The lifecycle's executor: save the state, perform the act, bring back what came of it.

One act runs at a time, and one event is taken in at a time. The order is always: next state, saved, published, acts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Final, Protocol

from edgewright_agent import lifecycle
from edgewright_agent.backoff import Backoff
from edgewright_agent.database import StateDamaged
from edgewright_agent.lifecycle_state import (
    Act,
    Assigned,
    Done,
    DownloadWaits,
    Event,
    Failed,
    Fault,
    Goal,
    Lifecycle,
    Progressed,
    Step,
    Tick,
)
from edgewright_agent.state_store import KnownRelease, StateStore

_PROBE_MARGIN_S: Final = 5.0
_AGAIN_S: Final = 5.0  # before what the disk refused is tried again

_log = logging.getLogger(__name__)


class ActFailed(Exception):
    """An act came to nothing, for a reason out of the closed set."""

    def __init__(self, fault: Fault, reason: str) -> None:
        self.fault, self.reason = fault, reason
        super().__init__(reason)


class Acts(Protocol):
    """What touches the world for the lifecycle."""

    async def perform(self, act: Act, state: Lifecycle) -> None:
        """Do it, and return when it is done. Cancelling stops it before this returns. Raises ActFailed."""


class Updates:
    """Holds the device's lifecycle. All methods run on one event loop."""

    def __init__(
        self,
        store: StateStore,
        acts: Acts,
        on_change: Callable[[Lifecycle], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read the state saved last. Raises StateDamaged."""
        self._store, self._acts, self._on_change, self._clock = store, acts, on_change, clock
        self._state = store.load()
        self._lock = asyncio.Lock()
        self._act: asyncio.Task[None] | None = None
        self._unwanted: asyncio.Task[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarmed: set[asyncio.Task[None]] = set()
        self._restored = self._stopped = False

    @property
    def state(self) -> Lifecycle:
        """The state as it is saved."""
        return self._state

    async def resume(self) -> None:
        """Go on after a restart of the agent. Tried again while nothing can be saved; what serves serves on."""
        try:
            async with self._lock:
                await self._restore()
        except StateDamaged as error:
            _log.error("%s; trying again", error)
            self._alarm = asyncio.get_running_loop().call_later(_AGAIN_S, self._aside, self.resume)

    async def _restore(self) -> None:
        """Before anything else, and once."""
        if not self._restored and not self._stopped:
            await self._take(lifecycle.restore(self._state, self._clock()), None)
            self._restored = True

    async def assign(self, generation: int, known: KnownRelease | None) -> None:
        """The signed metadata wants this release, None: nothing. Raises StateDamaged."""
        if known is None:
            goal = Goal(generation, "")
        else:
            probing_s = sum(probe.timeout_s + _PROBE_MARGIN_S for probe in known.release.probes)
            goal = Goal(generation, known.release.digest, probing_s)
        await self.feed(Assigned(goal), known)

    async def feed(self, event: Event, known: KnownRelease | None = None) -> None:
        """Take in one event. Raises StateDamaged: then nothing happened, and the event may be brought again."""
        async with self._lock:
            await self._restore()
            if not self._stopped:
                await self._take(lifecycle.advance(self._state, event, self._clock()), known)

    async def progressed(self) -> None:
        """New bytes are safe. Late news of a download that is over is dropped. Raises StateDamaged."""
        async with self._lock:
            if self._state.step is Step.DOWNLOADING and not self._stopped:
                await self._take(lifecycle.advance(self._state, Progressed(), self._clock()), None)

    async def waits(self, seconds: float, reason: str) -> None:
        """The download that runs was told to come back later. Late news is dropped. Raises StateDamaged."""
        async with self._lock:
            if self._state.step is Step.DOWNLOADING and not self._stopped:
                await self._take(lifecycle.advance(self._state, DownloadWaits(seconds, reason), self._clock()), None)

    async def stop(self) -> None:
        """Stop the act that runs; the saved state says where to go on."""
        async with self._lock:
            self._stopped = True
            if self._alarm is not None:
                self._alarm.cancel()
            await self._cancel_act()

    async def _take(self, following: lifecycle.Next, known: KnownRelease | None) -> None:
        state, acts = following
        if state != self._state or known is not None:
            await asyncio.to_thread(self._store.save, state, known)
        before, self._state = self._state, state
        if _told(state) != _told(before):  # progress in bytes is in the status, not in the log
            _log.info("%s", _told(state))
        if state != before:
            self._publish(state)
        for act in acts:
            if act is Act.CANCEL:
                await self._cancel_act()
            else:
                self._act = asyncio.ensure_future(self._perform(act, state))
        self._set_alarm()

    def _publish(self, state: Lifecycle) -> None:
        try:
            self._on_change(state)
        except Exception:
            # The state is saved and its acts are due, whether or not it could be told just now.
            _log.exception("the new state could not be told; the next check-in tells it")

    async def _perform(self, act: Act, state: Lifecycle) -> None:
        event: Event = Done()
        try:
            await self._acts.perform(act, state)
        except ActFailed as error:
            event = Failed(error.fault, error.reason)
        except Exception as error:
            # A fault of ours must end as a failed update, not as a device that stands still.
            _log.exception("%s failed in a way that nobody thought of", act.value)
            event = Failed(Fault.INTERNAL, f"{act.value}: {error!r}")
        backoff = Backoff(first=1.0, longest=60.0)
        while self._unwanted is not asyncio.current_task():
            try:
                await self.feed(event)
            except StateDamaged as error:
                # Mostly a full disk. Nothing is done that is not saved, and what serves goes on serving.
                _log.error("%s; trying again", error)
                await asyncio.sleep(backoff.pause())
            else:
                return

    async def _cancel_act(self) -> None:
        act = self._act
        if act is not None and act is not asyncio.current_task():
            # An act may lose a cancellation, for example in wait_for before Python 3.12, and end as if nothing had
            # been: what it then brings is not waited for here, and would wait for this.
            self._unwanted = act
            act.cancel()
            await asyncio.wait({act})

    def _set_alarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        due = lifecycle.wakes_at(self._state)
        if due != float("inf"):
            delay = max(due - self._clock(), 0.0) + 0.001
            self._alarm = asyncio.get_running_loop().call_later(delay, self._ring)

    def _ring(self) -> None:
        self._aside(self._tick)

    def _aside(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        task = asyncio.ensure_future(work())
        self._alarmed.add(task)
        task.add_done_callback(self._alarmed.discard)

    async def _tick(self) -> None:
        try:
            await self.feed(Tick())
        except StateDamaged as error:
            _log.error("%s; trying again", error)
            self._alarm = asyncio.get_running_loop().call_later(_AGAIN_S, self._ring)


def _told(state: Lifecycle) -> str:
    what = f"release {state.release[:12]}" if state.release else "nothing"
    words = f"generation {state.generation}: {what}: {state.step.name.lower()}, {state.outcome.name.lower()}"
    return f"{words}: {state.reason}" if state.reason else words
