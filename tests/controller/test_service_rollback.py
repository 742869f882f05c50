"""Taking back what was released: from all, from a group, from one device to a generation; and what refuses that."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
import pytest
from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.cli import run
from edgewright_controller.ledger import Ledger, LedgerError, applied, audit, cordons, devices, releases, rolled_back_on
from edgewright_controller.rollout import RolloutPolicy
from edgewright_controller.service.job import Job
from edgewright_controller.service.rollouts_runner import RolloutsRunner
from edgewright_controller.service.wish import Wish
from tests.controller.ledger_rows import fill, opened
from tests.controller.pki_requests import NOW
from tests.controller.service_rig import Controller, Device, controller, manifest, result, words

T = TypeVar("T")
NAMES = ["dev-a", "dev-b", "dev-c"]
CANARY = '\n[groups.canary]\nmodel = "tiny"\ndevices = ["dev-a", "dev-b"]\n'
Kind = operator_pb2.PlannedChange


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


def ledger(folder: Path, act: Callable[[Connection], T]) -> T:
    """What `act` does to the ledger of the controller that runs on `folder`/state."""
    opened = Ledger.open(folder / "state" / "ledger.sqlite")
    try:
        return opened.write_now(act)
    finally:
        opened.close()


async def driven(
    change: Awaitable[list[operator_pb2.ApplyEvent]], devices: Iterable[Device]
) -> list[operator_pb2.ApplyEvent]:
    """The events of a change, while these devices do as they are told."""
    task = asyncio.ensure_future(change)
    while not task.done():
        for device in devices:
            await device.update()
        await asyncio.wait({task}, timeout=0.02)
    return await task


async def two_releases(fleet: Controller, folder: Path, names: list[str]) -> tuple[list[Device], str, str, str]:
    """Devices that have had one release and have a second; the digests, and the second's manifest."""
    enrolled = [await fleet.enrol(name) for name in names]
    digests = []
    for weights in (b"older", b"the newer"):
        text = manifest(folder, names, weights=weights) + CANARY.replace(
            ', "dev-b"', "" if len(names) < 2 else ', "dev-b"'
        )
        assert result(await driven(fleet.apply(text, folder), enrolled)).succeeded
        digests.append(enrolled[0].status.active_release)
    return enrolled, digests[0], digests[1], text


async def refusal(fleet: Controller, release: str = "", named: tuple[str, ...] = (), **fields: Any) -> str:
    """What the controller answers to a rollback that it must not begin."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fleet.rollback(release, named, **fields)
    return words(caught.value)


async def plan(fleet: Controller, text: str, folder: Path) -> dict[str, operator_pb2.PlannedChange]:
    asked = operator_pb2.PlanRequest(manifest=text, file="fleet.toml", folder=str(folder))
    return {change.device: change for change in (await fleet.operator.Plan(asked, timeout=30)).changes}


async def test_a_group_goes_back_the_others_keep_it_and_only_there_it_is_refused(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    enrolled, older, newer, text = await two_releases(fleet, tmp_path, NAMES)
    assert "there is no group 'canari' in fleet.toml" in (said := await refusal(fleet, groups=["canari"]))
    assert 'did you mean "canary"?' in said
    for flags, code, message in (
        ("--group canari", 2, "did you mean"),
        ("--to 1", 2, "--to goes with exactly one --device"),
        ("--device dev-a --to 0", 2, "greater than or equal to 1"),
        ("--device dev-a --to 2", 1, "which it has now"),
    ):
        line = ["rollback", *flags.split(), "--config", str(fleet.running.client_toml)]
        assert await asyncio.to_thread(run, line) == code
        assert message in capsys.readouterr().err
    events = await driven(fleet.rollback(groups=["canary"], reason="slow on heat"), enrolled)
    assert result(events).succeeded
    assert any("waves, windows and limits do not apply" in event.message for event in events)
    assert [device.status.active_release for device in enrolled] == [older, older, newer]
    (view, *_) = (await fleet.operator.ListRollouts(operator_pb2.ListRolloutsRequest(), timeout=10)).rollouts
    assert (view.why, view.what) == ("slow on heat", f"rollback of {newer[:12]}, group canary")
    entries = ledger(tmp_path, lambda c: list(audit.entries(c)))
    told = {row.action: audit.parted(row.detail)[1] for row in entries}
    assert (told["rollback"], told["rollout.begin"]) == ("slow on heat", "slow on heat")

    changes = await plan(fleet, text, tmp_path)
    assert {name: change.kind for name, change in changes.items()} == {
        "dev-a": Kind.KIND_HELD,
        "dev-b": Kind.KIND_HELD,
        "dev-c": Kind.KIND_NONE,
    }
    assert (changes["dev-a"].from_release, changes["dev-a"].to_release) == (older, newer)
    drift = f"drift: the manifest says {newer[:12]}, it has {older[:12]}; admin rolled that back on "
    assert changes["dev-a"].note.startswith(drift)
    assert changes["dev-a"].note.endswith(" UTC: slow on heat; `apply --again` releases it all the same")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fleet.apply(text, tmp_path)
    assert f"dev-a: tiny: {drift}" in words(caught.value)
    assert result(await driven(fleet.apply(text, tmp_path, again=True), enrolled)).succeeded
    assert {device.status.active_release for device in enrolled} == {newer}
    assert ledger(tmp_path, rolled_back_on.releases_of) == {}


async def test_what_was_rolled_back_everywhere_is_tried_again_on_one_device_without_releasing_it_to_the_others(
    fleet: Controller, tmp_path: Path
) -> None:
    enrolled, older, newer, text = await two_releases(fleet, tmp_path, NAMES[:2])
    assert result(await driven(fleet.rollback(), enrolled)).succeeded
    assert {change.kind for change in (await plan(fleet, text, tmp_path)).values()} == {Kind.KIND_HELD}
    there = fleet.apply(text, tmp_path, again=True, devices=["dev-a"])
    assert result(await driven(there, enrolled)).succeeded
    assert [device.status.active_release for device in enrolled] == [newer, older]
    kinds = {name: change.kind for name, change in (await plan(fleet, text, tmp_path)).items()}
    assert kinds == {"dev-a": Kind.KIND_NONE, "dev-b": Kind.KIND_HELD}
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await fleet.apply(text, tmp_path)
    assert "dev-b" in words(caught.value)
    assert "--again" in words(caught.value)
    assert result(await driven(fleet.apply(text, tmp_path, again=True), enrolled)).succeeded
    assert ledger(tmp_path, releases.rolled_back) == frozenset()


async def test_one_device_goes_back_to_what_a_generation_gave_it(fleet: Controller, tmp_path: Path) -> None:
    (device,), older, newer, text = await two_releases(fleet, tmp_path, NAMES[:1])
    off = text.replace("[devices.dev-a]", "[devices.dev-a]\nserve = false").replace(', "dev-b"', "")
    assert result(await driven(fleet.apply(off, tmp_path), [device])).succeeded
    third = manifest(tmp_path, NAMES[:1], weights=b"the very newest")
    assert result(await driven(fleet.apply(third, tmp_path), [device])).succeeded
    fails = asyncio.ensure_future(fleet.apply(manifest(tmp_path, NAMES[:1], weights=b"bad"), tmp_path))
    while not fails.done():
        await device.update(lambda _: agent_pb2.ERROR_CODE_ENGINE_FAILED)
        await asyncio.wait({fails}, timeout=0.02)

    one = ("dev-a",)
    for generation, expected in (
        (9, "dev-a has had no generation 9; it had 5, 4, 3, 2, 1"),
        (3, "dev-a: generation 3 gave it nothing; to take away what it serves, apply it with serve = false"),
        (4, f"dev-a: generation 4 gave it release {device.status.active_release[:12]}, which it has now"),
        (5, "which has not worked there; `edgewright devices show dev-a`"),
    ):
        assert expected in await refusal(fleet, named=one, generation=generation)
    both = "--to goes with exactly one --device, and with no --group"
    assert both in await refusal(fleet, named=("dev-a", "dev-b"), generation=1)
    assert both in await refusal(fleet, generation=1)
    assert both in await refusal(fleet, named=one, groups=["all"], generation=1)

    assert result(await driven(fleet.rollback("", one, generation=1), [device])).succeeded
    assert (device.status.active_release, device.status.generation) == (older, 6)
    assert result(await driven(fleet.rollback("", one, generation=2), [device])).succeeded
    assert device.status.active_release == newer
    assert "generation 1 gave it release" in (said := await refusal(fleet, named=one, generation=1))
    assert "which was itself rolled back" in said
    every = "dev-a: every other release that worked there was taken back, so there is none to return to"
    assert await refusal(fleet, named=one) == every


async def test_what_a_device_would_refuse_for_its_epoch_is_no_way_back_and_nothing_is_marked(
    fleet: Controller, tmp_path: Path
) -> None:
    device = await fleet.enrol("dev-a")
    for epoch, weights in ((0, b"older"), (1, b"the newer")):
        text = manifest(tmp_path, ["dev-a"], weights=weights).replace(
            'source = "unused"', f'source = "unused"\nrelease_epoch = {epoch}'
        )
        assert result(await driven(fleet.apply(text, tmp_path), [device])).succeeded
    for fields in ({}, {"named": ("dev-a",)}, {"groups": ["all"]}, {"named": ("dev-a",), "generation": 1}):
        said = await refusal(fleet, **fields)
        assert "dev-a: it would refuse release" in said
        assert "which has release epoch 0: it has had tiny of epoch 1; go forward instead" in said
    assert ledger(tmp_path, releases.rolled_back) == frozenset()
    assert ledger(tmp_path, rolled_back_on.releases_of) == {}
    assert (await plan(fleet, text, tmp_path))["dev-a"].kind == Kind.KIND_NONE


async def test_what_was_collected_is_no_way_back_and_nothing_is_marked(fleet: Controller, tmp_path: Path) -> None:
    _, older, _, text = await two_releases(fleet, tmp_path, NAMES[:1])
    artifact = ledger(tmp_path, lambda c: releases.get(c, older)).release.artifact
    shutil.rmtree(tmp_path / "state" / "store" / "artifacts" / artifact)
    said = await refusal(fleet)
    assert f"dev-a: release {older[:12]} was collected: its artifact {artifact[:12]} is not whole" in said
    assert ledger(tmp_path, releases.rolled_back) == frozenset()
    assert (await plan(fleet, text, tmp_path))["dev-a"].kind == Kind.KIND_NONE


async def test_devices_that_cannot_or_may_not_go_back_are_named_and_hold_up_nobody(
    fleet: Controller, tmp_path: Path
) -> None:
    enrolled, older, newer, _ = await two_releases(fleet, tmp_path, NAMES[:2])
    late = await fleet.enrol("dev-c")
    text = manifest(tmp_path, NAMES, weights=b"the newer")
    assert result(await driven(fleet.apply(text, tmp_path), [*enrolled, late])).succeeded
    ledger(tmp_path, lambda c: cordons.put(c, cordons.CordonRow("dev-b", "alice", 1, "on the bench")))
    events = await driven(fleet.rollback(), [*enrolled, late])
    said = [event.message for event in events]
    assert "dev-b left alone: it is cordoned by alice: on the bench" in said
    assert "dev-c cannot go back: no earlier release has worked there, so there is none to return to" in said
    assert not result(events).succeeded, "a device still has what was to be taken back"
    assert result(events).summary.endswith("; cannot go back: dev-c")
    assert [device.status.active_release for device in (*enrolled, late)] == [older, newer, newer]
    assert ledger(tmp_path, releases.rolled_back) == frozenset({newer})


async def test_devices_that_are_named_must_be_ones_that_can_be_reached(fleet: Controller, tmp_path: Path) -> None:
    await two_releases(fleet, tmp_path, NAMES)
    both = manifest(tmp_path, [*NAMES, "dev-late"], weights=b"the newer")
    assert result(await fleet.apply(both, tmp_path)).succeeded
    ledger(tmp_path, lambda c: cordons.put(c, cordons.CordonRow("dev-a", "alice", 1, "on the bench")))
    ledger(tmp_path, lambda c: devices.decommission(c, "dev-b", 2))
    revoke = operator_pb2.RevokeRequest(kind=operator_pb2.RevokeRequest.KIND_DEVICE, holder="dev-c")
    await fleet.operator.Revoke(revoke, timeout=10)
    for device, expected in (
        ("dev-a", "it is cordoned by alice: on the bench; `edgewright devices uncordon dev-a`"),
        ("dev-b", "dev-b: it was decommissioned, so nothing reaches it"),
        ("dev-c", "dev-c: its certificates are revoked, so nothing reaches it"),
        ("dev-late", "dev-late: it has not enrolled yet, so it has nothing to go back from"),
        ("dev-x", "there is no device 'dev-x'; did you mean"),
    ):
        assert expected in await refusal(fleet, named=(device,))
    assert [view.desired_generation for view in (await fleet.status()).values()][:1] == [2]
    assert "reason: 501 characters" in await refusal(fleet, reason="x" * 501)


async def test_who_waits_in_a_ramp_for_what_its_group_leaves_does_not_get_it_and_the_ramp_goes_on(
    fleet: Controller, tmp_path: Path
) -> None:
    enrolled = [await fleet.enrol(name) for name in NAMES]
    first = manifest(tmp_path, NAMES) + CANARY
    assert result(await driven(fleet.apply(first, tmp_path), enrolled)).succeeded
    before = enrolled[0].status.active_release
    text = manifest(tmp_path, NAMES, weights=b"the newer", first_wave="1") + CANARY
    ramp = asyncio.ensure_future(fleet.apply(text, tmp_path))
    deadline = time.monotonic() + 60
    while (await fleet.status())["dev-a"].desired_generation != 2:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # paces the polling; the deadline ends it
    pause = operator_pb2.ControlRolloutRequest(
        rollout="rollout-2", action=operator_pb2.ControlRolloutRequest.ACTION_PAUSE
    )
    await fleet.operator.ControlRollout(pause, timeout=10)
    assert await enrolled[0].update()
    newer = enrolled[0].status.active_release
    assert "for which it waits" in await refusal(fleet, newer, ("dev-b",))
    events = await driven(fleet.rollback(groups=["canary"]), enrolled)
    assert result(events).succeeded
    assert f"dev-b will not get release {newer[:12]}, for which it waited" in [event.message for event in events]
    pause.action = operator_pb2.ControlRolloutRequest.ACTION_RESUME
    await fleet.operator.ControlRollout(pause, timeout=10)
    assert result(await driven(ramp, enrolled)) is not None
    assert [device.status.active_release for device in enrolled] == [before, before, newer]
    assert ledger(tmp_path, rolled_back_on.releases_of) == {
        "dev-a": frozenset({newer}),
        "dev-b": frozenset({newer}),
    }


async def test_a_manifest_counts_as_applied_once_it_goes_out(fleet: Controller, tmp_path: Path) -> None:
    device = await fleet.enrol("dev-a")
    assert "no manifest was applied here yet" in await refusal(fleet, groups=["all"])
    text = manifest(tmp_path, ["dev-a"])
    assert result(await fleet.apply(text, tmp_path, build_only=True)).succeeded
    assert ledger(tmp_path, applied.last) is None
    assert result(await driven(fleet.apply(text, tmp_path, reason="the first"), [device])).succeeded
    row = ledger(tmp_path, applied.last)
    assert row is not None
    assert (row.by, row.file, row.text, row.reason) == ("admin", "fleet.toml", text, "the first")


class Full:
    """A ledger whose disk is full: it reads and stores nothing."""

    def __init__(self, inner: Ledger) -> None:
        self._inner = inner

    async def read(self, act: Callable[[Connection], T], /) -> T:
        return await self._inner.read(act)

    async def write(self, act: Callable[[Connection], T], /) -> T:
        raise LedgerError("the disk is full")


async def test_a_rollback_that_cannot_begin_refuses_nothing(tmp_path: Path) -> None:
    with opened(tmp_path) as inner:
        one, two = inner.write_now(fill)
        marks = frozenset({("", two), ("mac-01", two)})
        wish = Wish({"mac-01": one}, RolloutPolicy(), "alice", "rollback", {"mac-01": two}, refuses=marks)
        full = RolloutsRunner(Full(inner), lambda _device, _generation: None, clock=lambda: NOW)
        with pytest.raises(LedgerError, match="the disk is full"):
            await full.take_back([two], lambda _: wish, Job(), by="alice")
        assert inner.read_now(releases.rolled_back) == frozenset()
        runner = RolloutsRunner(inner, lambda _device, _generation: None, clock=lambda: NOW)
        await runner.take_back([two], lambda _: wish, Job(), by="alice")
        assert inner.read_now(releases.rolled_back) == frozenset({two})
        assert inner.read_now(rolled_back_on.releases_of) == {"mac-01": frozenset({two})}
