"""Who may call what. Every method stands in one table; what is not there is refused.

Devices are named by their certificate alone: no request carries a device id that a device could
choose, so "a device acts only for itself" holds by construction. gRPC's own check of the certificate
happens once a connection; this one happens at every call, because connections outlive certificates.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Final, NoReturn, Protocol

import grpc
from grpc.aio import ServerInterceptor

from edgewright_contract import retry_hint
from edgewright_controller import log
from edgewright_controller.peers import Peer, PeerRefused, peer
from edgewright_controller.service.refusals import Refusals

_PREFIX: Final = "/edgewright_contract.v1"

_log = log.of(__name__)

# grpc is not typed; these names say what the values are.
Context = Any
Handler = Any


class Role(Enum):
    """Who is at the other end."""

    ANYONE = "anyone"  # no certificate: only to enrol
    DEVICE = "device"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


_DEVICES: Final = frozenset({Role.DEVICE})
_ADMINS: Final = frozenset({Role.ADMIN})
_OPERATORS: Final = _ADMINS | {Role.OPERATOR}
_VIEWERS: Final = _OPERATORS | {Role.VIEWER}

METHODS: Final[Mapping[str, frozenset[Role]]] = {
    f"{_PREFIX}.Agent/CheckIn": _DEVICES,
    f"{_PREFIX}.Agent/FetchObject": _DEVICES,
    f"{_PREFIX}.Agent/FetchBlocks": _DEVICES,
    f"{_PREFIX}.Agent/Renew": _DEVICES,
    f"{_PREFIX}.Operator/Plan": _VIEWERS,
    f"{_PREFIX}.Operator/Apply": _OPERATORS,
    f"{_PREFIX}.Operator/Rollback": _OPERATORS,
    f"{_PREFIX}.Operator/ControlRollout": _OPERATORS,
    f"{_PREFIX}.Operator/ListRollouts": _VIEWERS,
    f"{_PREFIX}.Operator/Status": _VIEWERS,
    f"{_PREFIX}.Operator/Tail": _VIEWERS,
    f"{_PREFIX}.Operator/ShowRollout": _VIEWERS,
    f"{_PREFIX}.Operator/WatchRollout": _VIEWERS,
    f"{_PREFIX}.Operator/ShowDevice": _VIEWERS,
    f"{_PREFIX}.Operator/ListReleases": _VIEWERS,
    f"{_PREFIX}.Operator/ShowRelease": _VIEWERS,
    f"{_PREFIX}.Operator/ListModels": _VIEWERS,
    f"{_PREFIX}.Operator/ShowModel": _VIEWERS,
    f"{_PREFIX}.Operator/FetchProvenance": _VIEWERS,
    f"{_PREFIX}.Operator/ListBuilds": _VIEWERS,
    f"{_PREFIX}.Operator/BuildLog": _VIEWERS,
    f"{_PREFIX}.Operator/History": _VIEWERS,
    f"{_PREFIX}.Operator/LabelDevices": _OPERATORS,
    f"{_PREFIX}.Operator/CordonDevices": _OPERATORS,
    f"{_PREFIX}.Operator/PauseDownloads": _OPERATORS,
    # It revokes certificates.
    f"{_PREFIX}.Operator/DecommissionDevice": _ADMINS,
    # Whoever adds a device extends the fleet's trust; that is for administrators.
    f"{_PREFIX}.Operator/CreateEnrolment": _ADMINS,
    f"{_PREFIX}.Operator/Revoke": _ADMINS,
    # A mandate reaches devices that nobody can call back.
    f"{_PREFIX}.Operator/CreateMandate": _ADMINS,
    f"{_PREFIX}.Operator/ExportRelease": _OPERATORS,
    # What goes is built or fetched again, which may take a night.
    f"{_PREFIX}.Operator/CollectGarbage": _ADMINS,
    f"{_PREFIX}.Operator/AuthoriseKey": _ADMINS,
    f"{_PREFIX}.Operator/Whoami": _VIEWERS,
    f"{_PREFIX}.Operator/RenewOperator": _VIEWERS,
    f"{_PREFIX}.Operator/ListOperators": _VIEWERS,
    f"{_PREFIX}.Operator/Audit": _VIEWERS,
    f"{_PREFIX}.Operator/AddOperator": _ADMINS,
    f"{_PREFIX}.Operator/SetOperatorRole": _ADMINS,
    f"{_PREFIX}.Operator/RemoveOperator": _ADMINS,
    f"{_PREFIX}.Enrolment/Login": frozenset({Role.ANYONE}),
    f"{_PREFIX}.Enrolment/Enrol": frozenset({Role.ANYONE}),
}


_OPERATOR_ROLES: Final = {role.value: role for role in (Role.VIEWER, Role.OPERATOR, Role.ADMIN)}


class Denied(Exception):
    """This caller may not do this; the message says who may, and is safe to send."""


def role_of(caller: Peer | None) -> Role | None:
    """The role of a caller, None for a certificate that is good for nothing here (another service's)."""
    if caller is None:
        return Role.ANYONE
    if caller.kind == "device":
        return Role.DEVICE
    return _OPERATOR_ROLES.get(caller.role) if caller.kind == "operator" else None


def check(method: str, caller: Peer | None, now: datetime) -> None:
    """Raise Denied unless `caller` (None: without a certificate) may call `method`, "/package.Service/Method"."""
    allowed = METHODS.get(method)
    if allowed is None:
        raise Denied(f"{method} is open to nobody")
    if caller is not None and caller.not_after <= now:
        cure = "ask an administrator: edgewright operator add" if caller.kind == "operator" else "enrol again"
        raise Denied(f"the certificate of {caller.id} expired at {caller.not_after:%Y-%m-%d %H:%M} UTC; {cure}")
    if role_of(caller) not in allowed:
        raise Denied(f"{_who(caller)} may not call {method}; it is for {_whom(allowed)}")


def _who(caller: Peer | None) -> str:
    if caller is None:
        return "a caller without a certificate"
    role = f" ({caller.role or 'without a role'})" if caller.kind == "operator" else ""
    return f"{caller.kind} {caller.id}{role}"


def _whom(allowed: frozenset[Role]) -> str:
    named = " and ".join(sorted(role.value for role in allowed))
    return f"{named}: ask an administrator" if Role.ADMIN in allowed else named


class Denying(Protocol):
    """Who may no longer speak: `revocations`."""

    def reason(self, peer: Peer) -> str:
        """Why this peer is refused; empty when it is not."""

    async def until_denied(self, peer: Peer) -> str:
        """Why this peer may not go on, once that is so."""


class Gate(ServerInterceptor):
    """Checks every call of all four kinds before its handler sees it, and streams for as long as they stand."""

    def __init__(
        self,
        fleet: str,
        denying: Denying,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        role: Callable[[Peer], str] = lambda caller: caller.role,
    ) -> None:
        """`role` says which role counts for an operator's certificate, empty for none."""
        self._clock, self._denying, self._role = clock, denying, role
        self._refusals = Refusals()
        # Parsing a certificate costs more than the rest of a check-in; a fleet's certificates repeat.
        self._parse = functools.lru_cache(maxsize=4096)(lambda pem: peer(pem, fleet))

    def peer(self, context: Context) -> Peer | None:
        """Who calls, None without a certificate. Raises Denied for a certificate of another making."""
        pems = context.auth_context().get("x509_pem_cert")
        if not pems:
            return None
        try:
            caller = self._parse(bytes(pems[0]))
        except PeerRefused as error:
            raise Denied(f"the certificate is not of this fleet: {error}") from error
        return replace(caller, role=self._role(caller)) if caller.kind == "operator" else caller

    def caller(self, context: Context) -> Peer:
        """The calling device with its certificate, for handlers that only devices reach."""
        caller = self.peer(context)
        if caller is None or caller.kind != "device":
            raise Denied("only a device may call this")
        return caller

    async def intercept_service(
        self,
        continuation: Callable[[Any], Awaitable[Handler]],
        handler_call_details: Any,
    ) -> Handler:
        """The handler, wrapped in the check. The certificate is known only when the call's context is."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return handler
        return _wrapped(handler, functools.partial(self._admit, handler_call_details.method), self._denying)

    async def _admit(self, method: str, context: Context) -> Peer | None:
        caller: Peer | None = None
        try:
            caller = self.peer(context)
            check(method, caller, self._clock())
            if caller is not None and (reason := self._denying.reason(caller)):
                raise Denied(reason)
        except Denied as error:
            self._note(method, caller, str(error))
            await refuse(context, grpc.StatusCode.PERMISSION_DENIED, str(error))
        return caller

    def _note(self, method: str, caller: Peer | None, why: str) -> None:
        """Who was kept from changing something. Refused reading, and devices that were shut out, are no news."""
        if not (method.startswith(f"{_PREFIX}.Operator/") and Role.VIEWER not in METHODS.get(method, frozenset())):
            return
        who = f"{caller.kind} {caller.id}" if caller else "a certificate of another making"
        left_out = self._refusals.line(who, self._clock())
        if left_out is not None:
            _log.warning("call refused", caller=who, method=method, why=why, left_out=left_out)


async def refuse(context: Context, code: grpc.StatusCode, message: str, *, again_s: float | None = None) -> NoReturn:
    """End the call with this status, and say when to ask again, in seconds from now."""
    hint = () if again_s is None else ((retry_hint.KEY, retry_hint.encoded(again_s)),)
    await context.abort(code, message, hint)
    raise AssertionError("abort always raises")


async def _send(messages: AsyncIterator[Any], context: Context) -> None:
    """All of them, each when the caller has taken the one before. What gRPC holds of a stream is one message."""
    try:
        async for message in messages:
            await context.write(message)
    finally:
        if isinstance(messages, AsyncGenerator):
            await messages.aclose()


async def _unless_denied(answer: Awaitable[Any], denied: Coroutine[Any, Any, str], context: Context) -> Any:
    """What comes of `answer`, to its end, unless `denied` comes first and says why there is no more of it."""
    shutting, working = asyncio.ensure_future(denied), asyncio.ensure_future(answer)
    try:
        await asyncio.wait({working, shutting}, return_when=asyncio.FIRST_COMPLETED)
        if shutting.done():
            await refuse(context, grpc.StatusCode.PERMISSION_DENIED, shutting.result())
        return working.result()
    finally:
        shutting.cancel()
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)


def _unless_bytes(serialize: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
    """For handlers that put their messages together themselves."""
    return lambda message: message if isinstance(message, bytes) else serialize(message)


def _wrapped(handler: Handler, admit: Callable[[Context], Awaitable[Peer | None]], denying: Denying) -> Handler:
    inner: Any = (handler.stream_stream or handler.stream_unary) if handler.request_streaming else None
    inner = inner or handler.unary_stream or handler.unary_unary

    async def answer_once(request: Any, context: Context) -> Any:
        caller = await admit(context)
        if caller is None or not handler.request_streaming:
            return await inner(request, context)
        return await _unless_denied(inner(request, context), denying.until_denied(caller), context)

    async def answer_many(request: Any, context: Context) -> None:
        caller = await admit(context)
        # A handler yields its messages, or is a coroutine that writes them itself.
        answer = inner(request, context)
        sending = _send(answer, context) if isinstance(answer, AsyncIterator) else answer
        if caller is None:
            await sending
        else:
            await _unless_denied(sending, denying.until_denied(caller), context)

    make: dict[tuple[bool, bool], Any] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }
    wrap = make[(bool(handler.request_streaming), bool(handler.response_streaming))]
    behaviour = answer_many if handler.response_streaming else answer_once
    return wrap(
        behaviour,
        request_deserializer=handler.request_deserializer,
        response_serializer=_unless_bytes(handler.response_serializer),
    )
