"""A controller for one agent, of real parts: certificates, both repositories, enrolment, blocks, check-ins.

What the real one adds, the ledger and rollouts, is not needed to show what a device does. A test says what the
device should have (`want`) and waits for what it reports (`until`).
"""

from __future__ import annotations

import shutil
import struct
import threading
from collections.abc import Callable, Mapping
from concurrent import futures
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
from securesystemslib.signer import CryptoSigner

from edgewright_contract.release import Probe, Release
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2, enrolment_pb2, enrolment_pb2_grpc
from edgewright_controller.director import Desired, Director
from edgewright_controller.enrolment import EnrolmentRow, Enrolments
from edgewright_controller.peers import key_digest, peer
from edgewright_controller.pki import Authority, requested_key
from edgewright_controller.publish import ImageRepository, mandates
from edgewright_controller.publish.mandates import Terms
from tests.agent import echo
from tests.agent.block_server import BlockServer
from tests.agent.mandate_fleet import delegate
from tests.agent.throwaway_ca import Leaf
from tests.controller.signed_things import KeyInHand

DEVICE, FLEET = "jetson-01", "demo"
SOUND = Probe("greets", "well met", expect="well met")


class SmallController(BlockServer, enrolment_pb2_grpc.EnrolmentServicer):
    """Starts listening at once. `stop` and `start_again` are the network's, not the state's."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        now = datetime.now(timezone.utc)
        self.authority = Authority.open(folder / "pki", FLEET, now)
        keys = folder / "keys"
        self._image = ImageRepository.open(folder / "image", keys, now, builder=KeyInHand())
        self._director = Director.open(folder / "director", keys, FLEET, now)
        self._mandate_key: CryptoSigner | None = None
        self._desired, self._version = Desired(0, None, None), 1
        self._changed = threading.Condition()
        self.away = False  # check-ins are not answered
        self.requests: list[agent_pb2.DeviceRequest] = []
        self.results: list[agent_pb2.RequestResult] = []
        self.inventory = agent_pb2.Inventory()
        pair = self.authority.server_certificate(["127.0.0.1"])
        self._leaf = Leaf(pair.key, pair.chain, self.authority.ca_path)
        super().__init__(self._empty_artifact(), self._leaf)
        plain = grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.chain.read_bytes())])
        self._enrolment = grpc.server(futures.ThreadPoolExecutor(1))
        enrolment_pb2_grpc.add_EnrolmentServicer_to_server(self, self._enrolment)
        port = self._enrolment.add_secure_port("127.0.0.1:0", plain)
        self._newest: tuple[str, bytes] = ("", b"")  # the key of the device's newest certificate, and its chain
        self._revoked: set[str] = set()  # keys
        self.refusals = 0
        self.renewals = 0
        self.last_issued = now
        self.returns = 0
        self._enrolments = Enrolments(self.authority, _Tokens(), f"127.0.0.1:{port}")
        self._enrolment.start()

    def revoke(self) -> None:
        """From now on, the device's newest certificate, and its key, are refused."""
        self._revoked.add(self._newest[0])

    def token(self) -> str:
        return self._enrolments.create(DEVICE, 3600, datetime.now(timezone.utc))

    def release(
        self,
        name: str,
        probe: Probe = SOUND,
        *,
        size: int = 1 << 20,
        served_name: str = "",
        made_for: str = "cpu",
        files: Mapping[str, bytes] = MappingProxyType({}),
        chat_template: str = "",
        **how: Any,
    ) -> tuple[Release, ImageTarget]:
        """A published release whose engine behaves as `how` says (echo_engine.py). `files` are added, or replace."""
        artifact = echo.artifact(self._folder / "artifacts" / name, name=name, **how)
        weights = name.encode() * (size // len(name))
        (artifact / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + weights)
        for path, data in files.items():
            (artifact / path).write_bytes(data)
        target = replace(self.add(artifact), hw_class=f"gguf-{made_for}")
        self._image.publish([target], datetime.now(timezone.utc))
        named = {"served_name": served_name, "chat_template": chat_template}
        options = {key: value for key, value in named.items() if value}
        release = Release("smollm2", "jetson", "gguf", target.bundle, made_for, 1 << 20, options, (probe,))
        return release, target

    def mandate(self, number: int, wanted: tuple[Release, ImageTarget], *, device: str = DEVICE) -> bytes:
        """An offline mandate that gives this to `device` as generation `number`, signed."""
        now = datetime.now(timezone.utc)
        if self._mandate_key is None:
            self._mandate_key = CryptoSigner.generate_ed25519()
            delegate(self._image, self._mandate_key, now=now)
        release, target = wanted
        terms = Terms(FLEET, device, None, number, number, release, target, now, now + timedelta(days=90))
        return mandates.sign(mandates.draw_up(self._image.documents(), terms), self._mandate_key)

    def content(self, folder: Path, wanted: tuple[Release, ImageTarget]) -> Path:
        """The artifact in `folder`, as on a stick."""
        target = wanted[1]
        (folder / "objects").mkdir(parents=True, exist_ok=True)
        for sha256 in (target.bundle, target.block_index):
            (folder / "objects" / sha256).write_bytes(self.objects[sha256])
        shutil.copytree(self._folders[target.bundle][0], folder / "artifacts" / target.bundle)
        return folder

    def want(self, generation: int, wanted: tuple[Release, ImageTarget] | None) -> None:
        """From the next check-in on, the device should have this."""
        with self._changed:
            self._desired = Desired(generation, *(wanted or (None, None)))
            self._version += 1

    @property
    def heard(self) -> int:
        """How many check-ins came so far: the `since` for what a device is about to say."""
        with self._changed:
            return len(self.check_ins)

    def until(
        self, what: Callable[[agent_pb2.DeviceStatus], bool], since: int | None = None, timeout_s: float = 120.0
    ) -> agent_pb2.DeviceStatus:
        """The first status that satisfies `what`, from the last check-in on, or from number `since` on.

        Each is looked at, also one that another follows at once: a device may be in a state for one check-in only.
        """
        found: list[agent_pb2.DeviceStatus] = []
        with self._changed:
            seen = max(len(self.check_ins) - 1, 0) if since is None else since

            def look() -> bool:
                nonlocal seen
                while not found and seen < len(self.check_ins):
                    status = self.check_ins[seen].status
                    seen += 1
                    found.extend([status] if what(status) else [])
                return bool(found)

            assert self._changed.wait_for(look, timeout_s), self.check_ins[-1:]
        return found[0]

    def ended(self, generation: int) -> agent_pb2.DeviceStatus:
        """The status with which the update to `generation` ended."""
        return self.until(
            lambda status: (
                status.generation == generation
                and status.outcome not in (agent_pb2.OUTCOME_UNSPECIFIED, agent_pb2.OUTCOME_IN_PROGRESS)
            )
        )

    @property
    def status(self) -> agent_pb2.DeviceStatus:
        return self.check_ins[-1].status

    def CheckIn(self, request: agent_pb2.CheckInRequest, context: Any) -> agent_pb2.CheckInResponse:
        if self.away:
            context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        if peer(context.auth_context()["x509_pem_cert"][0], FLEET).key_sha256 in self._revoked:
            self.refusals += 1
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED, f"the certificate of device {DEVICE} was revoked; enrol it"
            )
        with self._changed:
            self.check_ins.append(request)
            self.results += request.results
            if request.HasField("inventory"):
                self.inventory = request.inventory
            answered = {result.id for result in self.results}
            signed = self._director.sign(DEVICE, self._desired, self._version, datetime.now(timezone.utc))
            self._changed.notify_all()
            metadata = []
            for repository, files in (
                (agent_pb2.REPOSITORY_IMAGE, self._image.files),
                (agent_pb2.REPOSITORY_DIRECTOR, lambda held: self._director.files(signed, held)),
            ):
                held = {one.role: one.version for one in request.held if one.repository == repository}
                metadata += [
                    agent_pb2.MetadataFile(repository=repository, name=name, content=content)
                    for name, content in files(held)
                ]
            return agent_pb2.CheckInResponse(
                metadata=metadata,
                requests=[one for one in self.requests if one.id not in answered],
                next_check_in_s=1,
                generation=self._desired.generation,
                inventory_wanted=not self.inventory.os,
            )

    def Enrol(self, request: enrolment_pb2.EnrolRequest, context: Any) -> enrolment_pb2.EnrolResponse:
        key = key_digest(requested_key(request.csr_der))
        if key in self._revoked:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this key was revoked")
        if request.token:
            device, chain = self._enrolments.redeem(request.token, request.csr_der, datetime.now(timezone.utc))
        else:  # what the real controller asks besides, its own tests show
            if key != self._newest[0]:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "this key is not known here")
            device, chain = DEVICE, self.authority.issue_device(DEVICE, request.csr_der, datetime.now(timezone.utc))
            self.returns += 1
        self._newest = (key, chain)
        return enrolment_pb2.EnrolResponse(
            certificate_chain_pem=chain,
            ca_pem=self.authority.ca_pem,
            device=device,
            fleet=FLEET,
            image_root=self._image.first_root,
            director_root=self._director.first_root,
            controller_address=self.address,
        )

    def Renew(self, request: agent_pb2.RenewRequest, context: Any) -> agent_pb2.RenewResponse:
        key = key_digest(requested_key(request.csr_der))
        if key != self._newest[0]:
            self.last_issued = datetime.now(timezone.utc)
            self._newest = (key, self.authority.issue_device(DEVICE, request.csr_der, self.last_issued))
            self.renewals += 1
        return agent_pb2.RenewResponse(
            certificate_chain_pem=self._newest[1], enrolment_address=self._enrolments.address
        )

    def stop(self) -> None:
        super().stop()
        self._enrolment.stop(0).wait()

    def _empty_artifact(self) -> Path:
        folder = echo.artifact(self._folder / "artifacts" / "empty")
        (folder / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
        return folder


class _Tokens:
    """The enrolment store's seam, on a dictionary."""

    def __init__(self) -> None:
        self._rows: dict[str, EnrolmentRow] = {}

    def get(self, secret_sha256: str) -> EnrolmentRow | None:
        return self._rows.get(secret_sha256)

    def put(self, row: EnrolmentRow) -> None:
        self._rows[row.secret_sha256] = row
