"""A controller and devices over real mutual TLS: apply, refuse, roll back, restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack
from datetime import datetime, timezone
from pathlib import Path

import grpc.aio
import pytest

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.ledger import Ledger
from edgewright_controller.rollout import RolloutError, RolloutPolicy
from edgewright_controller.service.job import Job
from edgewright_controller.service.rollouts_runner import RolloutsRunner
from edgewright_controller.service.wish import Wish
from tests.controller.service_rig import Controller, Device, controller, manifest, result, takes_everything, words

NAMES = ["jetson-01", "jetson-02"]


def refuses(_release: str) -> agent_pb2.ErrorCode:
    """A device on which nothing runs."""
    return agent_pb2.ERROR_CODE_ENGINE_FAILED


class Moody:
    """A device's behaviour that a test changes while the device lives."""

    def __init__(self) -> None:
        self.now: Callable[[str], agent_pb2.ErrorCode] = takes_everything

    def __call__(self, release: str) -> agent_pb2.ErrorCode:
        return self.now(release)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


async def serving(fleet: Controller) -> dict[str, str]:
    return {device: view.status.active_release for device, view in (await fleet.status()).items()}


async def until_desired(fleet: Controller, generations: list[int]) -> None:
    """Wait until the devices, in the order of their names, are to reach these generations."""
    deadline = time.monotonic() + 60
    while [view.desired_generation for _, view in sorted((await fleet.status()).items())] != generations:
        assert time.monotonic() < deadline, await fleet.status()
        await asyncio.sleep(0.05)  # paces the polling; the deadline ends it


async def with_devices(
    job: asyncio.Task[list[operator_pb2.ApplyEvent]], devices: Iterable[Device]
) -> operator_pb2.ApplyResult:
    """The result of a change, while these devices do as they are told."""
    while not job.done():
        for device in devices:
            await device.update()
        await asyncio.wait({job}, timeout=0.05)
    return result(await job)


async def test_a_release_goes_out_and_a_second_apply_changes_nothing(fleet: Controller, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        for name in NAMES:
            await stack.enter_async_context((await fleet.enrol(name)).living())
        text = manifest(tmp_path, NAMES, first_wave="1")
        events = await fleet.apply(text, tmp_path)
        assert result(events).succeeded, result(events)
        assert (result(events).devices_succeeded, result(events).builds_made) == (2, 1)
        assert {event.rollout.waves for event in events if event.HasField("rollout")} == {2}
        views = await fleet.status()
        assert {view.status.active_release for view in views.values()} == {views["jetson-01"].desired_release}
        assert views["jetson-01"].online
        again = await fleet.apply(text, tmp_path)
        assert result(again).succeeded
        assert (result(again).builds_made, result(again).builds_cached) == (0, 1)
        assert {view.desired_generation for view in (await fleet.status()).values()} == {1}


async def test_a_failed_release_is_reported_and_the_old_one_serves_on(fleet: Controller, tmp_path: Path) -> None:
    moody = Moody()
    async with (await fleet.enrol("jetson-01")).living(moody):
        assert result(await fleet.apply(manifest(tmp_path, NAMES[:1]), tmp_path)).succeeded
        good = (await serving(fleet))["jetson-01"]
        moody.now = refuses
        ended = result(await fleet.apply(manifest(tmp_path, NAMES[:1], weights=b"worse"), tmp_path))
        assert not ended.succeeded
        assert ended.devices_failed == 1
        view = (await fleet.status())["jetson-01"]
        assert (view.status.active_release, view.status.reason) == (good, "it did not answer")
        assert view.desired_release != good


async def test_an_artifact_that_is_damaged_in_the_store_is_built_again(fleet: Controller, tmp_path: Path) -> None:
    moody = Moody()
    text = manifest(tmp_path, ["jetson-01"])
    async with (await fleet.enrol("jetson-01")).living(moody):
        built = result(await fleet.apply(text, tmp_path, build_only=True))
        assert built.builds_made == 1
        (artifact,) = (tmp_path / "state" / "store" / "artifacts").iterdir()
        (file,) = artifact.iterdir()
        good = file.read_bytes()
        file.chmod(0o644)
        file.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        moody.now = lambda _: agent_pb2.ERROR_CODE_ARTIFACT_CORRUPT
        refused = result(await fleet.apply(text, tmp_path))
        assert (refused.succeeded, refused.builds_cached) == (False, 1)
        moody.now = takes_everything
        mended = result(await fleet.apply(text, tmp_path, again=True))
        assert (mended.succeeded, mended.builds_made) == (True, 1)
        assert file.read_bytes() == good
        file.unlink()
        assert result(await fleet.apply(text, tmp_path)).builds_made == 1
        assert file.read_bytes() == good


async def test_the_second_wave_is_spared_when_the_first_fails(fleet: Controller, tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        for name in NAMES:
            await stack.enter_async_context((await fleet.enrol(name)).living(refuses))
        ended = result(await fleet.apply(manifest(tmp_path, NAMES, first_wave="1"), tmp_path))
        assert (ended.succeeded, ended.devices_failed) == (False, 1)
        assert sorted(view.desired_generation for view in (await fleet.status()).values()) == [0, 1]


async def test_rollback_is_a_higher_generation_of_the_older_release(fleet: Controller, tmp_path: Path) -> None:
    first, second = manifest(tmp_path, NAMES[:1]), manifest(tmp_path, NAMES[:1], weights=b"second")
    async with (await fleet.enrol("jetson-01")).living():
        assert result(await fleet.apply(first, tmp_path)).succeeded
        older = await serving(fleet)
        assert result(await fleet.apply(second, tmp_path)).succeeded
        newer = await serving(fleet)
        assert newer != older
        assert result(await fleet.rollback()).succeeded
        assert await serving(fleet) == older
        assert (await fleet.status())["jetson-01"].desired_generation == 3

        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await fleet.apply(second, tmp_path)
        assert refusal.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "jetson-01" in words(refusal.value)
        assert "--again" in words(refusal.value)
        assert await serving(fleet) == older

        corrected = manifest(tmp_path, NAMES[:1], weights=b"corrected")
        assert result(await fleet.apply(corrected, tmp_path)).succeeded
        assert result(await fleet.apply(second, tmp_path, again=True)).succeeded
        assert await serving(fleet) == newer


async def test_rollback_with_nothing_to_return_to_says_so_and_changes_nothing(
    fleet: Controller, tmp_path: Path
) -> None:
    async with (await fleet.enrol("jetson-01")).living():
        assert result(await fleet.apply(manifest(tmp_path, NAMES[:1]), tmp_path)).succeeded
        for release, devices, expected in (
            ("", (), "no earlier release has worked there"),
            ("", ("mac-09",), "there is no device 'mac-09'"),
            ("ffff", (), "there is no release 'ffff'"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refusal:
                await fleet.rollback(release, devices)
            assert expected in words(refusal.value)
        assert (await fleet.status())["jetson-01"].desired_generation == 1


async def test_a_silent_device_counts_as_failed_after_its_deadline(fleet: Controller, tmp_path: Path) -> None:
    await fleet.enrol("jetson-01")
    ended = result(await fleet.apply(manifest(tmp_path, NAMES[:1], deadline="1s"), tmp_path))
    assert (ended.succeeded, ended.devices_failed) == (False, 1)


async def test_an_apply_goes_on_when_the_caller_leaves(fleet: Controller, tmp_path: Path) -> None:
    device = await fleet.enrol("jetson-01")
    call = fleet.operator.Apply(
        operator_pb2.ApplyRequest(manifest=manifest(tmp_path, NAMES[:1]), file="fleet.toml", folder=str(tmp_path))
    )
    async for event in call:
        if event.HasField("rollout"):
            break
    call.cancel()
    assert await device.update()
    view = (await fleet.status())["jetson-01"]
    assert view.status.active_release == view.desired_release != ""


async def test_a_restart_in_the_middle_of_a_rollout_finishes_it(tmp_path: Path) -> None:
    text = manifest(tmp_path, NAMES, first_wave="1")
    async with controller(tmp_path / "state") as fleet:
        devices = [await fleet.enrol(name) for name in NAMES]
        call = fleet.operator.Apply(operator_pb2.ApplyRequest(manifest=text, file="fleet.toml", folder=str(tmp_path)))
        async for event in call:
            if event.HasField("rollout"):
                break
        address = fleet.running.grpc
        assert [view.rollout_state for view in (await fleet.status()).values()] == ["offered", "waiting"]
    async with controller(tmp_path / "state", grpc_at=address) as fleet, AsyncExitStack() as stack:
        for device in devices:
            await stack.enter_async_context(device.living())
        deadline = time.monotonic() + 60
        views = list((await fleet.status()).values())
        while {view.rollout_state for view in views} != {"succeeded"}:
            assert time.monotonic() < deadline, views
            await asyncio.sleep(0.1)  # paces the polling; the deadline ends it
            views = list((await fleet.status()).values())
        (release,) = {view.status.active_release for view in views}
        assert release


async def test_a_newer_apply_takes_the_devices_over(fleet: Controller, tmp_path: Path) -> None:
    device = await fleet.enrol("jetson-01")
    first = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES[:1]), tmp_path))
    deadline = time.monotonic() + 60
    while not (await fleet.status())["jetson-01"].desired_generation:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)  # paces the polling; the deadline ends it
    second = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES[:1], weights=b"second"), tmp_path))
    assert not result(await first).succeeded
    assert "superseded" in result(await first).summary
    async with device.living():
        assert result(await second).succeeded
    assert (await fleet.status())["jetson-01"].desired_generation == 2


async def test_the_same_apply_once_more_follows_the_rollout_that_runs(fleet: Controller, tmp_path: Path) -> None:
    device = await fleet.enrol("jetson-01")
    text = manifest(tmp_path, NAMES[:1])
    first = asyncio.create_task(fleet.apply(text, tmp_path))
    deadline = time.monotonic() + 60
    while not (await fleet.status())["jetson-01"].desired_generation:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)  # paces the polling; the deadline ends it
    call = fleet.operator.Apply(operator_pb2.ApplyRequest(manifest=text, file="fleet.toml", folder=str(tmp_path)))
    said = []
    following = "rollout-1 is doing this already; following it"
    async for event in call:  # before the device does anything: else there may be nothing left to follow
        said.append(event)
        if event.message == following:
            break
    async with device.living():
        async for event in call:
            said.append(event)
        assert result(await first).succeeded
    assert result(said).succeeded
    assert following in [event.message for event in said]
    assert {event.device.state for event in said if event.HasField("device")} >= {"succeeded"}
    assert (await fleet.status())["jetson-01"].desired_generation == 1


async def test_a_rollout_in_which_a_device_failed_is_not_followed_but_begun_anew(
    fleet: Controller, tmp_path: Path
) -> None:
    moody = Moody()
    moody.now = lambda _: agent_pb2.ERROR_CODE_DISK_FULL
    text = manifest(tmp_path, NAMES) + "max_failures = 1\n"
    asked = operator_pb2.ApplyRequest(manifest=text, file="fleet.toml", folder=str(tmp_path))
    async with (await fleet.enrol(NAMES[0])).living(moody):
        await fleet.enrol(NAMES[1])  # and is never heard of again, so that the rollout goes on
        async for event in fleet.operator.Apply(asked, timeout=30):
            if event.device.state == "failed":
                break
        moody.now = takes_everything
        async for event in fleet.operator.Apply(asked, timeout=30):
            assert "already" not in event.message
            if event.device.state == "succeeded":
                break
    assert (await fleet.status())[NAMES[0]].desired_generation == 2


async def test_a_device_that_enrols_anew_gets_its_release_again_and_apply_waits_for_it(
    fleet: Controller, tmp_path: Path
) -> None:
    text = manifest(tmp_path, NAMES[:1])
    async with (await fleet.enrol("jetson-01")).living():
        assert result(await fleet.apply(text, tmp_path)).succeeded
    blank: Device = await fleet.enrol("jetson-01")
    assert (await fleet.status())["jetson-01"].status.active_release == ""
    async with blank.living():
        assert result(await fleet.apply(text, tmp_path)).succeeded
        assert blank.status.active_release


async def test_rollback_after_a_failed_release_leaves_what_is_served_not_what_was_refused(
    fleet: Controller, tmp_path: Path
) -> None:
    moody = Moody()
    async with (await fleet.enrol("jetson-01")).living(moody):
        served = []
        for weights in (b"first", b"second!"):
            assert result(await fleet.apply(manifest(tmp_path, NAMES[:1], weights=weights), tmp_path)).succeeded
            served.append((await serving(fleet))["jetson-01"])
        moody.now = refuses
        assert not result(await fleet.apply(manifest(tmp_path, NAMES[:1], weights=b"bad"), tmp_path)).succeeded
        moody.now = takes_everything
        assert (await serving(fleet))["jetson-01"] == served[1]
        assert result(await fleet.rollback(release=served[1][:10])).succeeded
        assert (await serving(fleet))["jetson-01"] == served[0]


@pytest.mark.parametrize("named", [True, False], ids=["by its name", "whatever is current"])
async def test_a_rollback_stops_the_ramp_that_hands_the_release_out(
    fleet: Controller, tmp_path: Path, named: bool
) -> None:
    """One device has the release, one is on its way to it, one waits for its wave: none of them ends with it."""
    names = ["dev-a", "dev-b", "dev-c"]
    devices = {name: await fleet.enrol(name) for name in names}
    for weights in (b"oldest", b"old"):
        going_out = asyncio.create_task(fleet.apply(manifest(tmp_path, names, weights=weights), tmp_path))
        assert (await with_devices(going_out, devices.values())).succeeded
    before = await serving(fleet)
    bad = manifest(tmp_path, names, weights=b"bad one", first_wave="2")
    applying = asyncio.create_task(fleet.apply(bad, tmp_path))
    await until_desired(fleet, [3, 3, 2])
    assert await devices["dev-a"].update()
    served = await serving(fleet)
    assert served["dev-a"] != before["dev-a"]
    back = asyncio.create_task(fleet.rollback(served["dev-a"] if named else ""))
    ended = await with_devices(back, devices.values())
    assert ended.succeeded, ended
    assert not result(await applying).succeeded
    assert await serving(fleet) == before
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await fleet.apply(bad, tmp_path)
    assert "--again" in words(refusal.value)


@pytest.mark.parametrize("named", [True, False], ids=["by its name", "the newest change"])
async def test_a_rollback_takes_the_release_also_from_who_could_not_take_it_yet_and_nothing_else(
    fleet: Controller, tmp_path: Path, named: bool
) -> None:
    """A device that failed for want of room tries again for as long as it is to have the release."""
    devices = [await fleet.enrol(name) for name in NAMES]
    for weights in (b"oldest", b"old"):
        going_out = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES, weights=weights), tmp_path))
        assert (await with_devices(going_out, devices)).succeeded
    before = await serving(fleet)
    bad = manifest(tmp_path, NAMES, weights=b"bad one") + "max_failures = 1\n"
    going_out = asyncio.create_task(fleet.apply(bad, tmp_path))
    while not going_out.done():
        await devices[0].update()
        await devices[1].update(lambda _: agent_pb2.ERROR_CODE_DISK_FULL)
        await asyncio.wait({going_out}, timeout=0.05)
    now = await serving(fleet)
    assert (now[NAMES[0]] != before[NAMES[0]], now[NAMES[1]]) == (True, before[NAMES[1]])
    back = asyncio.create_task(fleet.rollback(now[NAMES[0]] if named else ""))
    assert (await with_devices(back, devices)).succeeded
    assert await serving(fleet) == before
    assert {view.desired_release for view in (await fleet.status()).values()} == set(before.values())


async def test_a_device_on_its_way_to_something_else_is_left_to_it(fleet: Controller, tmp_path: Path) -> None:
    devices = {name: await fleet.enrol(name) for name in NAMES}
    for weights in (b"oldest", b"old"):
        going_out = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES, weights=weights), tmp_path))
        assert (await with_devices(going_out, devices.values())).succeeded
    before = await serving(fleet)
    mended = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES, weights=b"mended", first_wave="1"), tmp_path))
    await until_desired(fleet, [3, 2])
    back = asyncio.create_task(fleet.rollback(before[NAMES[0]]))
    ended = await with_devices(back, devices.values())
    assert ended.succeeded
    now = await serving(fleet)
    assert now[NAMES[0]] not in before.values(), "what it was on its way to"
    assert now[NAMES[1]] not in (*before.values(), now[NAMES[0]]), "the oldest"
    await with_devices(mended, devices.values())


async def test_a_failure_that_is_not_of_the_release_that_was_given_decides_nothing(
    fleet: Controller, tmp_path: Path
) -> None:
    device = await fleet.enrol("jetson-01")
    for weights in (b"oldest", b"old"):
        going_out = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES[:1], weights=weights), tmp_path))
        assert (await with_devices(going_out, [device])).succeeded
    going_out = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES[:1], weights=b"newest"), tmp_path))
    await until_desired(fleet, [3])
    device.says(generation=3, outcome=agent_pb2.OUTCOME_FAILED, error=agent_pb2.ERROR_CODE_ENGINE_FAILED)
    device.status.release = device.status.active_release  # what it serves died, while the new one was fetched
    await device.check_in()
    device.status.generation = 2
    assert (await with_devices(going_out, [device])).succeeded


async def test_a_rollback_once_more_follows_the_one_that_runs_and_goes_no_further_back(
    fleet: Controller, tmp_path: Path
) -> None:
    device = await fleet.enrol("jetson-01")
    served = []
    for weights in (b"oldest", b"older..", b"newest!!"):
        going_out = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES[:1], weights=weights), tmp_path))
        assert (await with_devices(going_out, [device])).succeeded
        served.append(device.status.active_release)
    first = asyncio.create_task(fleet.rollback())
    await until_desired(fleet, [4])
    second = asyncio.create_task(fleet.rollback())
    assert (await with_devices(first, [device])).succeeded
    assert result(await second).succeeded
    assert (device.status.active_release, device.status.generation) == (served[1], 4)


async def test_an_apply_that_was_planned_before_a_rollback_does_not_undo_it(fleet: Controller, tmp_path: Path) -> None:
    async with (await fleet.enrol("jetson-01")).living():
        served = []
        for weights in (b"first", b"second!"):
            assert result(await fleet.apply(manifest(tmp_path, NAMES[:1], weights=weights), tmp_path)).succeeded
            served.append((await serving(fleet))["jetson-01"])
        assert result(await fleet.rollback()).succeeded
        ledger = Ledger.open(tmp_path / "state" / "ledger.sqlite")
        runner = RolloutsRunner(ledger, lambda _device, _generation: None, clock=lambda: datetime.now(timezone.utc))
        late = Wish({"jetson-01": served[1]}, RolloutPolicy(), by="admin", about="an apply", not_again=True)
        with pytest.raises(RolloutError, match="was rolled back meanwhile"):
            await runner.begin(late, Job())
        ledger.close()


async def test_a_device_that_shall_not_serve_gets_nothing_although_it_is_just_installing(
    fleet: Controller, tmp_path: Path
) -> None:
    device = await fleet.enrol("jetson-01")
    text = manifest(tmp_path, NAMES[:1])
    installing = asyncio.create_task(fleet.apply(text, tmp_path))
    await until_desired(fleet, [1])
    without = text.replace("[devices.jetson-01]", "[devices.jetson-01]\nserve = false")
    removing = asyncio.create_task(fleet.apply(without, tmp_path))
    await until_desired(fleet, [2])
    async with device.living():
        assert result(await removing).succeeded
        assert "superseded" in result(await installing).summary
        assert device.status.active_release == ""
        assert device.status.generation == 2


async def test_a_device_that_shall_not_serve_gets_nothing(fleet: Controller, tmp_path: Path) -> None:
    text = manifest(tmp_path, NAMES[:1])
    async with (await fleet.enrol("jetson-01")).living():
        assert result(await fleet.apply(text, tmp_path)).succeeded
        off = text.replace("[devices.jetson-01]", "[devices.jetson-01]\nserve = false")
        ended = result(await fleet.apply(off, tmp_path))
        assert ended.succeeded, ended
        assert (await serving(fleet))["jetson-01"] == ""
