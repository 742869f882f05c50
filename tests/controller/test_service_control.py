"""A rollout under an operator's hand: paused, resumed, aborted, and what devices return to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest

from edgewright_contract.v1 import operator_pb2
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
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refusal:
            await control(fleet, rollout, action, reason)
        assert refusal.value.code() is grpc.StatusCode[code]
        assert expected in words(refusal.value)
    assert await devices[0].update()
    assert result(await applying).succeeded
