"""The check-in and the fetching: what a device gets, what it need not get again, and what it may not have."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgewright_contract import block_index, bundle, digest, enrolment_token
from edgewright_contract.v1 import agent_pb2, enrolment_pb2, enrolment_pb2_grpc, operator_pb2
from edgewright_controller.pki import Authority
from tests import model_files
from tests.controller.pki_requests import new_key, request
from tests.controller.service_rig import Controller, Device, controller, manifest, result, words
from tests.model_files import gguf_of

DIRECTOR, IMAGE = agent_pb2.REPOSITORY_DIRECTOR, agent_pb2.REPOSITORY_IMAGE


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


@pytest.fixture
async def device(fleet: Controller) -> AsyncIterator[Device]:
    made = await fleet.enrol("jetson-01")
    yield made
    await made.channel.close()


def held(answer: agent_pb2.CheckInResponse) -> list[agent_pb2.HeldMetadata]:
    """What a device holds that took everything in the answer."""
    versions = []
    for file in answer.metadata:
        signed = json.loads(file.content)["signed"]
        role = file.name.removesuffix(".json").rpartition(".")[2]
        versions.append(agent_pb2.HeldMetadata(repository=file.repository, role=role, version=signed["version"]))
    roots = [agent_pb2.HeldMetadata(repository=one, role="root", version=1) for one in (IMAGE, DIRECTOR)]
    return versions + roots


async def refused(call: object) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call  # type: ignore[misc]  # a call of grpc, which has no types
    return refusal.value


async def test_a_device_gets_both_repositories_and_nothing_twice(device: Device) -> None:
    first = await device.check_in()
    names = {(file.repository, file.name) for file in first.metadata}
    assert {(IMAGE, "timestamp.json"), (DIRECTOR, "timestamp.json"), (DIRECTOR, "1.targets.json")} <= names
    assert (IMAGE, "1.builder.json") in names
    second = await device.check_in(held=held(first))
    assert list(second.metadata) == []
    assert second.next_check_in_s == 60


async def test_a_new_generation_brings_new_director_metadata_with_a_higher_version(
    fleet: Controller, device: Device, tmp_path: Path
) -> None:
    before = held(await device.check_in())
    call = fleet.operator.Apply(
        operator_pb2.ApplyRequest(manifest=manifest(tmp_path, ["jetson-01"]), file="fleet.toml", folder=str(tmp_path))
    )
    async for event in call:
        if event.HasField("rollout"):
            break
    answer = await device.check_in(held=before)
    assert answer.generation == 1
    assert "2.targets.json" in {file.name for file in answer.metadata if file.repository == DIRECTOR}
    assert device.offered(answer) == (await fleet.status())["jetson-01"].desired_release
    assert answer.next_check_in_s == 5


async def test_what_is_offered_can_be_fetched_and_is_what_was_signed(
    fleet: Controller, device: Device, tmp_path: Path
) -> None:
    weights = bytes(range(256)) * 20_000
    text = manifest(tmp_path, ["jetson-01"], weights=weights)
    events = await fleet.apply(text, tmp_path, build_only=True)
    artifact = next(event.build.artifact for event in events if event.build.artifact)

    async def fetched(sha256: str) -> bytes:
        asked = agent_pb2.FetchObjectRequest(sha256=sha256)
        return b"".join([part.data async for part in device.stub.FetchObject(asked, timeout=10)])

    listed = bundle.parse(await fetched(artifact))
    assert listed.digest == artifact
    documents = {path.name for path in (tmp_path / "state" / "store" / "objects").iterdir()}
    (index_digest,) = documents - {artifact}
    index = block_index.parse(await fetched(index_digest), listed)
    asked = agent_pb2.FetchBlocksRequest(
        bundle=artifact, block_index=index_digest, ranges=[agent_pb2.BlockRange(first=0, count=len(index.blocks))]
    )
    content = b"".join([part.data async for part in device.stub.FetchBlocks(asked, timeout=30)])
    assert content == gguf_of([], [], weights)
    assert hashlib.sha256(content).hexdigest() == listed.files[0].sha256

    asked.ranges[0].count += 1
    error = await refused(anext(aiter(device.stub.FetchBlocks(asked, timeout=10))))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    asked.bundle = "0" * 64
    error = await refused(anext(aiter(device.stub.FetchBlocks(asked, timeout=10))))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_the_inventory_is_asked_for_until_it_is_known(fleet: Controller, device: Device) -> None:
    digest = "5" * 64
    assert (await device.check_in(inventory_digest=digest)).inventory_wanted
    inventory = agent_pb2.Inventory(os="Linux", cores=6, memory_bytes=8 << 30, runtimes=["gguf"])
    assert not (await device.check_in(inventory=inventory, inventory_digest=digest)).inventory_wanted
    assert not (await device.check_in(inventory_digest=digest)).inventory_wanted
    assert (await device.check_in(inventory_digest="6" * 64)).inventory_wanted
    assert (await fleet.status())["jetson-01"].inventory == inventory


async def test_old_news_changes_nothing(fleet: Controller, device: Device) -> None:
    device.status.CopyFrom(agent_pb2.DeviceStatus(sequence=5, reason="newer"))
    await device.check_in()
    device.status.CopyFrom(agent_pb2.DeviceStatus(sequence=4, reason="older"))
    await device.check_in()
    assert (await fleet.status())["jetson-01"].status.reason == "newer"


async def test_a_request_that_is_too_large_is_refused_and_not_stored(fleet: Controller, device: Device) -> None:
    await device.check_in()
    device.says(reason="x" * 2001)
    error = await refused(device.check_in())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "status.reason: 2001; at most 2000" in words(error)
    assert (await fleet.status())["jetson-01"].status.reason == ""


async def test_a_good_certificate_of_a_device_that_never_enrolled_is_refused(
    fleet: Controller, device: Device, tmp_path: Path
) -> None:
    await device.check_in()
    key = new_key()
    authority = Authority.open(tmp_path / "state" / "pki", "plant-7", datetime.now(timezone.utc))
    chain = authority.issue_device("mac-01", request(key), datetime.now(timezone.utc))
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    credentials = grpc.ssl_channel_credentials(authority.ca_pem, private, chain)
    async with grpc.aio.secure_channel(str(fleet.running.grpc), credentials) as channel:
        error = await refused(Device("mac-01", device.welcome, private, channel).check_in())
    assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "there is no device 'mac-01'" in words(error)


async def test_a_token_is_good_once_and_for_one_key(fleet: Controller) -> None:
    made = await fleet.operator.CreateEnrolment(
        operator_pb2.CreateEnrolmentRequest(device="mac-01", valid_s=60), timeout=10
    )
    first = await Device.enrol(made.token)
    await first.check_in()
    token = enrolment_token.parse(made.token)
    credentials = grpc.ssl_channel_credentials(first.welcome.ca_pem)
    async with grpc.aio.secure_channel(token.address, credentials) as channel:
        stub = enrolment_pb2_grpc.EnrolmentStub(channel)
        for secret in (token.secret, "0" * 43):
            asked = enrolment_pb2.EnrolRequest(token=secret, csr_der=request(new_key()))
            error = await refused(stub.Enrol(asked, timeout=10))
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    bad = operator_pb2.CreateEnrolmentRequest(device="Mac 01")
    error = await refused(fleet.operator.CreateEnrolment(bad, timeout=10))
    assert (error.code(), "'Mac 01' is not a device id" in words(error)) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        True,
    )


async def test_what_was_released_again_is_asked_of_a_device_that_holds_it(
    fleet: Controller, device: Device, tmp_path: Path
) -> None:
    text = manifest(tmp_path, ["jetson-01"])
    async with device.living(lambda _: agent_pb2.ERROR_CODE_ENGINE_FAILED):
        assert not result(await fleet.apply(text, tmp_path)).succeeded
        device.says(held_releases=[(await fleet.status())["jetson-01"].desired_release])
        await device.check_in()
        assert "apply --again" in words(await refused(_drained(fleet, text, tmp_path)))
        await fleet.apply(text, tmp_path, again=True)
        asked = [request for answer in device.answers for request in answer.requests]
        assert {one.kind for one in asked} == {agent_pb2.DeviceRequest.KIND_RELEASE_HOLD}
        results = [agent_pb2.RequestResult(id=asked[0].id, succeeded=True)]
        assert list((await device.check_in(results=results)).requests) == []


async def _drained(fleet: Controller, text: str, folder: Path) -> None:
    await fleet.apply(text, folder)


async def test_the_release_names_the_chat_template_of_its_artifact(
    fleet: Controller, device: Device, tmp_path: Path
) -> None:
    text = manifest(tmp_path, ["jetson-01"])
    next(tmp_path.glob("model-*.gguf")).write_bytes(model_files.gguf())
    call = fleet.operator.Apply(operator_pb2.ApplyRequest(manifest=text, file="fleet.toml", folder=str(tmp_path)))
    async for event in call:
        if event.HasField("rollout"):
            break
    answer = await device.check_in()
    named = next(file for file in answer.metadata if file.repository == DIRECTOR and file.name.endswith("targets.json"))
    (target,) = json.loads(named.content)["signed"]["targets"].values()
    options = target["custom"]["release"]["options"]
    assert options["chat_template"] == digest.of_bytes(model_files.TEMPLATE.encode())
