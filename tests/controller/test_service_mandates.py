"""A mandate from the command to the device: drawn up, signed by hand, believed by a device's own trust, taken over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path

import grpc
import grpc.aio
import pytest

from edgewright_agent.trust_store import TrustStore
from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.cli import run
from edgewright_controller.publish import keys, mandates
from tests.agent.trust_fleet import Someone
from tests.controller.service_rig import FLEET, Controller, Device, controller, manifest, result, words

NAMES = ["jetson-01", "jetson-02"]
Request = operator_pb2.CreateMandateRequest
DAY_S = 86_400


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


@pytest.fixture
async def devices(fleet: Controller, tmp_path: Path) -> list[Device]:
    """Both have release one, as generation 1."""
    enrolled = [await fleet.enrol(name) for name in NAMES]
    await applied(fleet, manifest(tmp_path, NAMES), tmp_path, enrolled)
    return enrolled


async def applied(fleet: Controller, text: str, folder: Path, devices: list[Device]) -> str:
    """Apply to the end, on all these devices; the release."""
    async with asyncio.TaskGroup() as group:
        applying = group.create_task(fleet.apply(text, folder))
        for device in devices:
            group.create_task(until_updated(device))
    assert result(applying.result()).succeeded
    return (await fleet.status())[devices[0].id].desired_release


async def until_updated(device: Device) -> None:
    deadline = time.monotonic() + 60
    while not await device.update():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # paces the polling; the deadline ends it


async def created(fleet: Controller, **asked: object) -> operator_pb2.CreateMandateResponse:
    answer: operator_pb2.CreateMandateResponse = await fleet.operator.CreateMandate(
        Request(**{"valid_s": 90 * DAY_S, **asked}),  # type: ignore[arg-type] # any of its fields
        timeout=10,
    )
    return answer


async def refused(fleet: Controller, **asked: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await created(fleet, **asked)
    assert error.value.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.FAILED_PRECONDITION)
    return words(error.value)


def _store(tmp_path: Path, device: Device) -> TrustStore:
    roots = (device.welcome.image_root, device.welcome.director_root)
    started = datetime.fromtimestamp(0, timezone.utc)
    return TrustStore.create(tmp_path / f"{device.id}.sqlite", *roots, not_before=started)


def _signed(tmp_path: Path, document: bytes) -> bytes:
    return mandates.sign(document, keys.load(tmp_path / "state" / "keys" / "image-mandate.pem"))


async def test_a_device_believes_what_was_created_and_signed_and_the_ledger_takes_it_over(
    fleet: Controller, tmp_path: Path, devices: list[Device]
) -> None:
    device, other = devices
    made = await created(fleet, device=device.id)
    status = await fleet.status()
    assert (made.number, made.generation) == (1, 2)
    assert made.release == status[device.id].desired_release
    assert status[device.id].desired_generation == 1  # a mandate changes nothing by itself
    store, now = _store(tmp_path, device), datetime.now(timezone.utc)
    found = store.apply_mandate(_signed(tmp_path, made.document), Someone(device.id, FLEET), now)
    assert found.generation == 2
    assert found.release is not None
    assert found.release.digest == made.release
    # The device is back.
    device.says(generation=2, release=made.release, outcome=agent_pb2.OUTCOME_SUCCEEDED)
    answer = await device.check_in()
    assert answer.generation == 2
    assert device.offered(answer) == made.release
    view = (await fleet.status())[device.id]
    assert (view.desired_generation, view.desired_release) == (2, made.release)
    # What comes next is above it there, and where it could have come.
    await applied(fleet, manifest(tmp_path, NAMES, weights=b"others"), tmp_path, devices)
    status = await fleet.status()
    assert [status[one.id].desired_generation for one in (device, other)] == [3, 2]


async def test_a_profiles_mandate_is_above_each_of_its_devices(
    fleet: Controller, tmp_path: Path, devices: list[Device]
) -> None:
    first = (await created(fleet, device=devices[0].id)).generation
    made = await created(fleet, profile="jetson")
    assert made.generation > first
    document = _signed(tmp_path, made.document)
    reading = mandates.read(document)
    assert (reading.mandate.profile, reading.mandate.device, reading.missing) == ("jetson", None, 0)
    await applied(fleet, manifest(tmp_path, NAMES, weights=b"others"), tmp_path, devices)
    assert {view.desired_generation for view in (await fleet.status()).values()} == {made.generation + 1}


async def test_an_older_release_can_be_named(fleet: Controller, tmp_path: Path, devices: list[Device]) -> None:
    old = (await fleet.status())[NAMES[0]].desired_release
    await applied(fleet, manifest(tmp_path, NAMES, weights=b"others"), tmp_path, devices)
    made = await created(fleet, device=NAMES[0], release=old[:12])
    assert (made.release, made.generation) == (old, 3)


async def test_what_cannot_be_made_is_said_and_nothing_is_entered(
    fleet: Controller, tmp_path: Path, devices: list[Device]
) -> None:
    third = await fleet.enrol("jetson-03")
    for asked, said in (
        ({}, "for a device or for a profile"),
        ({"device": "jetson-01", "profile": "jetson"}, "for a device or for a profile"),
        ({"device": "../etc"}, "is not an id"),
        ({"device": "jetson-09"}, "there is no device 'jetson-09'"),
        ({"device": third.id}, "should have nothing now; name a release"),
        ({"device": "jetson-01", "release": "ffff"}, "there is no release 'ffff'"),
        ({"profile": "mac"}, "none of its devices has one"),
        ({"device": "jetson-01", "valid_s": 0}, "at most 180 days"),
        ({"device": "jetson-01", "valid_s": 181 * DAY_S}, "at most 180 days"),
    ):
        assert said in await refused(fleet, **asked)
    made = await created(fleet, device="jetson-01", valid_s=180 * DAY_S)
    assert (made.number, made.generation) == (1, 2)


async def test_a_rollout_that_runs_is_not_overtaken(fleet: Controller, tmp_path: Path, devices: list[Device]) -> None:
    text = manifest(tmp_path, NAMES, weights=b"others")
    async with asyncio.TaskGroup() as group:
        applying = group.create_task(fleet.apply(text, tmp_path))
        deadline = time.monotonic() + 60
        while (await fleet.status())[NAMES[0]].desired_generation == 1:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)  # paces the polling; the deadline ends it
        for asked in ({"device": NAMES[1]}, {"profile": "jetson"}):
            assert "is in rollout-2, which runs" in await refused(fleet, **asked)
        for device in devices:
            group.create_task(until_updated(device))
    assert result(applying.result()).succeeded
    assert (await created(fleet, device=NAMES[1])).generation == 3


async def test_a_release_that_was_rolled_back_goes_on_no_stick(
    fleet: Controller, tmp_path: Path, devices: list[Device]
) -> None:
    bad = await applied(fleet, manifest(tmp_path, NAMES, weights=b"others"), tmp_path, devices)
    async with asyncio.TaskGroup() as group:
        rolling = group.create_task(fleet.rollback())
        for device in devices:
            group.create_task(until_updated(device))
    assert result(rolling.result()).succeeded
    assert "was rolled back" in await refused(fleet, device=NAMES[0], release=bad)
    assert (await created(fleet, device=NAMES[0])).release != bad


@pytest.mark.attack("mandate for a revoked device")
async def test_a_revoked_device_gets_no_mandate(fleet: Controller, devices: list[Device]) -> None:
    assert (await created(fleet, device=NAMES[0])).number == 1
    kind = operator_pb2.RevokeRequest.KIND_DEVICE
    await fleet.operator.Revoke(operator_pb2.RevokeRequest(kind=kind, holder=NAMES[0]), timeout=10)
    assert "jetson-01 is revoked" in await refused(fleet, device=NAMES[0])
    assert (await created(fleet, device=NAMES[1])).number == 2


async def test_the_commands_draw_it_up_show_it_and_sign_it(
    fleet: Controller, tmp_path: Path, devices: list[Device], capsys: pytest.CaptureFixture[str]
) -> None:
    file, key = tmp_path / "site.mandate", tmp_path / "state" / "keys" / "image-mandate.pem"
    create = ["mandate", "create", "--device", "jetson-01", "--valid-days", "120", "--out", str(file)]
    config = ["--config", str(tmp_path / "state" / "operator" / "client.toml")]
    assert await asyncio.to_thread(run, [*create, *config]) == 0
    assert f"edgewright mandate sign {file} --key FILE" in capsys.readouterr().out
    assert await asyncio.to_thread(run, [*create, *config]) == 2  # it is there already
    assert "is there already" in capsys.readouterr().err
    assert run(["mandate", "show", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "device:     jetson-01\n" in shown
    assert "signed by:  nobody, 1 missing\n" in shown
    wrong = tmp_path / "state" / "keys" / "image-targets.pem"
    assert run(["mandate", "sign", str(file), "--key", str(wrong), "--yes"]) == 1
    assert "does not sign mandates of this fleet" in capsys.readouterr().err
    assert run(["mandate", "sign", str(file), "--key", str(key), "--yes"]) == 0
    assert capsys.readouterr().out.endswith("signed; devices will believe it\n")
    store, now = _store(tmp_path, devices[0]), datetime.now(timezone.utc)
    assert store.apply_mandate(file.read_bytes(), Someone("jetson-01", FLEET), now).generation == 2
    file.write_bytes(file.read_bytes()[:-1])
    assert run(["mandate", "show", str(file)]) == 2
    assert "not a mandate" in capsys.readouterr().err
