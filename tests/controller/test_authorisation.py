"""Who may call what: the table, and the gate in front of real calls over mutual TLS."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgewright_contract.v1 import agent_pb2, enrolment_pb2, operator_pb2, telemetry_pb2
from edgewright_controller.peers import Peer
from edgewright_controller.pki import Authority
from edgewright_controller.service.authorisation import METHODS, Denied, Gate, Role, check, role_of
from tests.controller.pki_requests import new_key, request
from tests.controller.service_rig import NobodyDenied, words

NOW = datetime.now(timezone.utc)
DEVICE = Peer("device", "jetson-01", "", "1", NOW + timedelta(days=1), "0" * 64, NOW)
ADMIN = Peer("operator", "admin", "admin", "2", NOW + timedelta(days=1), "0" * 64, NOW)
READER = Peer("operator", "night-shift", "operator", "3", NOW + timedelta(days=1), "0" * 64, NOW)
VIEWER = dataclasses.replace(READER, id="night-watch", role="viewer")
SERVICE = Peer("service", "controller-1", "", "4", NOW + timedelta(days=1), "0" * 64, NOW)
CALLERS: dict[Role | None, Peer | None] = {
    Role.DEVICE: DEVICE,
    Role.ADMIN: ADMIN,
    Role.OPERATOR: READER,
    Role.VIEWER: VIEWER,
    Role.ANYONE: None,
    None: SERVICE,
}


def every_method() -> set[str]:
    """The full names of all RPCs on the wire."""
    files = (agent_pb2, enrolment_pb2, operator_pb2, telemetry_pb2)
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    return {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}


def test_every_rpc_stands_in_the_table_and_nothing_else() -> None:
    assert set(METHODS) == every_method()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_each_method_admits_exactly_the_roles_of_its_row(method: str) -> None:
    for role, caller in CALLERS.items():
        assert role_of(caller) is role
        if role in METHODS[method]:
            check(method, caller, NOW)
        else:
            with pytest.raises(Denied):
                check(method, caller, NOW)


def test_a_method_outside_the_table_is_open_to_nobody() -> None:
    for caller in CALLERS.values():
        with pytest.raises(Denied, match="open to nobody"):
            check("/edgewright_contract.v1.Operator/Shutdown", caller, NOW)


def test_a_certificate_that_expires_during_a_connection_is_refused() -> None:
    check("/edgewright_contract.v1.Agent/CheckIn", DEVICE, NOW)
    expired = dataclasses.replace(DEVICE, not_after=NOW)
    with pytest.raises(Denied, match=r"jetson-01 expired .* enrol again"):
        check("/edgewright_contract.v1.Agent/CheckIn", expired, NOW)


# The gate, in front of the four kinds of calls. The methods carry names of the table, so that the table decides.

UNARY = "/edgewright_contract.v1.Agent/CheckIn"
SERVER_STREAM = "/edgewright_contract.v1.Agent/FetchObject"
CLIENT_STREAM = "/edgewright_contract.v1.Agent/FetchBlocks"
BOTH_STREAM = "/edgewright_contract.v1.Operator/Status"
UNLISTED = "/edgewright_contract.v1.Agent/Unlisted"


async def _one(request: bytes, context: Any) -> bytes:
    return b"one " + request


async def _many(request: bytes, context: Any) -> AsyncIterator[bytes]:
    yield b"many " + request


async def _gather(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([part async for part in requests])


async def _echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for part in requests:
        yield part


class AllKinds(grpc.GenericRpcHandler):
    """One method of each kind."""

    handlers: ClassVar[dict[str, Any]] = {
        UNARY: grpc.unary_unary_rpc_method_handler(_one),
        UNLISTED: grpc.unary_unary_rpc_method_handler(_one),
        SERVER_STREAM: grpc.unary_stream_rpc_method_handler(_many),
        CLIENT_STREAM: grpc.stream_unary_rpc_method_handler(_gather),
        BOTH_STREAM: grpc.stream_stream_rpc_method_handler(_echo),
    }

    def service(self, handler_call_details: Any) -> Any:
        return self.handlers.get(handler_call_details.method)


class Rig:
    """A server behind the gate, and channels of different callers."""

    def __init__(self, folder: Path, gate: Gate | None = None, handlers: grpc.GenericRpcHandler | None = None) -> None:
        self.authority = Authority.open(folder / "pki", "plant-7", NOW)
        self.server = grpc.aio.server(interceptors=(gate or Gate("plant-7", NobodyDenied()),))
        self.server.add_generic_rpc_handlers((handlers or AllKinds(),))
        pair = self.authority.server_certificate(["127.0.0.1"])
        credentials = grpc.ssl_server_credentials(
            [(pair.key.read_bytes(), pair.chain.read_bytes())], self.authority.ca_pem, require_client_auth=True
        )
        self.port = self.server.add_secure_port("127.0.0.1:0", credentials)

    def channel(self, key: bytes, chain: bytes) -> grpc.aio.Channel:
        credentials = grpc.ssl_channel_credentials(self.authority.ca_pem, key, chain)
        return grpc.aio.secure_channel(f"127.0.0.1:{self.port}", credentials)

    def device(self) -> grpc.aio.Channel:
        key = new_key()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.chain = self.authority.issue_device("jetson-01", request(key), NOW)
        return self.channel(pem, self.chain)

    def operator(self) -> grpc.aio.Channel:
        files = self.authority.operator_certificate()
        self.chain = files.chain.read_bytes()
        return self.channel(files.key.read_bytes(), self.chain)

    def service(self) -> grpc.aio.Channel:
        pair = self.authority.service_client_certificate()
        return self.channel(pair.key.read_bytes(), pair.chain.read_bytes())


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(tmp_path)
    await made.server.start()
    yield made
    await made.server.stop(0)


async def call(channel: Any, method: str) -> bytes:
    """Call any of the methods with one small message; what came back."""
    if method in (UNARY, UNLISTED):
        return bytes(await channel.unary_unary(method)(b"x", timeout=10))
    if method == SERVER_STREAM:
        return b"".join([part async for part in channel.unary_stream(method)(b"x", timeout=10)])
    if method == CLIENT_STREAM:
        return bytes(await channel.stream_unary(method)(iter([b"x"]), timeout=10))
    return b"".join([part async for part in channel.stream_stream(method)(iter([b"x"]), timeout=10)])


@pytest.mark.parametrize(
    ("caller", "method"),
    [("device", UNARY), ("device", SERVER_STREAM), ("device", CLIENT_STREAM), ("operator", BOTH_STREAM)],
)
async def test_the_gate_passes_who_may_and_stops_who_may_not(rig: Rig, caller: str, method: str) -> None:
    other = {"device": "operator", "operator": "device"}[caller]
    async with getattr(rig, caller)() as channel:
        assert (await call(channel, method)).endswith(b"x")
    for stranger in (other, "service"):
        async with getattr(rig, stranger)() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await call(channel, method)
            assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_handler_without_a_row_in_the_table_is_never_reached(rig: Rig) -> None:
    for caller in (rig.device, rig.operator, rig.service):
        async with caller() as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await call(channel, UNLISTED)
            assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "open to nobody" in words(refusal.value)


async def test_a_caller_without_a_certificate_does_not_connect(rig: Rig) -> None:
    credentials = grpc.ssl_channel_credentials(rig.authority.ca_pem)
    async with grpc.aio.secure_channel(f"127.0.0.1:{rig.port}", credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call(channel, UNARY)
        assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_certificate_of_another_fleet_under_the_same_authority_is_refused(rig: Rig, tmp_path: Path) -> None:
    key = new_key()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    rig.authority._fleet = "plant-8"  # what a wrongly configured authority would write
    async with rig.channel(pem, rig.authority.issue_device("jetson-01", request(key), NOW)) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await call(channel, UNARY)
        assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "plant-8" in words(refusal.value)
