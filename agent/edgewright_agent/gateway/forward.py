"""One request, from a client to the engine of its model and back.

Until the first byte has gone to the client the request may be asked again, so the death of an engine costs time and
not an answer. After that a stream ends with an error event, which clients report as an error, not as an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp import web

from edgewright_agent.gateway import openai_shape
from edgewright_agent.gateway.meter import End, Measured, Meter, Usage
from edgewright_agent.gateway.routes import Routes, Upstream

_MAX_ANSWER: Final = 64 << 20
_TAIL: Final = 4096
_ATTEMPTS: Final = 3  # the engine that failed, the one that came back, and one more during a swap


# An error event and no [DONE]: clients must not take a piece for the whole.
_BROKEN_OFF: Final = (
    b"\n\ndata: "
    + json.dumps(
        openai_shape.error("server_error", "the engine ended in the middle of the answer", code="engine_lost")
    ).encode()
    + b"\n\n"
)


class EngineLost(Exception):
    """The engine gave no answer that can be passed on, and nothing was sent to the client yet."""


@dataclass(frozen=True)
class _Outcome:
    response: web.StreamResponse
    usage: Usage
    end: End


class Forward:
    """Passes requests on. `wait_s`: for an engine that restarts; `stall_s`: without a byte before `on_stall` is told
    and before a client that does not read is cut off."""

    def __init__(
        self, routes: Routes, meter: Meter, on_stall: Callable[[Upstream], None], wait_s: float, stall_s: float
    ) -> None:
        self._routes = routes
        self._meter = meter
        self._on_stall = on_stall
        self._wait_s = wait_s
        self._stall_s = stall_s

    async def __call__(self, request: web.Request, path: str, body: bytes, model: str) -> web.StreamResponse:
        """The answer, already sent when it is a stream. Raises NoRoute, EngineDown, EngineLost."""
        loop = asyncio.get_running_loop()
        measured = self._meter.begin(loop.time())
        end, usage = End.FAILED, Usage()
        try:
            outcome = await self._ask(request, path, body, model, measured)
            end, usage = outcome.end, outcome.usage
            return outcome.response
        except asyncio.CancelledError:
            end = End.CLIENT_LEFT
            raise
        finally:
            measured.end(loop.time(), end, usage)

    async def _ask(self, request: web.Request, path: str, body: bytes, model: str, measured: Measured) -> _Outcome:
        failed: Upstream | None = None
        for _ in range(_ATTEMPTS):
            async with self._routes.admit(model, self._wait_s, failed) as upstream:
                try:
                    return await self._attempt(request, upstream, path, body, measured)
                except aiohttp.ClientError:
                    failed = upstream
        raise EngineLost(f"model {model}: its engine ended {_ATTEMPTS} times during this request")

    async def _attempt(
        self, request: web.Request, upstream: Upstream, path: str, body: bytes, measured: Measured
    ) -> _Outcome:
        """Raises aiohttp.ClientError while nothing was sent to the client yet."""
        watch = _Watch(request, lambda: self._on_stall(upstream), self._stall_s)
        try:
            async with upstream.session.post(
                upstream.openai_url + path,
                data=body,
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as answer:
                if answer.content_type == "text/event-stream":
                    return await self._stream(request, answer, measured, watch)
                return await self._whole(answer, measured, watch)
        finally:
            watch.stop()

    async def _whole(self, answer: aiohttp.ClientResponse, measured: Measured, watch: _Watch) -> _Outcome:
        parts, size = [], 0
        async for part in answer.content.iter_any():
            watch.moved()
            parts.append(part)
            size += len(part)
            if size > _MAX_ANSWER:
                raise EngineLost(f"the engine's answer has more than {_MAX_ANSWER} bytes")
        data = b"".join(parts)
        if answer.status in (401, 403):  # between us and the engine; no business of the client's
            raise EngineLost("the engine refused its own parent")
        response = web.Response(status=answer.status, body=data, content_type="application/json")
        return _Outcome(response, _usage(data), End.ANSWERED if answer.status < 500 else End.FAILED)

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, measured: Measured, watch: _Watch
    ) -> _Outcome:
        loop = asyncio.get_running_loop()
        part = await answer.content.readany()  # an engine that dies before this costs nothing but time
        if not part:
            raise aiohttp.ServerDisconnectedError("an empty stream")
        response = web.StreamResponse(
            status=answer.status, headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
        )
        tail = b""
        try:
            await response.prepare(request)
            while part:
                measured.piece(loop.time(), part.count(b"data: {"))
                tail = (tail + part)[-_TAIL:]
                watch.writing = True
                await response.write(part)
                watch.writing = False
                watch.moved()
                part = await _next(answer)
            if b"[DONE]" not in tail:
                await response.write(_BROKEN_OFF)
            await response.write_eof()
        except ConnectionError:
            return _Outcome(response, openai_shape.usage_of_stream(tail), End.CLIENT_LEFT)
        end = End.ANSWERED if b"[DONE]" in tail else End.FAILED
        return _Outcome(response, openai_shape.usage_of_stream(tail), end)


class _Watch:
    """One timer for one request: tells of an engine that sends nothing, cuts off a client that reads nothing."""

    def __init__(self, request: web.Request, on_stall: Callable[[], None], stall_s: float) -> None:
        self.writing = False
        self._request = request
        self._on_stall = on_stall
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._timer = self._loop.call_later(stall_s, self._look)

    def moved(self) -> None:
        self._last = self._loop.time()

    def stop(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        still = self._loop.time() - self._last
        if still >= self._stall_s:
            if self.writing and self._request.transport is not None:
                self._request.transport.abort()
                return
            self._on_stall()
            self._last, still = self._loop.time(), 0.0
        self._timer = self._loop.call_later(self._stall_s - still, self._look)


async def _next(answer: aiohttp.ClientResponse) -> bytes:
    """The stream's next piece, empty at its end and when the engine is gone; [DONE] tells the two apart.

    The engine's errors end here: beyond, aiohttp spells the client's leaving with the same classes.
    """
    try:
        return await answer.content.readany()
    except aiohttp.ClientError:
        return b""


def _usage(data: bytes) -> Usage:
    try:
        document: Any = json.loads(data)
    except ValueError:
        return Usage()
    return openai_shape.usage_of(document)
