"""A line that breaks while a request is under way: what only reads is asked again, what changes something is not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from edgewright_contract.v1 import operator_pb2, operator_pb2_grpc
from edgewright_controller import operator_files
from edgewright_controller.client import Access, ControllerUnreachable, Fleet, connection, read_access
from edgewright_controller.config import Address
from edgewright_controller.pki import Authority
from edgewright_controller.service.authorisation import METHODS, Gate
from edgewright_controller.service.servers import ServerCertificate, open_server
from tests.controller.service_rig import NobodyDenied


class Counting(operator_pb2_grpc.OperatorServicer):
    """Answers nothing in particular, and counts."""

    def __init__(self) -> None:
        self.asked = 0

    async def Status(self, request: operator_pb2.StatusRequest, context: Any) -> operator_pb2.StatusResponse:
        self.asked += 1
        return operator_pb2.StatusResponse()

    async def LabelDevices(
        self, request: operator_pb2.LabelDevicesRequest, context: Any
    ) -> operator_pb2.LabelDevicesResponse:
        self.asked += 1
        return operator_pb2.LabelDevicesResponse()


class Relay:
    """Passes bytes on to a port. While `breaks` is positive, whatever a client says next breaks its line instead."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.breaks = self.broken = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        onward, outward = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.create_task(self._copy(onward, writer))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.breaks:
                    self.breaks, self.broken = self.breaks - 1, self.broken + 1
                    break
                outward.write(data)
        back.cancel()
        writer.close()
        outward.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)


@contextlib.asynccontextmanager
async def behind_a_relay(folder: Path) -> AsyncIterator[tuple[Counting, Relay, Access]]:
    """A server of the operators' service, and the way to it through a relay."""
    now, counting = datetime.now(timezone.utc), Counting()
    authority = Authority.open(folder / "pki", "plant-7", now)
    certificate = ServerCertificate(authority.server_certificate(["127.0.0.1"], now), authority.ca_pem)
    gate = Gate("plant-7", NobodyDenied())
    server, address = open_server(Address("127.0.0.1", 0), "listen.grpc", certificate, gate, clients=True)
    register: Any = operator_pb2_grpc.add_OperatorServicer_to_server  # generated code has no types
    register(counting, server)
    await server.start()
    try:
        relay = Relay(address.port)
        async with await asyncio.start_server(relay.serve, "127.0.0.1", 0) as front:
            there = Address("127.0.0.1", front.sockets[0].getsockname()[1])
            yield counting, relay, read_access(operator_files.write(folder / "operator", authority, there, now))
    finally:
        await server.stop(0)


async def test_a_read_outlives_a_line_that_breaks_under_it(tmp_path: Path) -> None:
    async with behind_a_relay(tmp_path) as (counting, relay, access):
        with Fleet(access) as fleet:
            await asyncio.to_thread(fleet.status)
            relay.breaks = 1
            await asyncio.to_thread(fleet.status)
        assert (counting.asked, relay.broken) == (2, 1)


async def test_a_change_is_not_sent_twice_by_a_line_that_breaks_under_it(tmp_path: Path) -> None:
    async with behind_a_relay(tmp_path) as (counting, relay, access):
        with Fleet(access) as fleet:
            await asyncio.to_thread(fleet.label, ["jetson-01"], {"site": "north"})
            relay.breaks = 1
            with pytest.raises(ControllerUnreachable, match="went away"):
                await asyncio.to_thread(fleet.label, ["jetson-01"], {"site": "north"})
        assert (counting.asked, relay.broken) == (1, 1)


def test_what_is_asked_again_is_open_to_viewers_and_is_a_method_of_the_service() -> None:
    viewers = {method.rpartition("/")[2] for method, roles in METHODS.items() if "viewer" in {r.value for r in roles}}
    assert set(connection._READS) <= viewers - {"RenewOperator"}
