"""A rollout under an operator's hand: paused, resumed, aborted, and what devices return to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from edgewright_contract.v1 import agent_pb2, operator_pb2
from tests.controller.service_rig import Controller, Device, controller, manifest, result, words

NAMES = ["jetson-01", "jetson-02"]
Request = operator_pb2.ControlRolloutRequest
Events = list[operator_pb2.ApplyEvent]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


async def control(fleet: Controller, rollout: str, action: Request.Action, reason: str = "") -> str:
    """Do this to a rollout; its state afterwards."""
    answer = await fleet.operator.ControlRollout(Request(rollout=rollout, action=action, reason=reason), timeout=10)
    return str(answer.state)


async def listed(fleet: Controller) -> list[operator_pb2.RolloutView]:
    return list((await fleet.operator.ListRollouts(operator_pb2.ListRolloutsRequest(), timeout=10)).rollouts)


async def offered(fleet: Controller, generations: list[int]) -> None:
    """Wait until the devices are to reach these generations."""
    deadline = time.monotonic() + 60
    while [view.desired_generation for view in (await fleet.status()).values()] != generations:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # paces the polling; the deadline ends it


async def ended(fleet: Controller, rollout: str, state: str) -> None:
    """Wait until the rollout has ended so."""
    deadline = time.monotonic() + 60
    while {view.rollout: view.state for view in await listed(fleet)}[rollout] != state:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # paces the polling; the deadline ends it


async def desired(fleet: Controller) -> list[str]:
    return [view.desired_release for view in (await fleet.status()).values()]


async def applied(fleet: Controller, text: str, folder: Path, devices: list[Device]) -> str:
    """Apply to the end, on all these devices; the release."""
    before = (await fleet.status())[devices[0].id].desired_generation
    applying = asyncio.create_task(fleet.apply(text, folder))
    await offered(fleet, [before + 1] * len(devices))
    for device in devices:
        assert await device.update()
    assert result(await applying).succeeded
    return (await desired(fleet))[0]


async def test_a_paused_rollout_offers_nothing_more_until_it_is_resumed(fleet: Controller, tmp_path: Path) -> None:
    first, second = [await fleet.enrol(name) for name in NAMES]
    applying = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES, first_wave="1"), tmp_path))
    await offered(fleet, [1, 0])
    assert await control(fleet, "rollout-1", Request.ACTION_PAUSE, "looks odd") == "paused"
    assert await first.update()
    assert not await second.update()
    (view,) = await listed(fleet)
    assert (view.state, view.reason, view.what) == ("paused", "paused by admin: looks odd", "apply of fleet.toml")
    assert (view.by, dict(view.devices_by_state)) == ("admin", {"succeeded": 1, "waiting": 1})
    assert await control(fleet, "rollout-1", Request.ACTION_RESUME) == "running"
    assert await second.update()
    assert result(await applying).succeeded


@pytest.mark.parametrize(
    ("action", "keeps"), [(Request.ACTION_ABORT_KEEP, [True, False]), (Request.ACTION_ABORT_REVERT, [False, False])]
)
async def test_an_abort_ends_the_apply_and_takes_back_what_is_under_way_with_revert_everything(
    fleet: Controller, tmp_path: Path, action: Request.Action, keeps: list[bool]
) -> None:
    devices = [await fleet.enrol(name) for name in NAMES]
    good = await applied(fleet, manifest(tmp_path, NAMES), tmp_path, devices)
    applying = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES, weights=b"newer"), tmp_path))
    await offered(fleet, [2, 2])
    assert await devices[0].update()
    assert await control(fleet, "rollout-2", action, "wrong model") == "reverting"
    assert [release != good for release in await desired(fleet)] == keeps
    for device in devices:
        await device.update()
    ended = result(await applying)
    assert not ended.succeeded
    assert ended.summary == "aborted: aborted by admin: wrong model"
    assert [device.status.active_release != good for device in devices] == keeps


async def test_an_aborted_removal_leaves_what_was_served(fleet: Controller, tmp_path: Path) -> None:
    devices = [await fleet.enrol("jetson-01")]
    await applied(fleet, manifest(tmp_path, NAMES[:1]), tmp_path, devices)
    text = manifest(tmp_path, NAMES[:1], weights=b"second")
    second = await applied(fleet, text, tmp_path, devices)
    off = text.replace("[devices.jetson-01]", "[devices.jetson-01]\nserve = false")
    removing = asyncio.create_task(fleet.apply(off, tmp_path))
    await offered(fleet, [3])
    assert await desired(fleet) == [""]
    await control(fleet, "rollout-3", Request.ACTION_ABORT_KEEP)
    assert await desired(fleet) == [second]
    assert await devices[0].update()
    assert "aborted" in result(await removing).summary


async def test_an_aborted_rollback_leaves_what_was_served(fleet: Controller, tmp_path: Path) -> None:
    devices = [await fleet.enrol("jetson-01")]
    first = await applied(fleet, manifest(tmp_path, NAMES[:1]), tmp_path, devices)
    second = await applied(fleet, manifest(tmp_path, NAMES[:1], weights=b"second"), tmp_path, devices)
    back = asyncio.create_task(fleet.rollback())
    await offered(fleet, [3])
    assert await desired(fleet) == [first]
    await control(fleet, "rollout-3", Request.ACTION_ABORT_KEEP)
    assert await desired(fleet) == [second]
    assert await devices[0].update()
    assert "aborted" in result(await back).summary


async def test_what_cannot_be_done_to_a_rollout_is_refused_with_the_reason(fleet: Controller, tmp_path: Path) -> None:
    devices = [await fleet.enrol("jetson-01")]
    await applied(fleet, manifest(tmp_path, NAMES[:1]), tmp_path, devices)
    applying = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES[:1], weights=b"second"), tmp_path))
    await offered(fleet, [2])
    for rollout, action, reason, code, expected in (
        (
            "rollout-9",
            Request.ACTION_PAUSE,
            "",
            "INVALID_ARGUMENT",
            "there is no rollout 'rollout-9'; `edgewright roll",
        ),
        (
            "rollout-1",
            Request.ACTION_ABORT_KEEP,
            "",
            "FAILED_PRECONDITION",
            "rollout-1 has ended already; it succeeded",
        ),
        ("rollout-2", Request.ACTION_RESUME, "", "FAILED_PRECONDITION", "rollout-2 is running; it cannot resume"),
        ("rollout-2", Request.ACTION_UNSPECIFIED, "", "INVALID_ARGUMENT", "action: 0 is none"),
        ("rollout-2", Request.ACTION_PAUSE, "x" * 501, "INVALID_ARGUMENT", "reason: 501 characters"),
        ("rollout-2", Request.ACTION_APPROVE, "", "FAILED_PRECONDITION", "rollout-2 is running; it cannot approve"),
        ("rollout-2", Request.ACTION_RETRY, "", "FAILED_PRECONDITION", "there is nothing to retry"),
        ("rollout-2", Request.ACTION_SKIP, "", "INVALID_ARGUMENT", "name those that are to be skipped"),
        ("rollout-1", Request.ACTION_RETRY, "", "FAILED_PRECONDITION", "no device failed in it: nothing to retry"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await control(fleet, rollout, action, reason)
        assert refusal.value.code() is grpc.StatusCode[code]
        assert expected in words(refusal.value)
    assert await devices[0].update()
    assert result(await applying).succeeded


def fails(_release: str) -> agent_pb2.ErrorCode:
    return agent_pb2.ERROR_CODE_PROBE_FAILED


async def test_what_failed_is_retried_while_the_rollout_runs_and_after_its_end(
    fleet: Controller, tmp_path: Path
) -> None:
    first, second = [await fleet.enrol(name) for name in NAMES]
    text = manifest(tmp_path, NAMES).replace("[rollout]", "[rollout]\nmax_failures = 1")
    applying = asyncio.create_task(fleet.apply(text, tmp_path))
    await offered(fleet, [1, 1])
    assert await first.update(fails)
    asked = Request(rollout="rollout-1", action=Request.ACTION_RETRY)
    answer = await fleet.operator.ControlRollout(asked, timeout=10)
    assert (answer.rollout, answer.state, list(answer.devices)) == ("rollout-1", "running", ["jetson-01"])
    assert await first.update(fails)
    assert [request.kind for request in first.answers[-3].requests] == [agent_pb2.DeviceRequest.KIND_RELEASE_HOLD]
    assert await second.update()
    assert not result(await applying).succeeded
    answer = await fleet.operator.ControlRollout(asked, timeout=10)
    assert (answer.rollout, answer.state, list(answer.devices)) == ("rollout-2", "running", ["jetson-01"])
    assert await first.update()
    await ended(fleet, "rollout-2", "succeeded")


async def test_a_skipped_device_goes_back_and_only_retry_and_skip_are_for_some(
    fleet: Controller, tmp_path: Path
) -> None:
    first, second = [await fleet.enrol(name) for name in NAMES]
    applying = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES), tmp_path))
    await offered(fleet, [1, 1])
    with pytest.raises(grpc.aio.AioRpcError, match="only a retry and a skip are for some of a rollout's devices"):
        await fleet.operator.ControlRollout(
            Request(rollout="rollout-1", action=Request.ACTION_PAUSE, devices=["jetson-01"]), timeout=10
        )
    skip = Request(rollout="rollout-1", action=Request.ACTION_SKIP, devices=["jetson-01"], reason="its fan")
    answer = await fleet.operator.ControlRollout(skip, timeout=10)
    assert (answer.state, list(answer.devices)) == ("running", ["jetson-01"])
    assert await desired(fleet) == ["", (await desired(fleet))[1]]
    assert await first.update()
    assert await second.update()
    assert result(await applying).succeeded


async def test_an_apply_that_takes_a_part_of_a_rollout_is_refused_and_one_that_takes_all_is_told(
    fleet: Controller, tmp_path: Path
) -> None:
    devices = [await fleet.enrol(name) for name in NAMES]
    applying = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES), tmp_path))
    await offered(fleet, [1, 1])
    part = manifest(tmp_path, NAMES[:1], weights=b"other")
    asked = operator_pb2.PlanRequest(manifest=part, file="fleet.toml", folder=str(tmp_path))
    refusal = "jetson-01: in rollout-1, which would go on with jetson-02; wait for its end"
    assert any(line.startswith(refusal) for line in (await fleet.operator.Plan(asked, timeout=20)).warnings)
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fleet.apply(part, tmp_path)
    assert refusal in words(refused.value)
    whole = manifest(tmp_path, NAMES, weights=b"other")
    asked = operator_pb2.PlanRequest(manifest=whole, file="fleet.toml", folder=str(tmp_path))
    assert any("rollout-1 runs, and is superseded" in line for line in (await fleet.operator.Plan(asked)).warnings)
    same = operator_pb2.PlanRequest(manifest=manifest(tmp_path, NAMES), file="fleet.toml", folder=str(tmp_path))
    assert not any("rollout-1" in line for line in (await fleet.operator.Plan(same, timeout=20)).warnings)
    taking = asyncio.create_task(fleet.apply(part, tmp_path, supersede=True))
    await offered(fleet, [2, 1])
    for device in devices:
        assert await device.update()
    assert result(await taking).succeeded
    assert result(await applying).succeeded
    assert len(set(await desired(fleet))) == 2


async def test_a_device_that_enrols_after_the_apply_gets_what_that_gave(fleet: Controller, tmp_path: Path) -> None:
    first = await fleet.enrol(NAMES[0])
    release = await applied(fleet, manifest(tmp_path, NAMES), tmp_path, [first])
    second = await fleet.enrol(NAMES[1])
    await second.check_in()
    await offered(fleet, [1, 1])
    assert await desired(fleet) == [release, release]
    assert await second.update()
    await ended(fleet, "rollout-2", "succeeded")
    assert [view.by for view in await listed(fleet)] == ["controller", "admin"]
