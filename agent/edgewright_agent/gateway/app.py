"""The HTTP application: routes of the API, refusals in OpenAI's shape, start and stop."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from edgewright_agent.gateway import openai_shape
from edgewright_agent.gateway.forward import EngineLost, Forward
from edgewright_agent.gateway.meter import Meter
from edgewright_agent.gateway.routes import EngineDown, Health, NoRoute, Routes, Upstream

MAX_BODY: Final = 4 << 20
WAIT_S: Final = 60.0
STALL_S: Final = 120.0

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PortTaken(Exception):
    """Something else listens where the gateway should."""


def _ignore(_: Upstream) -> None:
    """No supervisor is interested in stalls."""


class Gateway:
    """Serves `routes` over HTTP. `on_stall` is told of an engine that sends nothing for `stall_s` seconds."""

    def __init__(
        self,
        routes: Routes,
        meter: Meter,
        on_stall: Callable[[Upstream], None] = _ignore,
        *,
        wait_s: float = WAIT_S,
        stall_s: float = STALL_S,
        max_body: int = MAX_BODY,
        degraded: Callable[[], str] = str,
    ) -> None:
        self._routes = routes
        self._meter = meter
        self._forward = Forward(routes, meter, on_stall, wait_s, stall_s)
        self._degraded = degraded
        self._max_body = max_body
        self._runner: web.AppRunner | None = None
        self.url = ""

    async def start(self, host: str, port: int) -> str:
        """Listen; the base URL, ending in /v1, with the port really bound (0 picks one). Raises PortTaken."""
        app = web.Application(client_max_size=self._max_body, middlewares=[self._refusals])
        app.add_routes(
            [
                web.post("/v1/chat/completions", self._completions("/chat/completions")),
                web.post("/v1/completions", self._completions("/completions")),
                web.get("/v1/models", self._models),
                web.get("/v1/models/{model:.+}", self._model),
                web.get("/health", self._health),
            ]
        )
        # A client that leaves cancels its handler, which closes the engine's connection, which ends generation.
        runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=5.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port, reuse_address=True).start()
        except OSError as error:
            await runner.cleanup()
            unknown_host = isinstance(error, socket.gaierror)
            if unknown_host or error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL):
                # asyncio's own text says the address a second time.
                reason = str(error.strerror if unknown_host else os.strerror(error.errno or 0)).lower()
                raise PortTaken(f"gateway.listen: cannot listen on {host}:{port}: {reason}; set another") from error
            raise
        self._runner = runner
        bound = runner.addresses[0][1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{bound}/v1"
        return self.url

    async def stop(self) -> None:
        """Stop listening; requests in hand get five seconds."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def health(self) -> Health:
        """What /health says, for the device's status too."""
        return self._routes.health()

    def _completions(self, path: str) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            body = await request.read()
            asked = openai_shape.asked(body)
            return await self._forward(request, path, body, self._routes.resolve(asked.model))

        return handle

    async def _models(self, _: web.Request) -> web.StreamResponse:
        return web.json_response({"object": "list", "data": [_card(model) for model in self._routes.models]})

    async def _model(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(_card(self._routes.resolve(request.match_info["model"])))

    async def _health(self, _: web.Request) -> web.StreamResponse:
        health = self._routes.health()
        status: dict[str, Any] = {"status": "ok" if health.ok else "unavailable", "model": health.model or None}
        note = health.reason or self._degraded()
        if note:
            status["reason"] = note
        return web.json_response(status, status=200 if health.ok else 503)

    @web.middleware
    async def _refusals(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Every refusal in OpenAI's shape, and counted."""
        try:
            return await handler(request)
        except openai_shape.BadRequest as error:
            return self._refuse(400, "invalid_request_error", str(error), param=error.param)
        except NoRoute as error:
            return self._refuse(404, "invalid_request_error", str(error), code="model_not_found", param="model")
        except EngineDown as error:
            return self._refuse(503, "server_error", str(error), code="engine_down", retry_after="5")
        except EngineLost as error:
            return self._refuse(502, "server_error", str(error), code="engine_lost")
        except web.HTTPRequestEntityTooLarge:
            return self._refuse(413, "invalid_request_error", f"the body has more than {self._max_body} bytes")
        except web.HTTPException as error:
            known = "POST /v1/chat/completions, POST /v1/completions, GET /v1/models, GET /health"
            message = f"{request.method} {request.path}: {error.reason}; there are {known}"
            return self._refuse(error.status, "invalid_request_error", message)

    def _refuse(
        self, status: int, kind: str, message: str, *, code: str | None = None, param: str = "", retry_after: str = ""
    ) -> web.Response:
        self._meter.reject()
        headers = {"Retry-After": retry_after} if retry_after else {}
        document = openai_shape.error(kind, message, code=code, param=param)
        return web.json_response(document, status=status, headers=headers)


def _card(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": 0, "owned_by": "edgewright"}
