"""Who changed what, why and when; and the releases that there were: by the wire, and by the commands."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Iterable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import run
from edgewright_controller.ledger import Ledger, audit, devices
from tests.controller.service_rig import Controller, Device, controller, manifest, result, words

NAMES = ["dev-a", "dev-b"]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


async def driven(change: Awaitable[list[operator_pb2.ApplyEvent]], devices: Iterable[Device]) -> None:
    """A change to its end, while these devices do as they are told."""
    task = asyncio.ensure_future(change)
    while not task.done():
        for device in devices:
            await device.update()
        await asyncio.wait({task}, timeout=0.02)
    assert result(await task).succeeded, result(await task)


async def changed(fleet: Controller, folder: Path) -> list[str]:
    """Two releases, of which the second was taken from dev-a; their digests."""
    enrolled = [await fleet.enrol(name) for name in NAMES]
    digests = []
    for weights, why in ((b"older", ""), (b"the newer", "smaller files")):
        text = manifest(folder, NAMES, weights=weights)
        await driven(fleet.apply(text, folder, reason=why), enrolled)
        digests.append(enrolled[0].status.active_release)
    await driven(fleet.rollback("", ("dev-a",), reason="too slow there"), enrolled)
    return digests


async def history(fleet: Controller, **fields: Any) -> list[operator_pb2.HistoryEntry]:
    return list((await fleet.operator.History(operator_pb2.HistoryRequest(**fields), timeout=10)).entries)


async def command(fleet: Controller, line: str) -> int:
    return await asyncio.to_thread(run, [*line.split(), "--config", str(fleet.running.client_toml)])


async def test_history_tells_who_did_what_why_and_how_it_ended_the_newest_first(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newer = await changed(fleet, tmp_path)
    entries = await history(fleet)
    shown = [(one.by, one.action, one.subject, one.why, one.outcome) for one in entries if "enrol" not in one.action]
    assert shown == [
        ("controller", "rollout.end", "rollout-3", entries[0].why, "succeeded"),
        ("admin", "rollout.begin", "rollout-3", "too slow there", "succeeded"),
        ("admin", "rollback", "plant-7", "too slow there", ""),
        ("controller", "rollout.end", "rollout-2", entries[3].why, "succeeded"),
        ("admin", "rollout.begin", "rollout-2", "smaller files", "succeeded"),
        ("admin", "apply", "plant-7", "smaller files", ""),
        ("controller", "rollout.end", "rollout-1", entries[6].why, "succeeded"),
        ("admin", "rollout.begin", "rollout-1", "", "succeeded"),
        ("admin", "apply", "plant-7", "", ""),
    ]
    assert entries[0].why, "how it ended, in words"
    assert entries[2].what == f"dev-a: {newer[:12]} → {older[:12]}"
    assert [one.at_unix_ms for one in entries] == sorted((one.at_unix_ms for one in entries), reverse=True)
    assert not [one for one in entries if one.action.startswith(("certificate.", "enrolment."))]
    assert await history(fleet, limit=2) == entries[:2]
    assert await history(fleet, since_unix_ms=entries[1].at_unix_ms) == entries[:2]

    capsys.readouterr()
    assert await command(fleet, "history --limit 3") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("controller: rollout.end rollout-3, succeeded")
    assert out[2].endswith("admin: rollout.begin rollout-3, succeeded")
    assert out[3].endswith("; why: too slow there")
    assert await command(fleet, "history --json --limit 1") == 0
    assert json.loads(capsys.readouterr().out)["entries"][0]["subject"] == "rollout-3"


async def test_the_history_of_one_device_has_what_it_was_to_have_and_nothing_of_the_others(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newer = await changed(fleet, tmp_path)
    entries = await history(fleet, device="dev-a")
    given = [(one.by, one.what, one.outcome) for one in entries if one.action == "device.give"]
    assert given == [
        ("admin", f"generation 3: release {older[:12]}", "succeeded"),
        ("admin", f"generation 2: release {newer[:12]}", "succeeded"),
        ("admin", f"generation 1: release {older[:12]}", "succeeded"),
    ]
    assert {one.subject for one in entries} == {"dev-a", "rollout-1", "rollout-2", "rollout-3"}
    assert "device.enrol" in {one.action for one in entries}
    assert "rollout-3" not in {one.subject for one in await history(fleet, device="dev-b")}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await history(fleet, device="dev-")
    assert "there is no device 'dev-'; did you mean" in words(caught.value)
    capsys.readouterr()
    assert await command(fleet, "history --device dev-x") == 2
    assert "there is no device 'dev-x'" in capsys.readouterr().err


async def test_what_operators_do_to_a_rollout_is_told_with_their_reason(fleet: Controller, tmp_path: Path) -> None:
    device = await fleet.enrol("dev-a")
    text = manifest(tmp_path, NAMES[:1])
    call = fleet.operator.Apply(operator_pb2.ApplyRequest(manifest=text, file="fleet.toml", folder=str(tmp_path)))
    async for event in call:
        if event.HasField("rollout"):
            break
    actions = operator_pb2.ControlRolloutRequest
    for action, reason in ((actions.ACTION_PAUSE, "looks odd; why: heat"), (actions.ACTION_RESUME, "")):
        asked = actions(rollout="rollout-1", action=action, reason=reason)
        await fleet.operator.ControlRollout(asked, timeout=10)
    entries = await history(fleet, limit=2)
    assert [(one.by, one.action, one.subject, one.what, one.why) for one in entries] == [
        ("admin", "rollout.resume", "rollout-1", "it goes on", ""),
        ("admin", "rollout.pause", "rollout-1", "nothing more is offered", "looks odd; why: heat"),
    ]
    assert (await history(fleet, limit=3))[2].outcome == "running"
    await device.channel.close()


async def test_a_clock_that_was_set_back_hides_nothing(fleet: Controller, tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "state" / "ledger.sqlite")
    for now_ms in (5_000, 9_000, 1_000):
        await ledger.write(lambda c, at=now_ms: audit.append(c, actor="operator a", action="apply", now_ms=at))  # type: ignore[misc]  # mypy cannot type a lambda's default
    ledger.close()
    assert [one.at_unix_ms for one in await history(fleet) if one.action == "apply"] == [1_000, 9_000, 5_000]


async def test_releases_are_listed_with_who_serves_them_and_why_one_cannot_be_returned_to(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, newer = await changed(fleet, tmp_path)
    stub = fleet.operator
    views = (await stub.ListReleases(operator_pb2.ListReleasesRequest(), timeout=10)).releases
    assert [(view.release, view.devices_active, view.devices_desired) for view in views] == [
        (newer, 1, 1),
        (older, 1, 1),
    ]
    assert not any(view.collected or view.rolled_back_by or view.document for view in views)
    ledger = Ledger.open(tmp_path / "state" / "ledger.sqlite")
    await ledger.write(lambda c: devices.decommission(c, "dev-b", 1))
    ledger.close()
    shutil.rmtree(tmp_path / "state" / "store" / "artifacts" / views[0].artifact)
    again = (await stub.ListReleases(operator_pb2.ListReleasesRequest(limit=1, model="tiny"), timeout=10)).releases
    assert [(view.release, view.devices_active, view.devices_desired, view.collected) for view in again] == [
        (newer, 0, 0, True)
    ]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ListReleases(operator_pb2.ListReleasesRequest(model="tinny"), timeout=10)
    assert "there is no release of model 'tinny'; did you mean \"tiny\"?" in words(caught.value)

    capsys.readouterr()
    assert await command(fleet, "releases list") == 0
    out = capsys.readouterr().out
    assert newer[:12] in out
    assert "collected" in out
    assert await command(fleet, f"releases show {older[:8]}") == 0
    out = capsys.readouterr().out
    assert f"release {older}" in out
    assert "gguf prebuilt" in out, "the recipe"
    assert "1 serve it, 1 should" in out
    assert await command(fleet, f"releases diff {older[:8]} {newer[:8]}") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{older[:12]} → {newer[:12]}"
    assert any(line.startswith("  artifact: ") for line in lines)
    assert not any("recipe" in line for line in lines), "both were shipped as they are"
    assert await command(fleet, f"releases diff {older} {newer} --json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["old"], told["new"], bool(told["differences"])) == (older, newer, True)
    assert await command(fleet, "releases show ffff") == 2
    assert "there is no release 'ffff'; `edgewright releases list`" in capsys.readouterr().err
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.ShowRelease(operator_pb2.ShowReleaseRequest(), timeout=10)
    assert "name a release" in words(caught.value)


async def test_nothing_yet_is_said_to_be_so(fleet: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    assert await command(fleet, "releases list") == 0
    assert "no release yet; `edgewright apply MANIFEST` makes the first" in capsys.readouterr().out
    assert await command(fleet, "history") == 0
    assert "nothing was changed yet" in capsys.readouterr().out
