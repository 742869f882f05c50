"""What a manifest says of waves, windows and labels, and a selection of devices, over real gRPC."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc.aio
import pytest
from sqlalchemy import Connection

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.ledger import Ledger, audit, cordons, labels
from edgewright_controller.ledger.cordons import CordonRow
from edgewright_controller.rollout.window import DAYS
from tests.controller.service_rig import Controller, Device, controller, manifest, result, words

NAMES = ["dev-a", "dev-b", "dev-c"]
Kind = operator_pb2.PlannedChange


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


def in_ledger(folder: Path, act: Callable[[Connection], object]) -> None:
    opened = Ledger.open(folder / "state" / "ledger.sqlite")
    try:
        opened.write_now(act)
    finally:
        opened.close()


def with_rollout(folder: Path, rollout: str, group: str = "") -> str:
    """A manifest whose rollout, and whose group of all devices, has these keys."""
    text = manifest(folder, NAMES).replace('first_wave = "100%"', rollout)
    return text.replace('profile = "jetson"', f'profile = "jetson"\n{group}')


async def planned(fleet: Controller, text: str, folder: Path, **only: list[str]) -> operator_pb2.PlanResponse:
    asked = operator_pb2.PlanRequest(manifest=text, file="fleet.toml", folder=str(folder), **only)
    answer: operator_pb2.PlanResponse = await fleet.operator.Plan(asked, timeout=30)
    return answer


async def until_desired(fleet: Controller, generations: list[int]) -> None:
    """Wait until the devices are to reach these generations."""
    deadline = time.monotonic() + 60
    while [view.desired_generation for view in (await fleet.status()).values()] != generations:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # paces the polling; the deadline ends it


async def enrolled(fleet: Controller) -> list[Device]:
    return [await fleet.enrol(name) for name in NAMES]


async def test_waves_go_out_as_the_manifest_has_them_and_given_labels_count(fleet: Controller, tmp_path: Path) -> None:
    first, second, third = await enrolled(fleet)
    text = with_rollout(tmp_path, 'waves = [{ match = { ring = "early" }, approval = true }, "50%", "100%"]')
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await planned(fleet, text, tmp_path)
    assert 'rollout.waves[0].match: selects no device: none has a label "ring"' in words(caught.value)

    in_ledger(tmp_path, lambda c: labels.put(c, "dev-c", {"ring": "early"}, by="ana", now_ms=1))
    waves = (await planned(fleet, text, tmp_path)).waves
    assert [(wave.number, wave.devices, wave.what, wave.then) for wave in waves] == [
        (1, 1, "ring=early", "approval"),
        (2, 1, "50%", "go on"),
        (3, 1, "100%", "go on"),
    ]
    applying = asyncio.create_task(fleet.apply(text.replace(", approval = true", ""), tmp_path))
    for device, generations in ((third, [0, 0, 1]), (first, [1, 0, 1]), (second, [1, 1, 1])):
        await until_desired(fleet, generations)
        assert await device.update()
    assert result(await applying).succeeded
    shown = await fleet.operator.ShowRollout(operator_pb2.ShowRolloutRequest(), timeout=10)
    assert [wave.what for wave in shown.waves] == ["ring=early", "50%", "100%"]


async def test_a_device_is_offered_nothing_outside_its_own_window(fleet: Controller, tmp_path: Path) -> None:
    await enrolled(fleet)
    # Two days from now it opens in every zone, and today in none.
    day = DAYS[(datetime.now(UTC) + timedelta(days=2)).weekday()]
    window = f'window = {{ days = ["{day}"], start = "06:00", end = "18:00" }}'
    applying = asyncio.create_task(fleet.apply(with_rollout(tmp_path, 'first_wave = "100%"', window), tmp_path))
    listing = operator_pb2.ListRolloutsRequest()
    deadline = time.monotonic() + 60
    while not (rollouts := (await fleet.operator.ListRollouts(listing, timeout=10)).rollouts) or not rollouts[0].wave:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # paces the polling; the deadline ends it
    assert dict(rollouts[0].devices_by_state) == {"waiting": 3}
    abort = operator_pb2.ControlRolloutRequest(
        rollout="rollout-1", action=operator_pb2.ControlRolloutRequest.ACTION_ABORT_KEEP
    )
    shown = await fleet.operator.ShowRollout(operator_pb2.ShowRolloutRequest(), timeout=10)
    assert list(shown.policy.windows) == [f"dev-a and 2 more: {day} 06:00 to 18:00 UTC"]
    await fleet.operator.ControlRollout(abort, timeout=10)
    assert "aborted" in result(await applying).summary
    assert [view.desired_generation for view in (await fleet.status()).values()] == [0, 0, 0]


async def test_only_the_devices_that_are_named_are_planned_for_and_changed(fleet: Controller, tmp_path: Path) -> None:
    first, *_ = await enrolled(fleet)
    text = manifest(tmp_path, NAMES) + '[groups.canary]\nmodel = "tiny"\ndevices = ["dev-a"]\n'
    assert [change.device for change in (await planned(fleet, text, tmp_path, groups=["canary"])).changes] == ["dev-a"]
    assert len((await planned(fleet, text, tmp_path)).changes) == 3
    for only, said in (
        ({"devices": ["dev-aa"]}, 'fleet.toml: there is no device "dev-aa" in the manifest; did you mean "dev-a"?'),
        ({"groups": ["canari"]}, 'fleet.toml: there is no group "canari" in the manifest; did you mean "canary"?'),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await planned(fleet, text, tmp_path, **only)
        assert words(caught.value) == said
        with pytest.raises(grpc.aio.AioRpcError, match="there is no"):
            await fleet.apply(text, tmp_path, **only)

    applying = asyncio.create_task(fleet.apply(text, tmp_path, devices=["dev-a"]))
    await until_desired(fleet, [1, 0, 0])
    assert await first.update()
    assert result(await applying).devices_succeeded == 1
    entries: list[audit.AuditRow] = []
    in_ledger(tmp_path, lambda c: entries.extend(audit.entries(c)))
    assert [entry.detail.endswith(", only device dev-a") for entry in entries if entry.action == "apply"] == [True]


async def test_what_is_not_selected_is_not_looked_at(fleet: Controller, tmp_path: Path) -> None:
    await enrolled(fleet)
    other = """
[models.other]
source = "nowhere"
[profiles.other]
runtime = "gguf"
quantization = "prebuilt"
prebuilt = "nowhere.gguf"
accelerator = "cpu"
memory = "8GB"
[groups.other]
model = "other"
profile = "other"
devices = ["dev-x"]
[devices.dev-x]
"""
    text = manifest(tmp_path, NAMES) + other
    with pytest.raises(grpc.aio.AioRpcError, match=r"profiles\.other\.prebuilt"):
        await planned(fleet, text, tmp_path)
    assert [change.device for change in (await planned(fleet, text, tmp_path, devices=["dev-b"])).changes] == ["dev-b"]


async def test_a_cordoned_device_is_passed_over_and_whoever_names_it_is_told(fleet: Controller, tmp_path: Path) -> None:
    first, second, _ = await enrolled(fleet)
    text = manifest(tmp_path, NAMES)
    assert {change.kind for change in (await planned(fleet, text, tmp_path)).changes} == {Kind.KIND_INSTALL}
    in_ledger(tmp_path, lambda c: cordons.put(c, CordonRow("dev-c", "ana", 1, "on loan")))
    change = (await planned(fleet, text, tmp_path)).changes[2]
    assert (change.kind, change.note) == (
        Kind.KIND_CORDONED,
        "cordoned by ana: on loan; `edgewright devices uncordon dev-c` lets changes reach it",
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fleet.apply(text, tmp_path, devices=["dev-c"])
    assert words(caught.value) == f"dev-c: {change.note}"
    applying = asyncio.create_task(fleet.apply(text, tmp_path))
    await until_desired(fleet, [1, 1, 0])
    assert await first.update()
    assert await second.update()
    assert result(await applying).succeeded
    assert result(await fleet.apply(text, tmp_path)).summary == "nothing to do; cordoned: dev-c"
