"""What the controller asks for besides the desired state. It comes with a check-in, and its result goes with the next.

A request is answered once: the controller repeats it until it has the result, and a repeated one gets the same.
They are done one after the other, and a slow one, such as a probe, does not keep the device from checking in.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from edgewright_agent.database import StateDamaged
from edgewright_contract.v1 import agent_pb2

MAX_REMEMBERED: Final = 256
MAX_DETAIL_BYTES: Final = 64 << 10
# What one check-in carries: the controller takes 64, and its message has a bound.
MAX_AT_ONCE: Final = 32
# Most requests are done at once; their results then go with the very next check-in.
_PATIENCE_S: Final = 1.0

Kind = agent_pb2.DeviceRequest.Kind
Handler = Callable[[str], Awaitable[str]]

_log = logging.getLogger(__name__)


class RequestFailed(Exception):
    """What was asked for could not be done. The text goes to the operator."""


class Requests:
    """Performs requests through `handlers` (kind → argument → detail) and keeps their results until sent."""

    def __init__(self, handlers: Mapping[int, Handler], on_late: Callable[[], None]) -> None:
        """`on_late` is called when there is a result that `perform` did not wait for."""
        self._handlers, self._on_late = handlers, on_late
        self._turn = asyncio.Lock()
        self._running: dict[str, asyncio.Task[None]] = {}
        self._done: OrderedDict[str, agent_pb2.RequestResult] = OrderedDict()
        self._waiting: OrderedDict[str, agent_pb2.RequestResult] = OrderedDict()

    def results(self) -> list[agent_pb2.RequestResult]:
        """Results for the next check-in."""
        return list(self._waiting.values())[:MAX_AT_ONCE]

    def sent(self, results: Iterable[agent_pb2.RequestResult]) -> None:
        """These have reached the controller."""
        for result in results:
            self._waiting.pop(result.id, None)

    async def perform(self, requests: Iterable[agent_pb2.DeviceRequest]) -> bool:
        """Begin with what is asked, in its order, and wait a moment for it; whether there are results to send."""
        for request in list(requests)[:MAX_AT_ONCE]:
            result = self._done.get(request.id)
            if result is not None:
                self._waiting[request.id] = result
            elif request.id not in self._running and len(self._running) < MAX_AT_ONCE:
                self._running[request.id] = asyncio.ensure_future(self._take_turn(request))
        begun = list(self._running.values())
        if begun:
            await asyncio.wait(begun, timeout=_PATIENCE_S)
            for task in begun:
                if not task.done():
                    task.add_done_callback(lambda _: self._on_late())
        return bool(self._waiting)

    async def stop(self) -> None:
        """Give up what is not done. The controller asks again."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_turn(self, request: agent_pb2.DeviceRequest) -> None:
        try:
            async with self._turn:
                result = await self._answer(request)
        except StateDamaged as error:
            _log.error("request %s is not done: %s; it is asked for again", request.id, error)
        else:
            self._done[request.id] = self._waiting[request.id] = result
            while len(self._done) > MAX_REMEMBERED:
                self._done.popitem(last=False)
        finally:
            del self._running[request.id]

    async def _answer(self, request: agent_pb2.DeviceRequest) -> agent_pb2.RequestResult:
        handler = self._handlers.get(request.kind)
        if handler is None:
            detail = f"this version of the agent does not know requests of kind {request.kind}"
            return agent_pb2.RequestResult(id=request.id, succeeded=False, detail=detail)
        try:
            detail = await handler(request.argument)
        except RequestFailed as error:
            _log.warning("request %s failed: %s", request.id, error)
            return agent_pb2.RequestResult(id=request.id, succeeded=False, detail=_bounded(str(error)))
        except StateDamaged:
            raise
        except Exception as error:
            # Without a result the controller would ask for it for ever.
            _log.exception("request %s failed in a way that nobody thought of", request.id)
            return agent_pb2.RequestResult(id=request.id, succeeded=False, detail=_bounded(repr(error)))
        return agent_pb2.RequestResult(id=request.id, succeeded=True, detail=_bounded(detail))


def _bounded(text: str) -> str:
    """The end of a text that is too long: of a log, the end is what counts."""
    return text.encode()[-MAX_DETAIL_BYTES:].decode("utf-8", "ignore")
