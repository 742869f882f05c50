"""A controller that only renews, and lets devices come back: real gRPC over TLS, certificates of a throwaway CA."""

from __future__ import annotations

from concurrent import futures
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from edgewright_agent.device_key import FileKeys
from edgewright_contract import canonical, digest
from edgewright_contract.v1 import agent_pb2, agent_pb2_grpc, enrolment_pb2, enrolment_pb2_grpc
from tests.agent.throwaway_ca import ThrowawayCa

DEVICE, FLEET = "jetson-01", "fleet"


class RenewalServer(agent_pb2_grpc.AgentServicer, enrolment_pb2_grpc.EnrolmentServicer):
    """Gives the newest key the newest chain again, another key a new one, as the contract says."""

    def __init__(self, ca: ThrowawayCa) -> None:
        self.ca, self.newest, self.refuse = ca, ("", b""), ""
        self.named = DEVICE  # whom the certificates name
        self.signs = ca  # who signs them
        self.renewals = self.returns = self.calls = 0
        leaf = ca.server()
        pair = [(leaf.key.read_bytes(), leaf.certificate.read_bytes())]
        self._servers = [grpc.server(futures.ThreadPoolExecutor(2)) for _ in range(2)]
        agent_pb2_grpc.add_AgentServicer_to_server(self, self._servers[0])
        enrolment_pb2_grpc.add_EnrolmentServicer_to_server(self, self._servers[1])
        mutual = grpc.ssl_server_credentials(pair, ca.ca.read_bytes(), True)
        plain = grpc.ssl_server_credentials(pair)
        ports = [
            server.add_secure_port("127.0.0.1:0", credentials)
            for server, credentials in zip(self._servers, (mutual, plain), strict=True)
        ]
        self.address, self.enrolment_address = (f"127.0.0.1:{port}" for port in ports)
        for server in self._servers:
            server.start()

    def enrolled(self, state: Path, ends_in: timedelta = timedelta(days=1), *, keeps_address: bool = True) -> None:
        """Make the folder of a device that has enrolled here."""
        key = FileKeys().make(state / "identity")
        chain = self.ca.sign(key.csr(), DEVICE, ends_in)
        self.newest = (key_name(key.csr()), chain)
        (state / "identity" / "certificate.pem").write_bytes(chain)
        (state / "identity" / "ca.pem").write_bytes(self.ca.ca.read_bytes())
        document = {
            "device": DEVICE,
            "fleet": FLEET,
            "controller_address": self.address,
            "mqtt_address": "",
            "token_sha256": "0" * 64,
        }
        if keeps_address:
            document["enrolment_address"] = self.enrolment_address
        (state / "identity" / "enrolment.json").write_bytes(canonical.encode(document))

    def Renew(self, request: agent_pb2.RenewRequest, context: Any) -> agent_pb2.RenewResponse:
        self.calls += 1
        if self.refuse:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, self.refuse)
        if key_name(request.csr_der) != self.newest[0]:
            self.newest = (key_name(request.csr_der), self.signs.sign(request.csr_der, self.named))
            self.renewals += 1
        return agent_pb2.RenewResponse(certificate_chain_pem=self.newest[1], enrolment_address=self.enrolment_address)

    def Enrol(self, request: enrolment_pb2.EnrolRequest, context: Any) -> enrolment_pb2.EnrolResponse:
        if request.token or key_name(request.csr_der) != self.newest[0] or self.refuse:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, self.refuse or "this key is not known here")
        self.newest = (self.newest[0], self.signs.sign(request.csr_der, self.named))
        self.returns += 1
        return enrolment_pb2.EnrolResponse(certificate_chain_pem=self.newest[1], device=DEVICE, fleet=FLEET)

    def stop(self) -> None:
        for server in self._servers:
            server.stop(0).wait()


def key_name(csr_der: bytes) -> str:
    """What names the key of a request."""
    public = x509.load_der_x509_csr(csr_der).public_key()
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return digest.of_bytes(public.public_bytes(serialization.Encoding.DER, spki))
