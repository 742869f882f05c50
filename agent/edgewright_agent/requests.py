"""What the controller asks for besides the desired state. It comes with a check-in, and its result goes with the next.

A request is answered once: the controller repeats it until it has the result, and a repeated one gets the same.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Final

from edgewright_contract.v1 import agent_pb2

MAX_REMEMBERED: Final = 256
MAX_DETAIL_BYTES: Final = 64 << 10
# What one check-in carries: the controller takes 64, and its message has a bound.
MAX_AT_ONCE: Final = 32

Kind = agent_pb2.DeviceRequest.Kind
Handler = Callable[[str], Awaitable[str]]

_log = logging.getLogger(__name__)


class RequestFailed(Exception):
    """What was asked for could not be done. The text goes to the operator."""


class Requests:
    """Performs requests through `handlers` (kind → argument → detail) and keeps their results until sent."""

    def __init__(self, handlers: Mapping[int, Handler]) -> None:
        self._handlers = handlers
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
        """Do what is asked, one after the other; whether there are results to send."""
        for request in list(requests)[:MAX_AT_ONCE]:
            result = self._done.get(request.id)
            if result is None:
                result = await self._answer(request)
                self._done[request.id] = result
                while len(self._done) > MAX_REMEMBERED:
                    self._done.popitem(last=False)
            self._waiting[request.id] = result
        return bool(self._waiting)

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
        return agent_pb2.RequestResult(id=request.id, succeeded=True, detail=_bounded(detail))


def _bounded(text: str) -> str:
    """The end of a text that is too long: of a log, the end is what counts."""
    return text.encode()[-MAX_DETAIL_BYTES:].decode("utf-8", "ignore")
