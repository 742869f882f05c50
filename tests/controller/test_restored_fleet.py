"""A fleet goes on after its controller's backup was made; then the backup is restored, and nobody is locked out.

The controllers are whole ones, and what devices believe is decided by the agent's own trust.
"""

from __future__ import annotations

import asyncio
import socket
import sqlite3
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edgewright_agent.trust import Assignment, Repository, TrustRefused
from edgewright_agent.trust_store import TrustStore
from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.backup import making, restoring
from edgewright_controller.cli import run
from edgewright_controller.config import Address
from edgewright_controller.ledger import Ledger, audit, telemetry
from tests.agent.trust_fleet import Someone
from tests.controller.ledger_rows import envelope
from tests.controller.pki_requests import new_key, request
from tests.controller.service_rig import FLEET, Controller, Device, controller, manifest, result, words

PASSPHRASE = "correct horse battery"
NAMES = ["jetson-01", "jetson-02", "jetson-03"]


@dataclass
class Believer:
    """A device that believes only what the agent's trust does. `assignment`: what that came to last."""

    device: Device
    store: TrustStore
    assignment: Assignment = field(default_factory=lambda: Assignment(0))
    files: dict[tuple[Repository, str], bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, device: Device, folder: Path) -> Believer:
        roots = (device.welcome.image_root, device.welcome.director_root)
        started = datetime.fromtimestamp(0, timezone.utc)
        return cls(device, TrustStore.create(folder / f"{device.id}.sqlite", *roots, not_before=started))

    @property
    def id(self) -> str:
        return self.device.id

    def held(self) -> list[agent_pb2.HeldMetadata]:
        return [
            agent_pb2.HeldMetadata(repository=int(one.repository), role=one.role, version=one.version)  # type: ignore[arg-type]
            for one in self.store.held()
        ]

    async def check_in(self, **more: object) -> agent_pb2.CheckInResponse:
        """Check in, and believe what comes; raises TrustRefused."""
        answer = await self.device.check_in(**{"held": self.held(), **more})
        self.files = {(Repository(one.repository), one.name): one.content for one in answer.metadata}
        self.assignment = self.store.apply(self.files, Someone(self.id, FLEET), datetime.now(timezone.utc))
        return answer

    async def follow(self) -> None:
        """Check in and take up what is new, as an update that succeeds."""
        await self.check_in()
        status = self.device.status
        if self.assignment.generation <= status.generation:
            return
        release = self.assignment.release
        self.device.says(
            generation=self.assignment.generation, step=agent_pb2.STEP_IDLE, outcome=agent_pb2.OUTCOME_SUCCEEDED
        )
        status.release = status.active_release = release.digest if release else ""
        await self.check_in()


async def until_applied(fleet: Controller, text: str, folder: Path, devices: list[Believer]) -> str:
    """Apply to its end while these devices follow; the release that all of them have."""
    async with asyncio.TaskGroup() as group:
        applying = group.create_task(fleet.apply(text, folder))
        deadline = time.monotonic() + 60
        while not applying.done():
            assert time.monotonic() < deadline
            for device in devices:
                await device.follow()
            await asyncio.sleep(0.02)  # paces the polling; the deadline ends it
    assert result(applying.result()).succeeded
    (release,) = {device.device.status.active_release for device in devices}
    return release


@dataclass
class Place:
    """Where a fleet's controller lives, and its backups."""

    folder: Path
    port: int

    @property
    def state(self) -> Path:
        return self.folder / "state"

    def back_up(self, name: str = "backup") -> None:
        making.make(self.state, self.folder / name, PASSPHRASE, datetime.now(timezone.utc), reports=True)

    def restore(self, name: str = "backup") -> None:
        """The disk died; its backup takes its place."""
        self.state.rename(self.folder / f"dead-{time.monotonic_ns()}")
        restoring.restore(self.folder / name, self.state, PASSPHRASE, datetime.now(timezone.utc), FLEET)

    def controller(self) -> AbstractAsyncContextManager[Controller]:
        """A controller on what is there now, where devices know it."""
        return controller(self.state, grpc_at=Address("127.0.0.1", self.port))

    def text(self, names: list[str], mark: bytes) -> str:
        """A manifest for these devices; other marks, other releases."""
        return manifest(self.folder, names, weights=mark)

    def actions(self) -> list[str]:
        """What the audit log says was done, in order; its chain must hold."""
        ledger = Ledger.open(self.state / "ledger.sqlite")
        rows = ledger.read_now(lambda c: list(audit.entries(c)))
        ledger.close()
        assert all(row.hash == row.expected_hash for row in rows)
        assert all(later.previous == row.hash for row, later in pairwise(rows))
        return [row.action for row in rows]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return Place(tmp_path, one.getsockname()[1])


async def enrolled(fleet: Controller, folder: Path, *names: str) -> list[Believer]:
    return [Believer.of(await fleet.enrol(name), folder) for name in names]


async def closed(devices: list[Believer]) -> None:
    for device in devices:
        await device.device.channel.close()


async def test_a_fleet_that_went_on_is_taken_up_again_and_nobody_is_locked_out(place: Place) -> None:
    """Three devices: one stood still, one got two more releases, one enrolled only after the backup."""
    async with place.controller() as fleet:
        devices = await enrolled(fleet, place.folder, "jetson-01", "jetson-02")
        first = await until_applied(fleet, place.text(NAMES[:2], b"one"), place.folder, devices)
        place.back_up()
        devices += await enrolled(fleet, place.folder, "jetson-03")
        for mark in (b"twotwo", b"threethree"):
            newest = await until_applied(fleet, place.text(NAMES, mark), place.folder, devices[1:] + devices[:1])
    served = {device.id: device.store.marks() for device in devices}

    place.restore()
    async with place.controller() as fleet:
        for _ in range(3):  # nothing that they refuse, however often they ask; they serve on
            for device in devices:
                answer = await device.check_in()
                assert device.device.status.active_release == newest
                assert not answer.metadata, "what stands here is older than what they have"
                assert answer.next_check_in_s == 60, "and nobody hurries them"
        views = await fleet.status()
        assert set(views) == set(NAMES), "also the one that the backup does not know"
        assert all(view.status.generation > view.desired_generation for view in views.values())

        again = await until_applied(fleet, place.text(NAMES, b"four4four4"), place.folder, devices)
        assert again not in (first, newest)
        for device in devices:
            marks = device.store.marks()
            before = served[device.id]
            assert marks.generation > before.generation
            assert all(marks.roles[role].version >= mark.version for role, mark in before.roles.items())
            await device.check_in()
            assert not device.files, "and then all is quiet"
    assert place.actions().count("device.enter") == 1
    await closed(devices)


async def test_devices_that_stood_still_need_no_apply(place: Place) -> None:
    async with place.controller() as fleet:
        devices = await enrolled(fleet, place.folder, "jetson-01")
        release = await until_applied(fleet, place.text(NAMES[:1], b"one"), place.folder, devices)
        place.back_up()
    generation = devices[0].assignment.generation
    place.restore()
    async with place.controller() as fleet:
        await devices[0].check_in()
        assert devices[0].files, "all of it is signed anew, above what anybody holds"
        assert devices[0].assignment.generation == generation
        assert devices[0].assignment.release is not None
        assert devices[0].assignment.release.digest == release
        view = (await fleet.status())["jetson-01"]
        assert view.status.generation == view.desired_generation
        await devices[0].check_in()
        assert not devices[0].files
    await closed(devices)


async def test_a_second_restore_from_the_same_backup_locks_nobody_out(place: Place) -> None:
    async with place.controller() as fleet:
        devices = await enrolled(fleet, place.folder, "jetson-01")
        await until_applied(fleet, place.text(NAMES[:1], b"one"), place.folder, devices)
        place.back_up()
    for mark in (b"twotwo", b"threethree"):
        place.restore()
        await asyncio.sleep(2 - time.time() % 1)  # counts go on from the second of the restore
        async with place.controller() as fleet:
            await devices[0].check_in()
            await until_applied(fleet, place.text(NAMES[:1], mark), place.folder, devices)
    await closed(devices)


async def test_a_certificate_from_after_the_backup_can_be_revoked_and_renewed(place: Place) -> None:
    async with place.controller() as fleet:
        (device,) = await enrolled(fleet, place.folder, "jetson-01")
        await device.check_in()
        place.back_up()
        key = new_key()
        answer = await device.device.stub.Renew(agent_pb2.RenewRequest(csr_der=request(key)), timeout=10)
    place.restore()
    renewed = with_certificate(device.device, key, answer.certificate_chain_pem)
    async with place.controller() as fleet:
        await renewed.check_in(held=device.held())
        again = await renewed.stub.Renew(agent_pb2.RenewRequest(csr_der=request(new_key())), timeout=10)
        assert again.certificate_chain_pem != answer.certificate_chain_pem
        asked = operator_pb2.RevokeRequest(kind=operator_pb2.RevokeRequest.KIND_DEVICE, holder="jetson-01")
        await fleet.operator.Revoke(asked, timeout=10)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await renewed.check_in(held=device.held())
        assert "was revoked" in words(error.value)
    assert "certificate.enter" in place.actions()
    await renewed.channel.close()
    await closed([device])


async def test_a_device_from_after_the_backup_may_renew_before_it_checks_in(place: Place) -> None:
    async with place.controller() as fleet:
        (known,) = await enrolled(fleet, place.folder, "jetson-01")
        await known.check_in()
        place.back_up()
        (device,) = await enrolled(fleet, place.folder, "jetson-02")
    place.restore()
    key = new_key()
    async with place.controller() as fleet:
        assert list(await fleet.status()) == ["jetson-01"]
        answer = await device.device.stub.Renew(agent_pb2.RenewRequest(csr_der=request(key)), timeout=10)
        assert list(await fleet.status()) == NAMES[:2]
        renewed = with_certificate(device.device, key, answer.certificate_chain_pem)
        await renewed.check_in(held=device.held())
    assert place.actions()[-2:] == ["device.enter", "certificate.renew"]
    await renewed.channel.close()
    await closed([known, device])


@pytest.mark.attack("restored ledger: older metadata replayed to a device")
async def test_metadata_from_before_the_restore_is_still_refused(place: Place) -> None:
    async with place.controller() as fleet:
        (device,) = await enrolled(fleet, place.folder, "jetson-01")
        await until_applied(fleet, place.text(NAMES[:1], b"one"), place.folder, [device])
        answer = await device.device.check_in()  # as one that holds nothing: all that there is
        old = {(Repository(one.repository), one.name): one.content for one in answer.metadata}
        who = Someone(device.id, FLEET)
        device.store.apply(old, who, datetime.now(timezone.utc))  # the honest case: now it is what holds
        place.back_up()
    place.restore()
    async with place.controller() as fleet:
        await until_applied(fleet, place.text(NAMES[:1], b"twotwo"), place.folder, [device])
        with pytest.raises(TrustRefused):
            device.store.apply(old, who, datetime.now(timezone.utc))
    await closed([device])


@pytest.mark.attack("restored ledger: a device claims absurd versions and generations")
async def test_a_liar_moves_nobody_but_itself(place: Place) -> None:
    async with place.controller() as fleet:
        liar, honest = await enrolled(fleet, place.folder, "jetson-01", "jetson-02")
        await until_applied(fleet, place.text(NAMES[:2], b"one"), place.folder, [liar, honest])
        place.back_up()
    place.restore()
    roles = ("root", "timestamp", "snapshot", "targets", "builder")
    async with place.controller() as fleet:
        await honest.check_in()
        before = {(one.repository, one.role): one.version for one in honest.held()}
        for version in (1 << 40, 1 << 52, (1 << 53) - 1, (1 << 63) - 1, (1 << 64) - 1):
            claimed = [
                agent_pb2.HeldMetadata(repository=repository, role=role, version=version)
                for repository in (agent_pb2.REPOSITORY_IMAGE, agent_pb2.REPOSITORY_DIRECTOR)
                for role in roles
            ]
            liar.device.says(generation=version)
            answering = liar.device.check_in(held=claimed, spool_epoch=b"e" * 16, spool_settled=version)
            if version < 1 << 63:
                answer = await answering
                assert answer.generation == honest.assignment.generation
                assert answer.metadata, "nobody can have given it that, so it is no reason to wait for an apply"
                continue
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await answering
            assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        await honest.check_in()
        assert {(one.repository, one.role): one.version for one in honest.held()} == before
        liar.device.status.generation = liar.assignment.generation
        liar.device.says()
        await until_applied(fleet, place.text(NAMES[:2], b"twotwo"), place.folder, [honest, liar])
        assert honest.assignment.generation < 1 << 32
    await closed([liar, honest])


async def test_what_people_signed_after_the_backup_is_asked_for_and_taken_up_again(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    stick, secret = place.folder / "stick", place.folder / "secret"
    secret.write_text(PASSPHRASE)
    people = ("alice", "bob", "carol", "root-ca")
    secrets = [word for name in people for word in ("--passphrase-file", f"{name}={secret}")]
    named = [word for name in people[:3] for word in ("--holder", name)]

    async with place.controller() as fleet:
        (device,) = await enrolled(fleet, place.folder, "jetson-01")
        await until_applied(fleet, place.text(NAMES[:1], b"one"), place.folder, [device])
    assert run(["keys", "init", "--state", str(place.state), "--out", str(stick), *named, *secrets]) == 0
    place.back_up()
    request_file = place.folder / "renew.request"
    assert run(["keys", "renew", "--state", str(place.state), "--request", str(request_file)]) == 0
    for name in people[:2]:
        holder = str(stick / f"{name}.keys")
        assert run(["keys", "sign", str(request_file), "--keys", holder, *secrets, "--yes"]) == 0
    publishing = ["keys", "publish", str(request_file), "--state", str(place.state)]
    assert run(publishing) == 0
    async with place.controller():
        await device.check_in()
    held = {(one.repository, one.role): one.version for one in device.held()}

    place.restore()
    async with place.controller() as fleet:
        for _ in range(2):
            await device.check_in()
            assert not device.files, "what stands here would be refused"
    said = capsys.readouterr()
    assert run(publishing) == 0
    async with place.controller() as fleet:
        await until_applied(fleet, place.text(NAMES[:1], b"twotwo"), place.folder, [device])
        after = {(one.repository, one.role): one.version for one in device.held()}
        assert all(after[key] >= version for key, version in held.items())
    assert "Traceback" not in said.err
    await closed([device])


async def test_only_certificates_from_between_are_entered(place: Place) -> None:
    async with place.controller() as fleet:
        (device,) = await enrolled(fleet, place.folder, "jetson-01")
        await device.check_in()
        place.back_up()
    place.restore()
    with sqlite3.connect(place.state / "ledger.sqlite") as connection:
        connection.execute("PRAGMA foreign_keys=OFF")
        for table in ("certificates", "newest_chains", "director_metadata"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM devices")
        connection.execute(
            "UPDATE restorations SET backup_ms = backup_ms + 3600000, restored_ms = restored_ms + 7200000"
        )
    connection.close()
    async with place.controller() as fleet:
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await device.check_in()
        assert error.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert not await fleet.status()
    await closed([device])


async def test_reports_that_the_device_has_forgotten_are_not_waited_for(place: Place) -> None:
    epoch = b"e" * 16
    async with place.controller() as fleet:
        (device,) = await enrolled(fleet, place.folder, "jetson-01")
        await device.check_in()
        place.back_up()
    place.restore()
    async with place.controller() as fleet:
        # Up to 40 the lost ledger had stored all, and the device forgot it; 41 is the next.
        answer = await device.check_in(spool_epoch=epoch, spool_settled=40)
        assert answer.stored_sequence == 40
        answer = await device.check_in(spool_epoch=epoch, spool_settled=12)
        assert answer.stored_sequence == 40
    ledger = Ledger.open(place.state / "ledger.sqlite")
    ledger.write_now(lambda c: telemetry.store(c, [("jetson-01", envelope("jetson-01", 41, epoch=epoch), 1)]))
    assert ledger.read_now(lambda c: telemetry.stored_sequence(c, "jetson-01", epoch)) == 41
    ledger.close()
    await closed([device])


def with_certificate(device: Device, key: EllipticCurvePrivateKey, chain: bytes) -> Device:
    """The same device with another certificate."""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    mutual = grpc.ssl_channel_credentials(device.welcome.ca_pem, private, chain)
    channel = grpc.aio.secure_channel(device.welcome.controller_address, mutual)
    return Device(device.id, device.welcome, private, channel, device.status)
