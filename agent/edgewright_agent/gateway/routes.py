"""Which engine answers for which model, and how many requests it has in hand.

A switch is one assignment between two requests: a request that was admitted stays with its engine, the next goes to
the new one. While an engine is down for a restart, requests wait for it, for a bounded time.

Everything here runs on one event loop, so nothing is locked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

import aiohttp

_NOTICED_S: Final = 10.0


class Upstream(Protocol):
    """What a route needs of an engine; engines.process.EngineProcess is one."""

    @property
    def model(self) -> str:
        """The name under which it serves."""

    @property
    def openai_url(self) -> str:
        """Its base URL, ending in /v1."""

    @property
    def session(self) -> aiohttp.ClientSession:
        """The client that may talk to it."""


class NoRoute(Exception):
    """No engine serves this model. `models` are those that are served."""

    def __init__(self, model: str, models: tuple[str, ...]) -> None:
        self.model = model
        self.models = models
        there = f"there is {', '.join(models)}" if models else "none is served yet"
        super().__init__(f"the model {model!r} does not exist on this device; {there}")


class EngineDown(Exception):
    """No engine answers for the model now. Try again later."""


@dataclass(frozen=True)
class Health:
    """Whether requests are answered now, and if not, why. `model` is empty when none was ever active."""

    ok: bool
    reason: str = ""
    model: str = ""


@dataclass
class _Route:
    model: str
    upstream: Upstream | None
    why_down: str = ""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def change(self, upstream: Upstream | None, why_down: str) -> None:
        self.upstream, self.why_down = upstream, why_down
        self.changed.set()
        self.changed = asyncio.Event()


class Routes:
    """The table of models. `switch`, `down` and `remove` change it; `admit` reads it for one request."""

    def __init__(self) -> None:
        self._routes: dict[str, _Route] = {}
        self._in_flight: dict[int, int] = {}
        self._idle: dict[int, asyncio.Event] = {}

    @property
    def models(self) -> tuple[str, ...]:
        """The names that requests may use, also while their engine restarts."""
        return tuple(self._routes)

    @property
    def active_requests(self) -> int:
        """Requests in hand, over all engines."""
        return sum(self._in_flight.values())

    def health(self) -> Health:
        """200 or 503, and why."""
        if not self._routes:
            return Health(False, "no model is active yet")
        for route in self._routes.values():
            if route.upstream is None:
                return Health(False, route.why_down, route.model)
        return Health(True, "", next(iter(self._routes)))

    def switch(self, model: str, upstream: Upstream) -> None:
        """From now on `upstream` answers for `model`, and a device's former model is gone."""
        for other in [name for name in self._routes if name != model]:
            self.remove(other)
        route = self._routes.get(model)
        if route is None:
            self._routes[model] = _Route(model, upstream)
        else:
            route.change(upstream, "")

    def down(self, upstream: Upstream, why: str) -> None:
        """`upstream` is gone; requests for its model wait for the next `switch`."""
        for route in self._routes.values():
            if route.upstream is upstream:
                route.change(None, why)

    def expect(self, model: str, why: str) -> None:
        """An engine for `model` is to come, but is not up: its requests wait."""
        for other in [name for name in self._routes if name != model]:
            self.remove(other)
        self._routes.setdefault(model, _Route(model, None)).change(None, why)

    def explain(self, model: str, why: str) -> None:
        """Why the engine of `model` is still down."""
        route = self._routes.get(model)
        if route is not None and route.upstream is None:
            route.why_down = why

    def remove(self, model: str) -> None:
        """`model` is no longer served; requests that wait for it are told so."""
        route = self._routes.pop(model, None)
        if route is not None:
            route.change(None, "removed")

    def resolve(self, model: str | None) -> str:
        """The served name for a request's `model`. None means the only one. Raises NoRoute."""
        if model is None and len(self._routes) == 1:
            return next(iter(self._routes))
        if model is None or model not in self._routes:
            raise NoRoute(model or "", self.models)
        return model

    @asynccontextmanager
    async def admit(self, model: str, wait_s: float, not_this: Upstream | None = None) -> AsyncIterator[Upstream]:
        """The engine for one request, counted as in flight meanwhile. Raises NoRoute, EngineDown.

        `not_this` just failed the request: wait until another one answers for the model.
        """
        upstream = await self._current(model, wait_s, not_this)
        key = id(upstream)
        self._in_flight[key] = self._in_flight.get(key, 0) + 1
        try:
            yield upstream
        finally:
            self._in_flight[key] -= 1
            if not self._in_flight[key]:
                del self._in_flight[key]
                if key in self._idle:
                    self._idle.pop(key).set()

    async def drain(self, upstream: Upstream, deadline_s: float) -> bool:
        """Wait until `upstream` has no request in hand; False when `deadline_s` seconds passed first."""
        key = id(upstream)
        if key not in self._in_flight:
            return True
        idle = self._idle.setdefault(key, asyncio.Event())
        try:
            await asyncio.wait_for(idle.wait(), deadline_s)
        except asyncio.TimeoutError:
            return False
        return True

    async def _current(self, model: str, wait_s: float, not_this: Upstream | None) -> Upstream:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            route = self._routes.get(model)
            if route is None:
                raise NoRoute(model, self.models)
            if route.upstream is not None and route.upstream is not not_this:
                return route.upstream
            # The end of a process is noticed a moment after its connections broke. An engine that still stands
            # after that moment is not going to be replaced.
            wait = wait_s if route.upstream is None else min(wait_s, _NOTICED_S)
            try:
                await asyncio.wait_for(route.changed.wait(), max(began + wait - loop.time(), 0))
            except asyncio.TimeoutError:
                why = route.why_down or "its engine closed the connection without an answer"
                raise EngineDown(f"model {model}: {why}") from None
