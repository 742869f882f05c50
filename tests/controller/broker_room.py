"""A real broker with a real authority, and clients of it, for the tests of the broker and of the reports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from edgewright_contract import envelope, names
from edgewright_contract.mqtt_link import Outgoing
from edgewright_contract.v1 import telemetry_pb2
from edgewright_controller.broker import Broker, BrokerFiles, find_mosquitto
from edgewright_controller.pki import Authority
from tests.agent.real_mosquitto import Listening
from tests.agent.throwaway_ca import Leaf
from tests.controller.pki_requests import new_key, request

ALL_UP = tuple(f"{names.TOPIC_ROOT}/+/up/{leaf}" for leaf in names.UP_LEAVES)


class BrokerRoom:
    """Everything below one folder; `broker` is not started yet."""

    def __init__(self, folder: Path, fleet: str = "plant-7"):
        folder.mkdir(parents=True, exist_ok=True)
        now = datetime.now(timezone.utc)
        self.folder, self.authority = folder, Authority.open(folder / "pki", fleet, now)
        server = self.authority.server_certificate(["localhost", "127.0.0.1"])
        self.files = BrokerFiles(self.authority.ca_path, server.chain, server.key)
        self.broker = self.another_broker()
        self._clients: list[Listening] = []

    def another_broker(self, port: int = 0) -> Broker:
        return Broker(self.folder / "broker", "127.0.0.1", port, self.files, find_mosquitto())

    def device(self, device: str) -> Leaf:
        """Key and certificate as an enrolled device has them."""
        key, chain = self.folder / f"{device}.key", self.folder / f"{device}.pem"
        private = new_key()
        chain.write_bytes(self.authority.issue_device(device, request(private), datetime.now(timezone.utc)))
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Leaf(key, chain, self.authority.ca_path)

    def service(self) -> Leaf:
        """The controller's own client."""
        pair = self.authority.service_client_certificate()
        return Leaf(pair.key, pair.chain, self.authority.ca_path)

    def client(
        self, leaf: Leaf, client_id: str, topics: tuple[str, ...] = (), will: Outgoing | None = None
    ) -> Listening:
        self._clients.append(Listening(self.broker.address, leaf, client_id, topics, will))
        return self._clients[-1]

    async def connected(self, client: Listening) -> Listening:
        """Connected and subscribed. A client's packets are read in order, so an answer to its second one shows that
        its subscription was read. The topic is nobody's, so nobody hears of it."""
        await until(lambda: bool(client.connections), "a client to connect")
        assert client.say("nobody/listens/here", b"")
        await until(lambda: not client.confirmed.empty(), "the broker's answer")
        client.confirmed.get()
        return client

    async def close(self) -> None:
        for client in self._clients:
            await asyncio.to_thread(client.link.stop)
        await self.broker.stop()


def said(
    device: str, seq: int, body: str = "event", session: int = 1, epoch: bytes = b"e" * 16
) -> telemetry_pb2.Envelope:
    """An envelope as a device makes it."""
    message = telemetry_pb2.Envelope(
        schema=1, device_id=device, spool_epoch=epoch, boot_id=b"b" * 16, session=session, seq=seq
    )
    if body == "event":
        message.event.detail = f"number {seq}"
    elif body == "telemetry":
        message.telemetry.requests = seq
    elif body == "birth":
        message.birth.engine = "an engine"
    elif body == "death":
        message.death.graceful = False
    return message


def topic_of(message: telemetry_pb2.Envelope) -> str:
    return names.up_topic(message.device_id, envelope.leaf_of(message))


async def until(true: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    """Wait for something that other threads and processes do."""
    deadline = time.monotonic() + deadline_s
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {deadline_s} s in vain for {what}")
        await asyncio.sleep(0.01)
