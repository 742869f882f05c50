"""Quiet streams outlive the pings that keep them; a client that pings more often than allowed does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent import link
from edgewright_contract.v1 import operator_pb2, operator_pb2_grpc
from edgewright_controller import operator_files
from edgewright_controller.client import ControllerUnreachable, Fleet, connection, read_access
from edgewright_controller.config import Address
from edgewright_controller.pki import Authority
from edgewright_controller.service import servers
from edgewright_controller.service.authorisation import Gate
from edgewright_controller.service.servers import ServerCertificate, open_server
from tests.controller.service_rig import NobodyDenied

PING_EVERY_MS = 1_000  # gRPC does not ping more often
QUIET_S = 5.5  # gRPC sends a client away at its third ping too many


class QuietTail(operator_pb2_grpc.OperatorServicer):
    """One report, after a long silence."""

    async def Tail(self, request: operator_pb2.TailRequest, context: Any) -> AsyncIterator[operator_pb2.TailEvent]:
        await asyncio.sleep(QUIET_S)  # the silence that the test is about
        yield operator_pb2.TailEvent(received_unix_ms=7)


async def tail(folder: Path, pings_allowed_every_ms: int) -> list[int]:
    """What comes out of a quiet tail whose client pings each second."""
    now = datetime.now(timezone.utc)
    authority = Authority.open(folder / "pki", "plant-7", now)
    certificate = ServerCertificate(authority.server_certificate(["127.0.0.1"], now), authority.ca_pem)
    server, address = open_server(
        Address("127.0.0.1", 0),
        "listen.grpc",
        certificate,
        Gate("plant-7", NobodyDenied()),
        clients=True,
        pings_allowed_every_ms=pings_allowed_every_ms,
    )
    register: Any = operator_pb2_grpc.add_OperatorServicer_to_server  # generated code has no types
    register(QuietTail(), server)
    await server.start()

    def follow() -> list[int]:
        access = read_access(operator_files.write(folder / "operator", authority, address, now))
        with Fleet(access, ping_every_ms=PING_EVERY_MS) as fleet:
            return [event.received_unix_ms for event in fleet.tail()]

    try:
        return await asyncio.to_thread(follow)
    finally:
        await server.stop(0)


async def test_a_quiet_tail_outlives_its_pings_unless_they_come_too_often(tmp_path: Path) -> None:
    allowed, too_many = await asyncio.gather(
        tail(tmp_path / "allowed", PING_EVERY_MS // 2), tail(tmp_path / "too-many", 60_000), return_exceptions=True
    )
    assert allowed == [7]
    assert isinstance(too_many, ControllerUnreachable)
    assert "too many pings" in str(too_many).lower()


@pytest.mark.parametrize("pings_every_ms", [connection.PING_EVERY_MS, dict(link._OPTIONS)["grpc.keepalive_time_ms"]])
def test_operators_and_agents_ping_less_often_than_the_controller_allows(pings_every_ms: int) -> None:
    assert pings_every_ms >= 2 * servers.PINGS_ALLOWED_EVERY_MS
