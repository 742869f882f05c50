"""A device that was off for weeks, while its fleet went on without it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from edgewright_agent import enrolment
from edgewright_contract.v1 import operator_pb2
from edgewright_controller import run
from edgewright_controller.config import Address
from edgewright_controller.demo.children import free_ports
from tests.controller.service_rig import Controller, controller
from tests.simulated_fleet.device import Intervals, SimulatedDevice
from tests.simulated_fleet.evidence import read_disk
from tests.simulated_fleet.manifests import Wanted
from tests.simulated_fleet.orders import Orders

DEVICE = "dev-0"
WEEKS = timedelta(weeks=3)


@asynccontextmanager
async def switched_on(state: Path, orders: Orders) -> AsyncIterator[None]:
    """The device lives."""
    alive = asyncio.create_task(SimulatedDevice(state, lambda: orders, Intervals(0.2, 0.0)).run())
    try:
        yield
        assert not alive.done(), alive.exception()
    finally:
        alive.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await alive


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 it is the device's disk that says it
            await asyncio.sleep(0.05)


async def wish(fleet: Controller, folder: Path, context: int) -> asyncio.Task[str]:
    """Begin to give another release, for which the device has a month; when its rollout has begun, how it ends."""
    text = Wanted((DEVICE,), context=context, rollout={"device_deadline": '"30d"'}).text(folder)
    asked = operator_pb2.ApplyRequest(manifest=text, file=f"{context}.toml", folder=str(folder))
    call, begun = fleet.operator.Apply(asked), asyncio.Event()

    async def follow() -> str:
        async for event in call:
            if event.HasField("rollout"):
                begun.set()
            if event.HasField("result"):
                return str(event.result.summary)
        raise AssertionError("it ended without a result")

    following = asyncio.create_task(follow())
    await asyncio.wait({following, asyncio.create_task(begun.wait())}, return_when=asyncio.FIRST_COMPLETED)
    return following


async def desired(fleet: Controller) -> tuple[int, str]:
    view = (await fleet.status())[DEVICE]
    return view.desired_generation, view.desired_release


async def test_a_device_that_was_off_for_weeks_goes_straight_to_what_is_right_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, place = tmp_path / DEVICE, Address("127.0.0.1", free_ports(1)[0])
    async with controller(tmp_path / "state", grpc_at=place) as fleet:
        made = await fleet.operator.CreateEnrolment(operator_pb2.CreateEnrolmentRequest(device=DEVICE), timeout=10)
        await asyncio.to_thread(enrolment.enrol, made.token, device)
        async with switched_on(device, Orders()):
            await until(lambda: bool(read_disk(device).trail))
            assert "1 of 1" in await (await wish(fleet, tmp_path, 512))
        first = read_disk(device).state["active_release"]
        missed = await wish(fleet, tmp_path, 1024)
        _, second = await desired(fleet)
        await wish(fleet, tmp_path, 2048)
        assert "superseded" in await missed
        generation, third = await desired(fleet)
        assert len({first, second, third}) == 3

    monkeypatch.setattr(run, "_clock", lambda: datetime.now(timezone.utc) + WEEKS)
    async with controller(tmp_path / "state", grpc_at=place) as fleet:
        assert await desired(fleet) == (generation, third), "three weeks are not its deadline"
        async with switched_on(device, Orders(clock_ahead_s=WEEKS.total_seconds())):
            await until(lambda: read_disk(device).state["active_release"] == third)
            async with asyncio.timeout(60):
                while (await fleet.status())[DEVICE].rollout_state != "succeeded":  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
    disk = read_disk(device)
    assert disk.state["generation"] == generation
    assert second not in {line.get("release") for line in disk.trail}, "what it missed is not made up for"
