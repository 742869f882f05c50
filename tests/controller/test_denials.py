"""Connections that stand outlive certificates: what the gate does about calls over them. Real gRPC, real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from edgewright_controller.ledger import Ledger, certificates
from edgewright_controller.ledger.certificates import CertificateRow
from edgewright_controller.peers import peer
from edgewright_controller.service import revocations as revocations_module
from edgewright_controller.service.authorisation import Gate
from edgewright_controller.service.revocations import Revocations
from tests.controller.broker_room import until
from tests.controller.ledger_rows import opened
from tests.controller.service_rig import words
from tests.controller.test_authorisation import BOTH_STREAM, CLIENT_STREAM, SERVER_STREAM, UNARY, Rig
from tests.controller.test_rollouts_runner import Slow

KINDS = [("device", SERVER_STREAM), ("device", CLIENT_STREAM), ("operator", BOTH_STREAM)]


class Standing(grpc.GenericRpcHandler):
    """Calls that end when their caller says so, or never."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self.ended: asyncio.Queue[str] = asyncio.Queue()

        async def one(request: bytes, context: Any) -> bytes:
            return request

        async def many(request: bytes, context: Any) -> AsyncIterator[bytes]:
            try:
                yield request
                await asyncio.Event().wait()
            finally:
                self.ended.put_nowait("many")

        async def gather(requests: AsyncIterator[bytes], context: Any) -> bytes:
            try:
                async for part in requests:
                    self.heard.put_nowait(part)
            finally:
                self.ended.put_nowait("gather")
            return b"all"

        async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            try:
                async for part in requests:
                    yield part
            finally:
                self.ended.put_nowait("echo")

        self.handlers: dict[str, Any] = {
            UNARY: grpc.unary_unary_rpc_method_handler(one),
            SERVER_STREAM: grpc.unary_stream_rpc_method_handler(many),
            CLIENT_STREAM: grpc.stream_unary_rpc_method_handler(gather),
            BOTH_STREAM: grpc.stream_stream_rpc_method_handler(echo),
        }

    def service(self, handler_call_details: Any) -> Any:
        return self.handlers.get(handler_call_details.method)


class Room:
    """A gate with real denials, whose clock the test moves."""

    def __init__(self, folder: Path, ledger: Ledger, revocations: Revocations, now: list[datetime]) -> None:
        self.ledger, self.revocations, self.now = ledger, revocations, now
        self.standing = Standing()
        self.rig = Rig(folder, Gate("plant-7", revocations, lambda: now[0]), self.standing)

    async def enter(self) -> str:
        """Enter the certificate that was issued last; who holds it."""
        holder = peer(self.rig.chain, "plant-7")
        row = CertificateRow(
            holder.serial, holder.kind, holder.id, holder.key_sha256, 0, int(holder.not_after.timestamp() * 1000)
        )
        await self.ledger.write(lambda c: certificates.put(c, row))
        return holder.id


@pytest.fixture
async def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Room]:
    monkeypatch.setattr(revocations_module, "LOOK_EVERY_S", 0.05)
    now = [datetime.now(timezone.utc)]
    with opened(tmp_path) as ledger:
        made = Room(tmp_path, ledger, await Revocations.open(ledger, lambda: now[0]), now)
        await made.rig.server.start()
        yield made
        await made.rig.server.stop(0)


async def begun(room: Room, channel: Any, method: str) -> Any:
    """A call that stands: the server has heard a part, or the caller has its first answer."""
    if method == SERVER_STREAM:
        call = channel.unary_stream(method)(b"x", timeout=60)
        assert await call.read() == b"x"
    elif method == CLIENT_STREAM:
        call = channel.stream_unary(method)(timeout=60)
        await call.write(b"x")
        assert await asyncio.wait_for(room.standing.heard.get(), 30) == b"x"
    else:
        call = channel.stream_stream(method)(timeout=60)
        await call.write(b"x")
        assert await call.read() == b"x"
    return call


async def refusal(answer: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await asyncio.wait_for(answer, 30)
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    return words(refused.value)


async def once(channel: Any) -> bytes:
    """The answer to one small call."""
    answer: bytes = await channel.unary_unary(UNARY)(b"x", timeout=10)
    return answer


def rest(call: Any) -> Any:
    """What the caller waits for while its stream stands."""
    return call.read() if hasattr(call, "read") else call


@pytest.mark.attack("stolen certificate after its revocation, on calls of every kind that stand")
@pytest.mark.parametrize(("holder", "method"), KINDS)
async def test_a_call_that_stands_ends_when_its_caller_is_revoked(room: Room, holder: str, method: str) -> None:
    async with getattr(room.rig, holder)() as channel:
        name = await room.enter()
        call = await begun(room, channel, method)
        await room.revocations.revoke(holder, name, by="operator admin", why="stolen")
        assert f"{holder} {name} was revoked (stolen)" in await refusal(rest(call))
        await asyncio.wait_for(room.standing.ended.get(), 30)


@pytest.mark.attack("certificate that expired on a connection that stands")
@pytest.mark.parametrize(("holder", "method"), KINDS)
async def test_a_call_that_stands_ends_when_its_callers_certificate_ends(room: Room, holder: str, method: str) -> None:
    async with getattr(room.rig, holder)() as channel:
        call = await begun(room, channel, method)
        assert not (await asyncio.wait({asyncio.ensure_future(rest(call))}, timeout=0.3))[0], "it stands while it may"
        call = await begun(room, channel, method)
        room.now[0] += timedelta(days=400)
        assert "ended while the call ran; renew it" in await refusal(rest(call))


@pytest.mark.attack("certificate that expired, for a call over a connection that stands")
async def test_the_next_call_over_the_same_connection_is_refused_after_the_certificates_end(room: Room) -> None:
    async with room.rig.device() as channel:
        assert await once(channel) == b"x"
        room.now[0] += timedelta(days=31)
        assert "expired at" in await refusal(once(channel))


@pytest.mark.attack("revoked operator's certificate, at the next call")
async def test_a_revoked_operator_is_refused_at_the_next_call(room: Room) -> None:
    async with room.rig.operator() as channel:
        name = await room.enter()
        call = await begun(room, channel, BOTH_STREAM)
        await call.done_writing()
        await room.revocations.revoke(certificates.OPERATOR, name, by="operator boss", why="")
        said = await refusal(rest(await _again(channel)))
        assert said == f"the certificate of operator {name} was revoked; ask an administrator of the fleet"


async def _again(channel: Any) -> Any:
    call = channel.stream_stream(BOTH_STREAM)(timeout=60)
    await call.done_writing()
    return call


@pytest.mark.attack("certificate that a restored ledger does not know, of a device that was revoked")
async def test_a_certificate_unknown_to_the_ledger_is_good_until_its_holder_is_revoked(room: Room) -> None:
    """As after a restore from a backup that is older than the certificate."""
    async with room.rig.device() as unknown, room.rig.device() as known:
        await room.enter()  # the one that was issued last
        for channel in (known, unknown):
            assert await once(channel) == b"x"
        await room.revocations.revoke(certificates.DEVICE, "jetson-01", by="operator admin", why="")
        for channel in (known, unknown):
            assert "was revoked" in await refusal(once(channel))


async def test_a_revocation_whose_caller_leaves_is_denied_all_the_same(room: Room) -> None:
    async with room.rig.device() as channel:
        await room.enter()
        slow = Slow(room.ledger)
        slow.pause = asyncio.Event()
        room.revocations._ledger = slow  # type: ignore[assignment]
        asking = asyncio.create_task(room.revocations.revoke("device", "jetson-01", by="operator admin", why=""))
        await asyncio.wait_for(slow.written.wait(), 30)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        slow.pause.set()
        await until(lambda: "jetson-01" in room.revocations.shut_devices(), "the revocation to be known here")
        assert "was revoked" in await refusal(once(channel))


async def test_what_was_read_before_a_revocation_does_not_take_the_place_of_what_was_read_after(room: Room) -> None:
    late = Late(room.ledger)
    room.revocations._ledger = late  # type: ignore[assignment]
    async with room.rig.device() as channel:
        name = await room.enter()
        late.pause = asyncio.Event()
        before = asyncio.create_task(room.revocations.refresh())
        await asyncio.wait_for(late.seen.wait(), 30)
        (row,) = await room.ledger.read(lambda c: certificates.of(c, "device", name))
        await room.ledger.write(
            lambda c: certificates.revoke(c, [row.serial], by="operator admin", why="", now_ms=row.not_after_ms - 1)
        )
        after = asyncio.create_task(room.revocations.refresh())
        await asyncio.sleep(0.1)  # for one that would not wait, to get ahead
        late.pause.set()
        await asyncio.gather(before, after)
        assert "was revoked" in await refusal(once(channel))


class Late:
    """A ledger whose first read is answered when `pause` is set."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self.write = ledger, ledger.write
        self.pause: asyncio.Event | None = None
        self.seen = asyncio.Event()

    async def read(self, act: Any) -> Any:
        answer = await self._ledger.read(act)
        if self.pause is not None and not self.seen.is_set():
            self.seen.set()
            await self.pause.wait()
        return answer
