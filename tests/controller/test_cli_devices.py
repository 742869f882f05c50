"""`edgewright devices`, as an operator types it, against a controller that runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.cli import run
from tests.controller.service_rig import Controller, controller, manifest, result

ORIN = agent_pb2.Inventory(
    os="Linux 6.1",
    cores=8,
    cpu="ARM Cortex-A78AE",
    memory_bytes=16 * 10**9,
    disk_free_bytes=10**11,
    runtimes=["gguf"],
    agent_version="0.1.0",
)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


async def typed(fleet: Controller, line: str) -> int:
    """Type a command; its exit code."""
    return await asyncio.to_thread(run, [*line.split(), "--config", str(fleet.running.client_toml)])


async def shows(fleet: Controller, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that succeeds prints."""
    capsys.readouterr()
    assert await typed(fleet, line) == 0, capsys.readouterr().err
    return capsys.readouterr().out


async def refuses(fleet: Controller, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that is bad input says: one line, exit code 2."""
    capsys.readouterr()
    assert await typed(fleet, line) == 2
    (said,) = capsys.readouterr().err.splitlines()
    return said.removeprefix("edgewright: ")


async def test_devices_by_itself_lists_them_as_devices_list_does(
    fleet: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no device; `edgewright enroll create --device ID`" in await shows(fleet, "devices", capsys)
    device = await fleet.enrol("jetson-01")
    await fleet.enrol("jetson-02")
    await device.check_in(inventory=ORIN)
    listed = await shows(fleet, "devices", capsys)
    assert ["16.0" in line for line in listed.splitlines() if line.startswith("jetson-")] == [True, False]
    for line in ("devices --json", "devices list --json", "devices list jetson-02 jetson-01 --json"):
        document = json.loads(await shows(fleet, line, capsys))
        assert [view["device"] for view in document["devices"]] == ["jetson-01", "jetson-02"]
    only = json.loads(await shows(fleet, "devices list jetson-02 --json", capsys))
    assert [view["device"] for view in only["devices"]] == ["jetson-02"]


async def test_show_says_what_a_device_has_and_had(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = await fleet.enrol("jetson-01")
    await device.check_in(inventory=ORIN)
    assert "it was never given anything" in await shows(fleet, "devices show jetson-01", capsys)
    async with device.living():
        assert result(await fleet.apply(manifest(tmp_path, ["jetson-01"]), tmp_path)).succeeded
        assert result(await fleet.apply(manifest(tmp_path, ["jetson-01"], weights=b"newer"), tmp_path)).succeeded
    page = await shows(fleet, "devices show jetson-01", capsys)
    assert page.startswith("jetson-01, online")
    assert "Linux 6.1, 8 × ARM Cortex-A78AE" in page
    assert f"{device.status.active_release[:12]}, generation 2" in page
    document = json.loads(await shows(fleet, "devices show jetson-01 --json", capsys))
    assert document["rollouts"] == ["rollout-2", "rollout-1"]
    had = [(one["generation"], one["release"], one["outcome"]) for one in document["generations"]]
    assert had == [
        ("2", device.status.active_release, "OUTCOME_SUCCEEDED"),
        ("1", device.status.previous_release, "OUTCOME_SUCCEEDED"),
    ]


async def test_what_cannot_be_meant_is_refused_with_what_to_type(
    fleet: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    for line, message in (
        ("devices show jetson-09", "device 'jetson-09' is not enrolled; `edgewright devices` lists those that are"),
        ("devices list jetson-09", "device 'jetson-09' is not enrolled; `edgewright devices` lists those that are"),
        ("devices list --label ring", "--label: 'ring' is not NAME=VALUE, as in ring=early"),
        ("devices list --label a=b --label a=c", "--label: a is given twice, as 'b' and as 'c'"),
        ("devices label jetson-01", "no label named: give NAME=VALUE, or --remove NAME"),
        ("devices label ring=early", "no device named: edgewright devices label DEVICE ring=early"),
        ("devices label jetson-01 ring=early --remove ring", "label ring: either give it or remove it"),
        ("devices label jetson-01 =early", "label: '=early' is not NAME=VALUE, as in ring=early"),
        ("devices shw jetson-01", "No such command 'shw'. Did you mean 'show'? (see edgewright devices --help)"),
        ("devices cordon", "Missing argument 'devices'. (see edgewright devices cordon --help)"),
    ):
        assert message in await refuses(fleet, line, capsys)
