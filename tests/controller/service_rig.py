"""A whole controller in the test's process, and devices that speak its protocol but hold no model."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgewright_contract import enrolment_token
from edgewright_contract.v1 import (
    agent_pb2,
    agent_pb2_grpc,
    enrolment_pb2,
    enrolment_pb2_grpc,
    operator_pb2,
    operator_pb2_grpc,
)
from edgewright_controller import run
from edgewright_controller.client import Access, read_access
from edgewright_controller.config import Address, BrokerMode, Settings
from edgewright_controller.peers import Peer
from tests.controller.pki_requests import new_key, request
from tests.model_files import gguf_of

FLEET = "plant-7"
ANYWHERE = Address("127.0.0.1", 0)

MANIFEST = """
[fleet]
name = "plant-7"
[models.tiny]
source = "unused"
[profiles.jetson]
runtime = "gguf"
quantization = "prebuilt"
prebuilt = "{prebuilt}"
accelerator = "cpu"
memory = "8GB"
[groups.all]
model = "tiny"
profile = "jetson"
devices = [{devices}]
{tables}
[rollout]
first_wave = {first_wave}
device_deadline = "{deadline}"
"""


def manifest(
    folder: Path, devices: list[str], *, weights: bytes = b"weights", first_wave: str = '"100%"', deadline: str = "30s"
) -> str:
    """A manifest that ships one prebuilt file to the devices; the file is written into `folder`."""
    name = f"model-{len(weights)}.gguf"
    (folder / name).write_bytes(gguf_of([], [], weights))
    return MANIFEST.format(
        prebuilt=name,
        devices=", ".join(f'"{device}"' for device in devices),
        tables="\n".join(f"[devices.{device}]" for device in devices),
        first_wave=first_wave,
        deadline=deadline,
    )


def settings(state: Path, broker: BrokerMode = BrokerMode.OFF, grpc_at: Address = ANYWHERE) -> Settings:
    """Every port free, every toolchain this interpreter's."""
    return Settings(state=state, fleet=FLEET, grpc=grpc_at, enrolment=ANYWHERE, mqtt=ANYWHERE, broker=broker)


@asynccontextmanager
async def controller(
    state: Path, broker: BrokerMode = BrokerMode.OFF, grpc_at: Address = ANYWHERE, **also: Any
) -> AsyncIterator[Controller]:
    """A running controller on `state`, and an operator's connection to it. `also` are further settings."""
    async with AsyncExitStack() as stack:
        running = await run.start(dataclasses.replace(settings(state, broker, grpc_at), **also), stack)
        access = read_access(running.client_toml)
        credentials = grpc.ssl_channel_credentials(
            access.ca.read_bytes(), access.key.read_bytes(), access.certificate.read_bytes()
        )
        channel = await stack.enter_async_context(grpc.aio.secure_channel(access.address, credentials))
        yield Controller(running, access, operator_pb2_grpc.OperatorStub(channel))


@dataclass(frozen=True)
class Controller:
    """What a test needs of a running controller."""

    running: run.Running
    access: Access
    operator: Any

    async def apply(self, text: str, folder: Path, **flags: Any) -> list[operator_pb2.ApplyEvent]:
        """Apply a manifest to its end; `flags` are fields of the request."""
        asked = operator_pb2.ApplyRequest(manifest=text, file="fleet.toml", folder=str(folder), **flags)
        return [event async for event in self.operator.Apply(asked, timeout=60)]

    async def rollback(
        self, release: str = "", devices: tuple[str, ...] = (), **fields: Any
    ) -> list[operator_pb2.ApplyEvent]:
        """Roll back to its end."""
        asked = operator_pb2.RollbackRequest(release=release, devices=devices, **fields)
        return [event async for event in self.operator.Rollback(asked, timeout=60)]

    async def status(self) -> dict[str, operator_pb2.DeviceView]:
        """The devices by id."""
        answer = await self.operator.Status(operator_pb2.StatusRequest(), timeout=10)
        return {view.device: view for view in answer.devices}

    async def enrol(self, device: str) -> Device:
        """A device that has enrolled with a token of the operator's."""
        made = await self.operator.CreateEnrolment(operator_pb2.CreateEnrolmentRequest(device=device), timeout=10)
        return await Device.enrol(made.token)


class NobodyDenied:
    """For a gate alone: nothing was ever revoked."""

    def reason(self, peer: Peer) -> str:
        return ""

    async def until_denied(self, peer: Peer) -> str:
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")


def result(events: list[operator_pb2.ApplyEvent]) -> operator_pb2.ApplyResult:
    """The last event's result."""
    assert events[-1].HasField("result")
    return events[-1].result


def words(error: grpc.aio.AioRpcError) -> str:
    """What a refusal says."""
    return error.details() or ""


Behaviour = Callable[[str], agent_pb2.ErrorCode]


def takes_everything(_release: str) -> agent_pb2.ErrorCode:
    """A device on which every release works."""
    return agent_pb2.ERROR_CODE_UNSPECIFIED


# What a device does not hold against a release: it tries again by itself.
_CIRCUMSTANCES = (agent_pb2.ERROR_CODE_DISK_FULL, agent_pb2.ERROR_CODE_MEMORY_SHORT)


@dataclass
class Device:
    """A device without a model: it checks in, fetches what it is offered, and says how it went."""

    id: str
    welcome: enrolment_pb2.EnrolResponse
    key_pem: bytes
    channel: Any
    status: agent_pb2.DeviceStatus = field(default_factory=lambda: agent_pb2.DeviceStatus(sequence=1))
    answers: list[agent_pb2.CheckInResponse] = field(default_factory=list)

    @classmethod
    async def enrol(cls, text: str) -> Device:
        """Redeem a token as a device would."""
        token = enrolment_token.parse(text)
        key = new_key()
        ca = grpc.ssl_channel_credentials(_pem(token.ca_der))
        async with grpc.aio.secure_channel(token.address, ca) as channel:
            asked = enrolment_pb2.EnrolRequest(token=token.secret, csr_der=request(key))
            welcome = await enrolment_pb2_grpc.EnrolmentStub(channel).Enrol(asked, timeout=10)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        mutual = grpc.ssl_channel_credentials(welcome.ca_pem, private, welcome.certificate_chain_pem)
        return cls(token.device, welcome, private, grpc.aio.secure_channel(welcome.controller_address, mutual))

    @property
    def stub(self) -> Any:
        return agent_pb2_grpc.AgentStub(self.channel)

    async def check_in(self, **parts: Any) -> agent_pb2.CheckInResponse:
        """Say the status, hear the answer."""
        answer: agent_pb2.CheckInResponse = await self.stub.CheckIn(
            agent_pb2.CheckInRequest(status=self.status, **parts), timeout=10
        )
        self.answers.append(answer)
        return answer

    def says(self, **changes: Any) -> None:
        """Change the status; the sequence rises."""
        self.status.sequence += 1
        self.status.MergeFrom(agent_pb2.DeviceStatus(**changes))

    async def update(self, behaviour: Behaviour = takes_everything) -> bool:
        """One check-in; when a new generation is there, go through an update. Whether there was one."""
        answer = await self.check_in()
        if answer.generation <= self.status.generation:
            return False
        release = self.offered(answer)
        self.says(generation=answer.generation, step=agent_pb2.STEP_DOWNLOADING, outcome=agent_pb2.OUTCOME_IN_PROGRESS)
        self.status.release, self.status.reason = release, ""
        self.status.error = agent_pb2.ERROR_CODE_UNSPECIFIED
        await self.check_in()
        error = behaviour(release)
        outcome = agent_pb2.OUTCOME_FAILED if error else agent_pb2.OUTCOME_SUCCEEDED
        self.says(step=agent_pb2.STEP_IDLE, outcome=outcome, error=error, reason="it did not answer" if error else "")
        if error and error not in _CIRCUMSTANCES:
            self.status.held_releases.append(release)
        if not error:
            self.status.previous_release, self.status.active_release = self.status.active_release, release
        await self.check_in()
        return True

    def offered(self, answer: agent_pb2.CheckInResponse) -> str:
        """The release digest in the director's targets, empty for nothing; unchecked, this device trusts."""
        import json

        from edgewright_contract.release import from_json

        for file in answer.metadata:
            if file.repository == agent_pb2.REPOSITORY_DIRECTOR and file.name.endswith("targets.json"):
                targets = json.load(io.BytesIO(file.content))["signed"]["targets"]
                return next((from_json(one["custom"]["release"]).digest for one in targets.values()), "")
        return ""

    @asynccontextmanager
    async def living(self, behaviour: Behaviour = takes_everything) -> AsyncIterator[None]:
        """Check in every tenth of a second, and do as told; a controller that is away is waited for."""

        async def live() -> None:
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await self.update(behaviour)
                await asyncio.sleep(0.1)  # its check-in interval

        task = asyncio.create_task(live())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await self.channel.close()


def _pem(der: bytes) -> bytes:
    from cryptography import x509

    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
