"""`edgewright devices`, as an operator types it, against a controller that runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgewright_contract.v1 import agent_pb2
from tests.controller.service_rig import Controller, controller, manifest, result
from tests.controller.typed import refuses, shows

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


async def test_devices_are_found_by_the_labels_of_the_manifest_that_was_applied(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["jetson-01", "jetson-02"]
    devices = [await fleet.enrol(name) for name in names]
    text = manifest(tmp_path, names).replace("[devices.jetson-02]", '[devices.jetson-02]\nlabels = { ring = "early" }')
    assert "no device has ring=early" in await shows(fleet, "devices --label ring=early", capsys)
    async with devices[0].living(), devices[1].living():
        assert result(await fleet.apply(text, tmp_path)).succeeded
    found = json.loads(await shows(fleet, "devices --label ring=early --json", capsys))["devices"]
    assert [(view["device"], view["labels"]) for view in found] == [("jetson-02", {"ring": "early"})]
    assert "no device has ring=late" in await shows(fleet, "devices list --label ring=late", capsys)
    assert "labels        ring=early" in await shows(fleet, "devices show jetson-02", capsys)


async def test_labels_are_given_shown_and_taken_away(fleet: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("jetson-01", "jetson-02"):
        await fleet.enrol(name)
    said = await shows(fleet, "devices label jetson-01 jetson-02 ring=early site=oslo", capsys)
    assert said == "jetson-01: ring=early, site=oslo\njetson-02: ring=early, site=oslo\n"
    said = await shows(fleet, "devices label jetson-02 ring=late --remove site --json", capsys)
    assert json.loads(said) == {"labels": {"jetson-02": {"ring": "late"}}}
    listed = json.loads(await shows(fleet, "devices --label ring=late --json", capsys))
    assert [view["device"] for view in listed["devices"]] == ["jetson-02"]
    assert await shows(fleet, "devices label jetson-02 --remove ring", capsys) == "jetson-02: no labels\n"
    for line, message in (
        ("devices label jetson-09 ring=early", "device 'jetson-09' is not enrolled; `edgewright devices` lists"),
        ("devices label jetson-01 RING=early", "label 'RING': a name has small letters"),
        ("devices label jetson-01 ring=" + "x" * 129, "a value has at most 128 characters"),
    ):
        assert message in await refuses(fleet, line, 2, capsys)
    assert "ring=early, site=oslo" in await shows(fleet, "devices show jetson-01", capsys), "nothing was changed"


async def test_a_cordoned_device_is_marked_until_it_is_uncordoned(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device, _ = await fleet.enrol("jetson-01"), await fleet.enrol("jetson-02")
    await device.check_in(inventory=ORIN)
    assert await shows(fleet, "devices cordon jetson-01 --reason disk", capsys) == "jetson-01: cordoned\n"
    said = await shows(fleet, "devices cordon jetson-01 jetson-02", capsys)
    assert said == "jetson-01: cordoned already\njetson-02: cordoned\n"
    listed = await shows(fleet, "devices", capsys)
    assert "jetson-01: cordoned by admin: disk" in listed
    assert "jetson-02: cordoned by admin\n" in listed
    assert "jetson-01: cordoned by admin: disk" in await shows(fleet, "status", capsys)
    assert "edgewright devices uncordon jetson-01" in await shows(fleet, "devices show jetson-01", capsys)
    file = tmp_path / "fleet.toml"
    file.write_text(manifest(tmp_path, ["jetson-01"]))
    assert "cordoned by admin: disk" in await shows(fleet, f"plan {file}", capsys)
    document = json.loads(await shows(fleet, "devices uncordon jetson-01 --json", capsys))
    assert document == {"changed": ["jetson-01"]}
    assert await shows(fleet, "devices uncordon jetson-01", capsys) == "jetson-01: was not cordoned\n"
    assert "jetson-01: cordoned" not in await shows(fleet, "devices", capsys)
    assert "is not enrolled" in await refuses(fleet, "devices cordon jetson-09", 2, capsys)


async def test_a_decommissioned_device_is_out_of_the_lists_and_comes_back_by_enrolling(
    fleet: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("jetson-01", "jetson-02"):
        await fleet.enrol(name)
    said = await shows(fleet, "devices decommission jetson-01 --reason scrapped", capsys)
    assert said.startswith("jetson-01 is out of the fleet; 1 certificate revoked\n")
    for line, shown in (
        ("devices", False),
        ("status", False),
        ("devices --all", True),
        ("devices show jetson-01", True),
    ):
        assert ("jetson-01" in await shows(fleet, line, capsys)) == shown, line
    assert "decommissioned; to let it in again" in await shows(fleet, "devices show jetson-01", capsys)
    assert "was decommissioned before" in await refuses(fleet, "devices decommission jetson-01", 1, capsys)
    assert "was decommissioned" in await refuses(fleet, "devices label jetson-01 ring=early", 2, capsys)
    assert "jetson-09" in await refuses(fleet, "devices decommission jetson-09", 2, capsys)
    await fleet.enrol("jetson-01")
    assert "jetson-01" in await shows(fleet, "devices", capsys)


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
        assert message in await refuses(fleet, line, 2, capsys)
