"""What the line to the controller says when it is down."""

from __future__ import annotations

from concurrent import futures
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from edgewright_agent.certificate_life import Life, trouble
from edgewright_agent.device_key import FileKey
from edgewright_agent.link import Credentials, Link, LinkDown
from edgewright_contract.v1 import agent_pb2, agent_pb2_grpc
from tests.agent.throwaway_ca import Leaf, ThrowawayCa

LOOPBACK = x509.IPAddress(ip_address("127.0.0.1"))
NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize(("ends_in", "told"), [(timedelta(days=1), False), (timedelta(days=-1), True)])
def test_a_device_whose_certificate_has_ended_says_that_this_may_be_why(
    tmp_path: Path, ends_in: timedelta, told: bool
) -> None:
    leaf = ThrowawayCa(tmp_path).device("jetson-01")
    now = datetime.now(timezone.utc)
    life = Life(now - timedelta(days=2), now + ends_in)
    credentials = Credentials(FileKey(leaf.key, leaf.key.read_bytes()), leaf.certificate, leaf.ca)
    link = Link(NOBODY, credentials, lambda: trouble(life, life.not_before, now))
    with pytest.raises(LinkDown) as caught:
        link.check_in(agent_pb2.CheckInRequest())
    link.close()
    assert f"controller {NOBODY}: check-in: unavailable" in str(caught.value)
    assert ("certificate ended on" in str(caught.value)) is told
    assert ("edgewright enroll create" in str(caught.value)) is told


class Posing(agent_pb2_grpc.AgentServicer):
    """Whoever holds the port, with whatever certificate."""

    def __init__(self, leaf: Leaf) -> None:
        self.asked = 0
        self.server = grpc.server(futures.ThreadPoolExecutor(1))
        agent_pb2_grpc.add_AgentServicer_to_server(self, self.server)
        pair = [(leaf.key.read_bytes(), leaf.certificate.read_bytes())]
        port = self.server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair, leaf.ca.read_bytes(), True))
        self.address = f"127.0.0.1:{port}"
        self.server.start()

    def CheckIn(self, request: agent_pb2.CheckInRequest, context: object) -> agent_pb2.CheckInResponse:
        self.asked += 1
        return agent_pb2.CheckInResponse()

    def asked_by(self, own: Leaf) -> bool:
        """Whether the agent speaks to it."""
        credentials = Credentials(FileKey(own.key, own.key.read_bytes()), own.certificate, own.ca)
        link = Link(self.address, credentials)
        try:
            link.check_in(agent_pb2.CheckInRequest())
        except LinkDown:
            return bool(self.asked)
        finally:
            link.close()
            self.server.stop(0).wait()
        return bool(self.asked)


@pytest.mark.attack("device certificate poses as controller")
def test_a_device_does_not_pass_for_the_controller(tmp_path: Path) -> None:
    ca = ThrowawayCa(tmp_path)
    own = ca.device("jetson-01")
    assert Posing(ca.server()).asked_by(own)
    assert not Posing(ca.device("mac-01")).asked_by(own)
    # Not even one that names the controller's address: it is good for clients only.
    assert not Posing(ca.leaf("mac-02", [LOOPBACK], ExtendedKeyUsageOID.CLIENT_AUTH)).asked_by(own)
    assert Posing(ca.leaf("other", [LOOPBACK], ExtendedKeyUsageOID.SERVER_AUTH)).asked_by(own)
