"""`edgewright gc` on a whole controller: what goes, what stays, and what an apply or a rollback makes of it then."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.cli import run
from edgewright_controller.compile.store import ArtifactStore, StoreError
from edgewright_controller.ledger import Ledger, artifacts, needs, releases
from edgewright_controller.service.store_use import StoreBusy, StoreUse
from tests.controller.service_rig import Controller, Device, controller, manifest, result


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


async def gc(fleet: Controller, *, remove: bool = False, unused_s: int = 0) -> operator_pb2.CollectGarbageResponse:
    asked = operator_pb2.CollectGarbageRequest(remove=remove, unused_s=unused_s)
    answer: operator_pb2.CollectGarbageResponse = await fleet.operator.CollectGarbage(asked, timeout=30)
    return answer


async def has(fleet: Controller, device: Device, folder: Path, weights: bytes) -> str:
    """Apply one release to the device; its artifact."""
    text = manifest(folder, [device.id], weights=weights)
    async with _updating(device):
        done = result(await fleet.apply(text, folder))
    assert done.succeeded, done.summary
    view = await fleet.operator.ShowRelease(operator_pb2.ShowReleaseRequest(release=device.status.active_release))
    return str(view.artifact)


def _updating(device: Device) -> Any:
    """The device does as it is told; its channel stays open."""

    class Living:
        async def __aenter__(self) -> None:
            async def live() -> None:
                while True:
                    await device.update()
                    await asyncio.sleep(0.02)  # its check-in interval

            self._task = asyncio.create_task(live())

        async def __aexit__(self, *_: object) -> None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    return Living()


def going(answer: operator_pb2.CollectGarbageResponse, kind: str = "artifact") -> set[str]:
    return {one.name for one in answer.going if one.kind == kind}


async def test_what_nobody_needs_goes_with_its_documents_and_an_apply_builds_it_again(
    fleet: Controller, tmp_path: Path
) -> None:
    device = await fleet.enrol("dev-a")
    made = [await has(fleet, device, tmp_path, weights) for weights in (b"a", b"bb", b"ccc", b"dddd")]
    store = tmp_path / "state" / "store"
    deltas = store / "deltas"
    deltas.mkdir(exist_ok=True)
    stale = {f"{made[3]}.{made[0]}", f"{made[1]}.{made[2]}", f"{made[1]}.zstd"}
    for name in (*stale, f"{made[3]}.{made[2]}"):
        (deltas / name).write_bytes(b"differences")

    # The device has the last, would go back to the one before, and keeps no more.
    shown = await gc(fleet)
    assert going(shown) == {made[0], made[1]}
    assert going(shown, "differences") >= stale
    assert f"{made[3]}.{made[2]}" not in going(shown, "differences")
    assert all("release" in one.what and one.why for one in shown.going if one.kind == "artifact")
    assert not shown.removed
    assert len(list((store / "artifacts").iterdir())) == 4
    assert going(await gc(fleet, unused_s=3600)) == set()

    removed = await gc(fleet, remove=True)
    assert (removed.removed, going(removed)) == (True, going(shown))
    assert removed.bytes >= sum(one.bytes for one in removed.going if one.kind == "artifact")
    assert {path.name for path in (store / "artifacts").iterdir()} == set(made[2:])
    documents = {path.name for path in (store / "objects").iterdir()}
    assert not documents & set(made[:2])
    assert documents >= set(made[2:])
    packs = {path.name for path in deltas.iterdir()}
    assert f"{made[3]}.{made[2]}" in packs
    assert not packs & stale
    assert going(await gc(fleet)) == set()
    audited = [entry async for entry in fleet.operator.Audit(operator_pb2.AuditRequest(), timeout=10)]
    assert "store.collect" in [entry.action for entry in audited]

    listed = await fleet.operator.ListReleases(operator_pb2.ListReleasesRequest(), timeout=10)
    assert {view.artifact for view in listed.releases if view.collected} == set(made[:2])
    # A device that asks for what went is told so.
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in device.stub.FetchObject(agent_pb2.FetchObjectRequest(sha256=made[0]), timeout=10):
            pass
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    # The way back is open still; and what went is built again, under the same name.
    assert (await fleet.operator.Plan(_plan(tmp_path, device, b"ccc"), timeout=10)).builds[0].cached
    assert not (await fleet.operator.Plan(_plan(tmp_path, device, b"a"), timeout=10)).builds[0].cached
    assert await has(fleet, device, tmp_path, b"a") == made[0]
    assert ArtifactStore(store).is_intact(made[0])


def _plan(folder: Path, device: Device, weights: bytes) -> operator_pb2.PlanRequest:
    text = manifest(folder, [device.id], weights=weights)
    return operator_pb2.PlanRequest(manifest=text, file="fleet.toml", folder=str(folder))


async def test_mandates_holds_and_what_devices_say_are_needs_and_a_decommissioned_device_has_none(
    fleet: Controller, tmp_path: Path
) -> None:
    device = await fleet.enrol("dev-a")
    made = [await has(fleet, device, tmp_path, weights) for weights in (b"a", b"bb", b"ccc", b"dddd")]
    assert going(await gc(fleet)) == {made[0], made[1]}
    digests = await _releases(tmp_path, made)

    asked = operator_pb2.CreateMandateRequest(device="dev-a", release=digests[0], valid_s=3600)
    await fleet.operator.CreateMandate(asked, timeout=10)
    assert going(await gc(fleet)) == {made[1]}
    device.says(active_artifact=made[1])  # of a release that a ledger from a backup might not know
    await device.check_in()
    assert going(await gc(fleet)) == set()
    device.says(active_artifact=made[3])
    await device.check_in()
    assert going(await gc(fleet)) == {made[1]}
    device.says(held_releases=[digests[1]])
    await device.check_in()
    assert going(await gc(fleet)) == set()

    ledger = Ledger.open(tmp_path / "state" / "ledger.sqlite")
    try:
        far = 10**14  # the mandate has ended
        found = await ledger.read(lambda c: needs.of_releases(c, far))
    finally:
        ledger.close()
    assert set(found) == set(digests[1:])
    assert "dev-a" in found[digests[1]]

    await fleet.operator.DecommissionDevice(operator_pb2.DecommissionDeviceRequest(device="dev-a"), timeout=10)
    # What the manifest has for it, it gets when it comes back; the mandate stands.
    assert going(await gc(fleet)) == {made[1], made[2]}


async def _releases(folder: Path, made: list[str]) -> list[str]:
    ledger = Ledger.open(folder / "state" / "ledger.sqlite")
    try:
        rows = await ledger.read(releases.every)
    finally:
        ledger.close()
    by_artifact = {row.release.artifact: row.digest for row in rows}
    return [by_artifact[artifact] for artifact in made]


async def test_nothing_goes_that_a_device_fetches_just_now(fleet: Controller, tmp_path: Path) -> None:
    device = await fleet.enrol("dev-a")
    made = [await has(fleet, device, tmp_path, weights) for weights in (b"a", b"bb", b"ccc")]
    assert going(await gc(fleet)) == {made[0]}

    ledger = Ledger.open(tmp_path / "state" / "ledger.sqlite")
    try:
        row = await ledger.read(lambda c: artifacts.get(c, made[0]))
    finally:
        ledger.close()
    assert row is not None
    blocks = agent_pb2.FetchBlocksRequest(
        bundle=row.bundle, block_index=row.block_index, ranges=[agent_pb2.BlockRange(first=0, count=1)]
    )
    async for _ in device.stub.FetchBlocks(blocks, timeout=10):
        pass
    assert going(await gc(fleet)) == set()


async def test_a_crash_after_the_renames_leaves_what_the_next_start_removes(tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "model.gguf").write_bytes(os.urandom(1000))
    stored = store.add(tmp_path / "made")
    assert [one.name for one in store.artifacts()] == [stored.bundle]
    assert store.artifacts()[0].size == 1000

    assert store.retire([stored.bundle]) == {}
    assert not store.has(stored.bundle)
    with pytest.raises((StoreError, OSError)):
        store.read_block(stored.bundle, next(iter(_blocks(store, stored))))
    assert len(list((tmp_path / "store" / "artifacts").iterdir())) == 1

    ArtifactStore(tmp_path / "store")  # the next start
    assert list((tmp_path / "store" / "artifacts").iterdir()) == []
    assert set(store.retire([stored.bundle])) == {stored.bundle}  # it says what it could not take


def _blocks(store: ArtifactStore, stored: Any) -> Any:
    from edgewright_contract import block_index

    with store.open_object(stored.block_index) as file:
        return block_index.parse(file.read(), store.bundle(stored.bundle)).blocks


async def test_nothing_is_collected_while_a_change_counts_on_what_is_built() -> None:
    use = StoreUse()
    first, second = await use.begin("apply of fleet.toml"), await use.begin("a rollback")
    for one in (first, second):
        with pytest.raises(StoreBusy, match="under way"):
            async with use.collecting():
                pass
        one.end()
        one.end()
    async with use.collecting():
        waiting = asyncio.ensure_future(use.begin("apply"))
        await asyncio.sleep(0)
        assert not waiting.done()
    (await waiting).end()


async def test_an_apply_counts_on_the_store_until_its_rollout_is_entered(fleet: Controller, tmp_path: Path) -> None:
    device = await fleet.enrol("dev-a")
    text = manifest(tmp_path, ["dev-a"])
    async for event in fleet.operator.Apply(
        operator_pb2.ApplyRequest(manifest=text, file="fleet.toml", folder=str(tmp_path)), timeout=60
    ):
        if event.HasField("rollout"):  # it runs, and nobody has it yet
            assert going(await gc(fleet, remove=True)) == set()
            break
    while not await device.update():
        continue
    assert device.status.active_release

    # One that is refused counts on nothing any more.
    with pytest.raises(grpc.aio.AioRpcError):
        await fleet.apply("nonsense", tmp_path)
    assert (await gc(fleet, remove=True)).removed


async def test_a_store_over_its_quota_sheds_the_oldest_and_says_when_that_does_not_do(tmp_path: Path) -> None:
    async with controller(tmp_path / "state") as fleet:
        device = await fleet.enrol("dev-a")
        made = [await has(fleet, device, tmp_path, bytes(1 << 16) + bytes([n])) for n in range(4)]
        answer = await fleet.operator.Status(operator_pb2.StatusRequest(), timeout=10)
        assert answer.store_trouble == ""
    held = {one.name: one.size for one in ArtifactStore(tmp_path / "state" / "store").artifacts()}
    assert set(held) == set(made)
    slack = 3 * (1 << 16) + (1 << 15)  # three of them, and their documents
    async with controller(tmp_path / "state", store_quota_bytes=slack) as fleet:
        store = ArtifactStore(tmp_path / "state" / "store")
        async with asyncio.timeout(60):
            while len(store.artifacts()) == 4:
                await fleet.status()
        assert {one.name for one in store.artifacts()} == set(made[1:])
        answer = await fleet.operator.Status(operator_pb2.StatusRequest(), timeout=10)
        assert answer.store_trouble == ""
    async with controller(tmp_path / "state", store_quota_bytes=1 << 16) as fleet:
        async with asyncio.timeout(60):
            while not (answer := await fleet.operator.Status(operator_pb2.StatusRequest(), timeout=10)).store_trouble:
                continue
        assert "quota is 65,536" in answer.store_trouble
        assert {one.name for one in store.artifacts()} == set(made[2:])


async def test_the_command_shows_first_and_removes_with_yes(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    device = await fleet.enrol("dev-a")
    made = [await has(fleet, device, tmp_path, weights) for weights in (b"a", b"bb", b"ccc")]
    config = ["--config", str(fleet.running.client_toml)]

    async def said(*flags: str) -> str:
        assert await asyncio.to_thread(run, ["gc", *flags, *config]) == 0
        return capsys.readouterr().out

    assert "nothing to collect" in await said()
    assert f"{made[0][:12]}" in (shown := await said("--unused", "0s"))
    assert "--yes removes it" in shown
    assert "removed " in await said("--unused", "0s", "--yes")
    assert made[0][:12] not in await said("--unused", "0s")
    assert await asyncio.to_thread(run, ["gc", "--unused", "soon", *config]) == 2
    assert "not a duration" in capsys.readouterr().err
