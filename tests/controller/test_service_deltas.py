"""A rollout brings devices what changed, and not what they have; whoever asks too early, or for more, gets it whole."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection

from edgewright_contract import block_coding, block_index, bundle
from edgewright_contract.block_index import BlockIndex
from edgewright_contract.release import Release
from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.compile.store import ArtifactStore, Stored
from edgewright_controller.delivery.packs import PackKey
from edgewright_controller.ledger import artifacts, devices, releases
from edgewright_controller.service.deltas import Deltas
from edgewright_controller.service.job import Job
from tests.controller.delivery_pair import NUMBERS, Room, gguf, key, nudged
from tests.controller.ledger_rows import opened
from tests.controller.service_rig import Controller, Device, controller, manifest, result

ACCEPTED = (
    agent_pb2.ENCODING_RAW,
    agent_pb2.ENCODING_ZSTD,
    agent_pb2.ENCODING_DICT_ZSTD,
    agent_pb2.ENCODING_SUB_ZSTD,
)
OLD, NEW = NUMBERS[:400_000], nudged(NUMBERS)[:400_000]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


def artifact_of(events: list[operator_pb2.ApplyEvent]) -> str:
    assert result(events).succeeded, result(events)
    return next(event.build.artifact for event in events if event.build.artifact)


def index_of(folder: Path, artifact: str) -> tuple[str, BlockIndex]:
    """The block index of an artifact that is in the store of a controller."""
    objects = folder / "state" / "store" / "objects"
    listed = bundle.parse((objects / artifact).read_bytes())
    for path in objects.iterdir():
        try:
            return path.name, block_index.parse(path.read_bytes(), listed)
        except block_index.BlockIndexError:
            continue
    raise AssertionError(f"no index of {artifact}")


async def fetched(
    device: Device, folder: Path, artifact: str, bases: Sequence[str] = (), accepted: Sequence[int] = ACCEPTED
) -> tuple[bytes, int]:
    """The artifact's one file, made of what came, and how many bytes came."""
    named, index = index_of(folder, artifact)
    asked = agent_pb2.FetchBlocksRequest(
        bundle=artifact,
        block_index=named,
        ranges=[agent_pb2.BlockRange(first=0, count=len(index.blocks))],
        bases=bases,
        accepted=accepted,  # type: ignore[arg-type]
    )
    came: dict[int, tuple[agent_pb2.BlockPart, bytearray]] = {}
    async for part in device.stub.FetchBlocks(asked, timeout=60):
        assert len(part.data) <= 256 << 10
        came.setdefault(part.index, (part, bytearray()))[1].extend(part.data)
    content = b""
    for number, (first, data) in came.items():
        block = index.blocks[number]
        base = b""
        if first.encoding in block_coding.BASED:
            held = folder / "state" / "store" / "artifacts" / bases[first.base.bundle]
            whole = sorted(held.iterdir())[first.base.file].read_bytes()
            base = whole[first.base.offset : first.base.offset + first.base.size]
        if first.encoding != agent_pb2.ENCODING_RAW:
            assert first.encoded_size == len(data) < block.size
        decoded = block_coding.decode(first.encoding, bytes(data), block.size, base)
        assert hashlib.sha256(decoded).digest() == block.sha256
        content += decoded
    return content, sum(len(data) for _, data in came.values())


async def test_a_rollout_has_ready_what_its_devices_lack(fleet: Controller, tmp_path: Path) -> None:
    device = await fleet.enrol("jetson-01")
    async with device.living():
        old = artifact_of(await fleet.apply(manifest(tmp_path, ["jetson-01"], weights=OLD), tmp_path))
        device.says(active_artifact=old)
        await device.check_in()
        events = await fleet.apply(manifest(tmp_path, ["jetson-01"], weights=NEW), tmp_path)
        new = artifact_of(events)
        told = [event.message for event in events if f"{old[:12]} → {new[:12]}" in event.message]
        assert len(told) == 1, [event.message for event in events]
        content, came = await fetched(device, tmp_path, new, [old])
        assert content.endswith(NEW)
        assert came < len(content) / 2
        assert f"{came / 1e6:,.3f} MB to fetch, for {len(content) / 1e6:,.3f} MB" in told[0]
        # An older agent, one that holds something else, and one that holds it not whole.
        for bases, accepted in (([], ()), ([new], ACCEPTED), ([], ACCEPTED)):
            whole, all_of_it = await fetched(device, tmp_path, new, bases, accepted)
            assert whole == content
            assert all_of_it == len(content)


async def test_what_a_device_asks_against_is_compared_beside_it(fleet: Controller, tmp_path: Path) -> None:
    device = await fleet.enrol("jetson-01")
    old = artifact_of(await fleet.apply(manifest(tmp_path, ["jetson-01"], weights=OLD), tmp_path, build_only=True))
    new = artifact_of(await fleet.apply(manifest(tmp_path, ["jetson-01"], weights=NEW), tmp_path, build_only=True))
    nobodys = "0" * 64
    content, came = await fetched(device, tmp_path, new, [nobodys, old])
    assert came == len(content)
    pack = tmp_path / "state" / "store" / "deltas" / f"{new}.{old}"
    deadline = time.monotonic() + 60
    while not pack.exists():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)  # paces the looking; the deadline ends it
    again, came = await fetched(device, tmp_path, new, [nobodys, old])
    assert again == content
    assert came < len(content) / 2
    assert [path.name for path in pack.parent.iterdir()] == [pack.name]
    await device.channel.close()


class Half(Room):
    """A store and a ledger with two versions, and devices that serve the old one."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.old = self.add({"model.gguf": gguf()})
        self.new = self.add({"model.gguf": gguf("longer", nudged(NUMBERS))})


def row(stored: Stored) -> artifacts.ArtifactRow:
    return artifacts.ArtifactRow(
        stored.bundle, stored.size, stored.bundle_length, stored.block_index, stored.block_index_length
    )


def released(stored: Stored) -> Release:
    return Release("tiny", "jetson", "gguf", stored.bundle, "cpu", 1 << 30, {})


def said(job: Job) -> str:
    return "\n".join(event.message for _, event in job._events.values())


async def test_a_rollout_does_not_wait_for_long(tmp_path: Path) -> None:
    room = Half(tmp_path)
    with opened(tmp_path) as ledger:

        def fill(connection: Connection) -> str:
            artifacts.put(connection, row(room.old))
            artifacts.put(connection, row(room.new))
            devices.enrol(connection, "d1", "0a", 1)
            status = agent_pb2.DeviceStatus(sequence=1, active_artifact=room.old.bundle)
            devices.report(connection, "d1", status, 2)
            return releases.put(connection, released(room.new), 0, 3)

        release = await ledger.write(fill)
        impatient, job = Deltas(ledger, room.store, room.packs, wait_s=0), Job()
        await impatient.ready({"d1": release, "d2": release, "d3": None}, job)
        assert "not all of it is ready" in said(job)
        await impatient.close()
        patient, job = Deltas(ledger, room.store, room.packs), Job()
        await patient.ready({"d1": release}, job)
        assert f"{room.old.bundle[:12]} → {room.new.bundle[:12]}" in said(job)
        assert room.packs.get(key(room.new, room.old)) is not None
        quiet = Job()
        await patient.ready({"d1": release}, quiet)
        assert said(quiet) == ""
        await patient.close()


async def test_a_damaged_base_only_costs_bytes(tmp_path: Path) -> None:
    room = Half(tmp_path)
    file = room.store.path(room.old.bundle) / "model.gguf"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with opened(tmp_path) as ledger:
        deltas = Deltas(ledger, ArtifactStore(tmp_path / "store"), room.packs)
        wanted = PackKey(room.new.bundle, room.new.block_index, room.old.bundle)
        assert await asyncio.wrap_future(deltas._queue.want(wanted, room.old.block_index)) is None
        assert room.packs.get(wanted) is None
        assert deltas._queue.failed == {wanted}
        file.write_bytes(gguf())
        assert await asyncio.wrap_future(deltas._queue.want(wanted, room.old.block_index)) is not None
        assert room.packs.get(wanted) is not None
        assert not deltas._queue.failed
        await deltas.close()
        assert await asyncio.wrap_future(deltas._queue.want(key(room.old), "")) is None
