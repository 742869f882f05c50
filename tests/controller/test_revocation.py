"""A revoked certificate: what its holder can still do, by gRPC and by MQTT. A real controller, a real broker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from sqlalchemy import func, select

from edgewright_agent.outbox import Outbox
from edgewright_contract import envelope, names, targets
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2, operator_pb2, operator_pb2_grpc, telemetry_pb2
from edgewright_controller import operator_login
from edgewright_controller.client import read_access
from edgewright_controller.config import BrokerMode
from edgewright_controller.ledger import Ledger, audit, certificates, tables
from edgewright_controller.ledger.certificates import DEVICE, CertificateRow
from edgewright_controller.peers import Peer
from edgewright_controller.pki import Authority
from edgewright_controller.pki_files import crl_ages
from edgewright_controller.service.revocations import NothingToRevoke, Revocations
from edgewright_controller.service.shutting_out import write_list
from tests.agent.real_mosquitto import Listening
from tests.agent.throwaway_ca import Leaf
from tests.controller.broker_room import BrokerRoom, said, topic_of, until
from tests.controller.ledger_rows import opened
from tests.controller.pki_requests import new_key
from tests.controller.service_rig import Controller, Device, controller, manifest, result, words
from tests.controller.test_reports import QUICK
from tests.controller.test_reports import Identity as OutboxIdentity

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
JETSON = CertificateRow("a1", DEVICE, "jetson-01", "k" * 64, 0, int((NOW + timedelta(days=30)).timestamp() * 1000))


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state", BrokerMode.MANAGED) as running:
        yield running


async def revoke(
    fleet: Controller,
    holder: str,
    kind: operator_pb2.RevokeRequest.Kind = operator_pb2.RevokeRequest.KIND_DEVICE,
) -> Any:
    asked = operator_pb2.RevokeRequest(kind=kind, holder=holder, reason="stolen from the yard")
    return await fleet.operator.Revoke(asked, timeout=10)


async def stored(fleet: Controller, count: int) -> None:
    """Until the controller has stored just so many reports."""
    deadline = asyncio.get_running_loop().time() + 60
    while (found := (await fleet.operator.Status(operator_pb2.StatusRequest())).telemetry_stored) != count:
        assert found < count
        assert asyncio.get_running_loop().time() < deadline, f"{found} reports stored, not {count}"
        await asyncio.sleep(0.05)  # between two looks


async def denied(call: Any) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await call
    assert refusal.value.code() is grpc.StatusCode.PERMISSION_DENIED
    return words(refusal.value)


def leaf(device: Device, folder: Path) -> Leaf:
    """The device's key and certificate as files."""
    key, chain, ca = (folder / f"{device.id}.{kind}" for kind in ("key", "crt", "ca"))
    key.write_bytes(device.key_pem)
    chain.write_bytes(device.welcome.certificate_chain_pem)
    ca.write_bytes(device.welcome.ca_pem)
    return Leaf(key, chain, ca)


@pytest.mark.attack("stolen device certificate after its revocation, over gRPC")
async def test_a_revoked_device_is_refused_at_its_next_call_and_told_what_to_do(fleet: Controller) -> None:
    stolen, honest = await fleet.enrol("jetson-01"), await fleet.enrol("mac-01")
    await stolen.check_in()
    assert (await revoke(fleet, "jetson-01")).certificates == 1
    said = await denied(stolen.check_in())
    assert said == (
        "the certificate of device jetson-01 was revoked (stolen from the yard); enrol it again, with the token that"
        " `edgewright enroll create` prints"
    )
    await honest.check_in()
    views = await fleet.status()
    assert (views["jetson-01"].revoked, views["mac-01"].revoked) == (True, False)
    again = await fleet.enrol("jetson-01")
    await again.check_in()
    assert not (await fleet.status())["jetson-01"].revoked
    await denied(stolen.check_in())


@pytest.mark.attack("stolen operator certificate after its revocation, on a stream that stands")
async def test_a_stream_ends_when_its_callers_certificate_is_revoked(fleet: Controller, tmp_path: Path) -> None:
    eve = await administrator(fleet, tmp_path, "eve")
    device = await fleet.enrol("jetson-01")
    tail = eve.Tail(operator_pb2.TailRequest())
    speaking = Listening(fleet.running.mqtt, leaf(device, tmp_path), "jetson-01", (), None)
    try:
        await until(lambda: bool(speaking.connections), "the device to connect")
        told = said("jetson-01", 1)
        speaking.say(topic_of(told), envelope.encode(told))
        assert (await asyncio.wait_for(anext(aiter(tail)), 30)).envelope == told
        await revoke(fleet, "eve", operator_pb2.RevokeRequest.KIND_OPERATOR)
        assert "operator eve was revoked" in await denied(asyncio.wait_for(anext(aiter(tail)), 30))
    finally:
        await asyncio.to_thread(speaking.link.stop)


@pytest.mark.attack("stolen device certificate after its revocation, on an open MQTT session and a new one")
async def test_a_revoked_device_is_cut_off_from_the_broker_and_stays_out(fleet: Controller, tmp_path: Path) -> None:
    stolen, honest = await fleet.enrol("jetson-01"), await fleet.enrol("mac-01")
    clients = {
        device.id: Listening(fleet.running.mqtt, leaf(device, tmp_path), device.id, (names.hint_topic(device.id),))
        for device in (stolen, honest)
    }
    try:
        for device, client in clients.items():
            await until(lambda client=client: bool(client.connections), f"{device} to connect")  # type: ignore[misc]
            told = said(device, 1)
            client.say(topic_of(told), envelope.encode(told))
        await stored(fleet, 2)
        await revoke(fleet, "jetson-01")
        thief, neighbour = clients["jetson-01"], clients["mac-01"]
        await until(lambda: bool(thief.losses), "the stolen session to end")
        await until(lambda: len(neighbour.connections) > 1, "the honest device to come back")
        for device, client in clients.items():
            told = said(device, 2)
            client.say(topic_of(told), envelope.encode(told))
        await stored(fleet, 3)
        assert len(thief.connections) == 1, "the stolen certificate opened another session"
    finally:
        for client in clients.values():
            await asyncio.to_thread(client.link.stop)


@pytest.mark.attack("replaced predecessor on the broker, by a session that stands and a new one")
async def test_a_predecessor_is_out_on_the_broker_when_another_machine_takes_its_place(
    fleet: Controller, tmp_path: Path
) -> None:
    (tmp_path / "old").mkdir()
    pid = tmp_path / "state" / "broker" / "pid"
    first = pid.read_text()
    before = await fleet.enrol("jetson-01")
    old = Listening(fleet.running.mqtt, leaf(before, tmp_path / "old"), "jetson-01", ())
    try:
        await until(lambda: bool(old.connections), "the predecessor to connect")
        successor = await fleet.enrol("jetson-01")
        new = Listening(fleet.running.mqtt, leaf(successor, tmp_path), "jetson-01", ())
        try:
            # At first each takes the id from the other; the list ends that.
            await until(lambda: pid.read_text() != first, "the broker to be started again")
            await until(lambda: new.link.up, "the successor to be connected")
            count = len(old.connections)
            told = said("jetson-01", 1)
            assert new.say(topic_of(told), envelope.encode(told))
            await stored(fleet, 1)
            attempts = old.link._connection
            await until(lambda: old.link._connection > attempts + 2, "some more attempts of the predecessor")
            assert (len(old.connections), old.link.up) == (count, False)
        finally:
            await asyncio.to_thread(new.link.stop)
    finally:
        await asyncio.to_thread(old.link.stop)


async def test_a_restart_for_a_revocation_loses_nothing_that_honest_devices_say(
    fleet: Controller, tmp_path: Path
) -> None:
    """A real outbox, which speaks on while the broker is started again."""
    stolen, honest = await fleet.enrol("jetson-01"), await fleet.enrol("mac-01")
    files = leaf(honest, tmp_path)
    identity = OutboxIdentity("mac-01", files.key, files.certificate, files.ca, fleet.running.mqtt)
    outbox = Outbox(tmp_path, identity, lambda _: None, settings=QUICK)
    outbox.start()
    thief = Listening(fleet.running.mqtt, leaf(stolen, tmp_path), "jetson-01", ())
    try:
        await until(lambda: outbox.connected and bool(thief.connections), "both to connect")
        spoken = 0
        while spoken < 200 or not thief.losses:
            outbox.event(telemetry_pb2.Event.KIND_LINK_LOST, str(spoken))
            spoken += 1
            if spoken == 100:
                await revoke(fleet, "jetson-01")
            assert spoken < 12_000, "the stolen session goes on for a minute"
            await asyncio.sleep(0.005)  # the pace of what it says

        async def depth() -> int:
            answer = await honest.check_in(spool_epoch=outbox.epoch)
            outbox.stored(answer.stored_sequence, outbox.epoch)
            return outbox.depth()

        deadline = asyncio.get_running_loop().time() + 60
        while await depth():
            assert asyncio.get_running_loop().time() < deadline, "the spool is not taken"
            await asyncio.sleep(0.05)
        ledger = Ledger.open(tmp_path / "state" / "ledger.sqlite")
        events = select(func.count()).where(tables.telemetry.c.device == "mac-01", tables.telemetry.c.kind == "event")
        assert await ledger.read(lambda c: c.scalar(events)) == spoken
        ledger.close()
    finally:
        await asyncio.to_thread(thief.link.stop)
        await asyncio.to_thread(outbox.stop)


async def test_a_controller_whose_list_ended_while_it_was_off_lets_its_fleet_in(tmp_path: Path) -> None:
    async with controller(tmp_path / "state", BrokerMode.MANAGED) as first:
        device = await first.enrol("mac-01")
    authority = Authority.open(tmp_path / "state" / "pki", "plant-7", datetime.now(timezone.utc))
    authority.write_crl({}, datetime.now(timezone.utc) - timedelta(days=8))
    async with controller(tmp_path / "state", BrokerMode.MANAGED) as second:
        client = Listening(second.running.mqtt, leaf(device, tmp_path), "mac-01", ())
        try:
            await until(lambda: bool(client.connections), "the device to connect")
        finally:
            await asyncio.to_thread(client.link.stop)


@pytest.mark.attack("stolen device certificate after its revocation, on a download that runs")
async def test_a_download_that_runs_ends_when_its_device_is_revoked(fleet: Controller, tmp_path: Path) -> None:
    weights = bytes(48 << 20)
    device = await fleet.enrol("jetson-01")
    async with device.living():
        assert result(await fleet.apply(manifest(tmp_path, ["jetson-01"], weights=weights), tmp_path)).succeeded
    device = await fleet.enrol("jetson-01")
    target = await image_target(device)
    asked = agent_pb2.FetchBlocksRequest(
        bundle=target.bundle,
        block_index=target.block_index,
        ranges=[agent_pb2.BlockRange(first=0, count=48 << 4)],  # opaque as they are, they are cut every 64 KiB
        accepted=[agent_pb2.ENCODING_RAW],
    )
    assert sum([len(part.data) async for part in device.stub.FetchBlocks(asked, timeout=60)]) >= len(weights) - (
        1 << 20
    )
    download = device.stub.FetchBlocks(asked, timeout=60)
    got = [len((await anext(aiter(download))).data)]

    async def go_on() -> None:
        async for part in download:
            got.append(len(part.data))

    await revoke(fleet, "jetson-01")
    assert "was revoked" in await denied(asyncio.wait_for(go_on(), 60))
    assert sum(got) < len(weights) // 2, "what was on its way arrived, and no more"


async def offered(fleet: Controller, device: str) -> None:
    """Until a rollout offers something to this device."""
    deadline = asyncio.get_running_loop().time() + 60
    while (await fleet.status())[device].rollout_state != "offered":
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.05)  # between two looks


async def image_target(device: Device) -> ImageTarget:
    """What the image repository says of the one artifact, unchecked."""
    for file in (await device.check_in()).metadata:
        if file.repository == agent_pb2.REPOSITORY_IMAGE and b'"block_index"' in file.content:
            ((path, said),) = json.loads(file.content)["signed"]["targets"].items()
            return targets.parse(path, said["length"], said["hashes"], said["custom"])
    raise AssertionError("no image target in the answer")


async def test_nobody_waits_for_a_revoked_device_and_a_plan_leaves_it_out(fleet: Controller, tmp_path: Path) -> None:
    _, honest = await fleet.enrol("jetson-01"), await fleet.enrol("mac-01")
    text = manifest(tmp_path, ["jetson-01", "mac-01"], deadline="900s").replace(
        "[rollout]", "[rollout]\nmax_failures = 1"
    )
    async with honest.living():
        applying = asyncio.create_task(fleet.apply(text, tmp_path))
        await offered(fleet, "jetson-01")
        await revoke(fleet, "jetson-01")
        events = await asyncio.wait_for(applying, 60)
        ended = result(events)
        assert (ended.succeeded, ended.devices_succeeded, ended.devices_failed) == (False, 1, 1)
        told = [event.device for event in events if event.device.device == "jetson-01"][-1]
        assert (told.state, told.status.reason) == ("timed_out", "its certificates were revoked")
        planned = await fleet.operator.Plan(operator_pb2.PlanRequest(manifest=text, file="f", folder=str(tmp_path)))
        (left_out,) = [change for change in planned.changes if change.device == "jetson-01"]
        assert left_out.kind == operator_pb2.PlannedChange.KIND_UNENROLLED
        assert left_out.note == "revoked; `edgewright enroll create --device jetson-01` makes its token"
        assert result(await fleet.apply(text, tmp_path)).succeeded
        back = await fleet.enrol("jetson-01")
        async with back.living():
            assert result(await fleet.apply(text, tmp_path)).succeeded
            assert back.status.active_release == honest.status.active_release


@pytest.mark.attack("unused token of a revoked administrator")
async def test_what_a_revoked_administrator_gave_out_is_worth_nothing(fleet: Controller, tmp_path: Path) -> None:
    eve = await administrator(fleet, tmp_path, "eve")
    honest, kept, used = [
        await one.CreateEnrolment(operator_pb2.CreateEnrolmentRequest(device=device), timeout=10)
        for one, device in ((eve, "npu-01"), (eve, "jetson-01"), (fleet.operator, "mac-01"))
    ]
    await Device.enrol(honest.token)
    key = new_key().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    await eve.AuthoriseKey(operator_pb2.AuthoriseKeyRequest(device="jetson-02", public_key_pem=key), timeout=10)
    mallory = await eve.AddOperator(operator_pb2.AddOperatorRequest(name="mallory", role="admin"), timeout=10)
    await revoke(fleet, "eve", operator_pb2.RevokeRequest.KIND_OPERATOR)
    with pytest.raises(operator_login.LoginRefused, match="not known here"):
        await asyncio.to_thread(operator_login.login, mallory.token, tmp_path / "mallory")
    assert "operator eve was revoked" in await denied(
        eve.CreateEnrolment(operator_pb2.CreateEnrolmentRequest(device="x"), timeout=10)
    )
    with pytest.raises(grpc.aio.AioRpcError, match="not known here"):
        await Device.enrol(kept.token)
    await Device.enrol(used.token)
    ledger = Ledger.open(tmp_path / "state" / "ledger.sqlite")
    entries = await ledger.read(lambda c: [one for one in audit.entries(c) if one.action == "enrolment.withdraw"])
    ledger.close()
    assert [(one.subject, one.detail) for one in entries] == [("eve", "unused: 2 tokens, 1 authorised keys")]


async def administrator(fleet: Controller, folder: Path, name: str) -> Any:
    """Another administrator's connection."""
    made = await fleet.operator.AddOperator(operator_pb2.AddOperatorRequest(name=name, role="admin"), timeout=10)
    access = read_access((await asyncio.to_thread(operator_login.login, made.token, folder / name)).client_toml)
    pems = (path.read_bytes() for path in (access.ca, access.key, access.certificate))
    return operator_pb2_grpc.OperatorStub(grpc.aio.secure_channel(access.address, grpc.ssl_channel_credentials(*pems)))


async def test_a_broker_with_a_revocation_list_lets_everybody_in_who_is_not_on_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The list is of the intermediate alone: nobody needs one of the root, whose key is not online."""
    room = BrokerRoom(tmp_path / "room")
    good, bad = room.device("mac-01"), room.device("jetson-01")
    serial = x509.load_pem_x509_certificate(bad.certificate.read_bytes()).serial_number
    room.authority.write_crl({serial: NOW}, datetime.now(timezone.utc))
    room.files = replace(room.files, crl=room.authority.crl_path)
    room.broker = room.another_broker()
    await room.broker.start()
    try:
        await room.connected(room.client(good, "mac-01"))
        thief = room.client(bad, "jetson-01")
        await room.connected(room.client(room.service(), names.CONTROLLER_CN))
        await until(lambda: thief.link._connection > 4, "some more attempts")
        assert not thief.connections
        told = [record.getMessage() for record in caplog.records if "jetson-01" in record.getMessage()]
        assert len(told) == 1, "once, and not at each attempt"
        assert "it does not take the certificate of jetson-01" in told[0]
    finally:
        await room.close()


def test_the_list_is_written_anew_each_day_and_when_it_is_lost_or_damaged(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path, "plant-7", NOW)
    assert crl_ages(authority.crl_path, NOW)
    authority.write_crl({7: NOW}, NOW)
    assert not crl_ages(authority.crl_path, NOW + timedelta(hours=23))
    assert crl_ages(authority.crl_path, NOW + timedelta(hours=25))
    held = x509.load_pem_x509_crl(authority.crl_path.read_bytes())
    assert [entry.serial_number for entry in held] == [7]
    assert held.next_update_utc == NOW + timedelta(days=7)
    authority.crl_path.write_bytes(b"rubbish")
    assert crl_ages(authority.crl_path, NOW)


async def test_whom_a_revocation_means(tmp_path: Path) -> None:
    def peer(serial: str, begins: datetime, holder: str = "jetson-01") -> Peer:
        return Peer("device", holder, "", serial, NOW + timedelta(days=30), "k" * 64, begins)

    hour = timedelta(hours=1)
    now = [NOW]
    with opened(tmp_path) as ledger:
        await ledger.write(lambda c: certificates.put(c, JETSON))
        revocations = await Revocations.open(ledger, lambda: now[0])
        assert revocations.reason(peer("a1", NOW - hour)) == ""
        assert revocations.reason(peer("unknown", NOW - hour)) == "", "as after a restore from a backup"
        assert await revocations.revoke(DEVICE, "jetson-01", by="operator admin", why="") == 1
        assert "was revoked; enrol it again" in revocations.reason(peer("a1", NOW - hour))
        assert "was revoked" in revocations.reason(peer("unknown", NOW - hour))
        assert revocations.reason(peer("b1", NOW - hour, "mac-01")) == ""
        assert revocations.shut_devices() == {"jetson-01"}
        with pytest.raises(NothingToRevoke, match="device jetson-01 has no certificate that could be revoked"):
            await revocations.revoke(DEVICE, "jetson-01", by="operator admin", why="")
        await ledger.write(lambda c: certificates.put(c, replace(JETSON, serial="a2")))
        await revocations.refresh()
        assert revocations.reason(peer("a2", NOW + hour)) == ""
        assert revocations.shut_devices() == set()
        (entry,) = await ledger.read(lambda c: list(audit.entries(c)))
        assert (entry.actor, entry.action, entry.subject) == ("operator admin", "device.revoke", "jetson-01")
        now[0] = NOW + timedelta(days=31)
        await revocations.refresh()
        assert not revocations.current.revoked, "what has ended by itself needs no denial"


@pytest.mark.attack("a certificate that ends while its stream stands")
async def test_a_stream_ends_with_its_callers_certificate(tmp_path: Path) -> None:
    now = [NOW]
    with opened(tmp_path) as ledger:
        revocations = await Revocations.open(ledger, lambda: now[0])
        caller = Peer("device", "jetson-01", "", "a1", NOW + timedelta(milliseconds=200), "k" * 64, NOW)
        watching = asyncio.ensure_future(revocations.until_denied(caller))
        assert not (await asyncio.wait({watching}, timeout=0.05))[0]
        now[0] = NOW + timedelta(seconds=1)
        assert "ended while the call ran" in await asyncio.wait_for(watching, 30)


async def test_an_unchanged_fleet_starts_with_the_denials_that_it_had(tmp_path: Path) -> None:
    async with controller(tmp_path / "state") as first:
        stolen = await first.enrol("jetson-01")
        await revoke(first, "jetson-01")
    async with controller(tmp_path / "state") as second:
        mutual = grpc.ssl_channel_credentials(
            stolen.welcome.ca_pem, stolen.key_pem, stolen.welcome.certificate_chain_pem
        )
        stolen.channel = grpc.aio.secure_channel(str(second.running.grpc), mutual)
        assert "was revoked" in await denied(stolen.check_in())
        authority = Authority.open(tmp_path / "state" / "pki", "plant-7", datetime.now(timezone.utc))
        assert len(list(x509.load_pem_x509_crl(authority.crl_path.read_bytes()))) == 1


async def test_who_may_not_revoke_and_what_cannot_be_revoked(fleet: Controller) -> None:
    device = await fleet.enrol("jetson-01")
    asked = operator_pb2.RevokeRequest(kind=operator_pb2.RevokeRequest.KIND_DEVICE, holder="jetson-01")
    by_device = device.channel.unary_unary(
        "/edgewright_contract.v1.Operator/Revoke", request_serializer=operator_pb2.RevokeRequest.SerializeToString
    )
    assert "may not call" in await denied(by_device(asked, timeout=10))
    for holder, kind, text in (
        ("nobody", operator_pb2.RevokeRequest.KIND_DEVICE, "device nobody has no certificate"),
        ("admin", operator_pb2.RevokeRequest.KIND_OPERATOR, "is you"),
        ("jetson-01", operator_pb2.RevokeRequest.KIND_UNSPECIFIED, "kind"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=text):
            await revoke(fleet, holder, kind)
    await device.check_in(held=[agent_pb2.HeldMetadata(role="root", version=1)])


def test_a_revocation_that_nobody_heard_of_is_in_the_list_of_the_next_start(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(lambda c: certificates.put(c, replace(JETSON, serial="1f")))
        ledger.write_now(lambda c: certificates.revoke(c, ["1f"], by="operator admin", why="", now_ms=1))
        authority = Authority.open(tmp_path / "pki", "plant-7", NOW)
        revocations = asyncio.run(Revocations.open(ledger, lambda: NOW))
        write_list(authority, revocations.current, NOW)
    assert [one.serial_number for one in x509.load_pem_x509_crl(authority.crl_path.read_bytes())] == [0x1F]
