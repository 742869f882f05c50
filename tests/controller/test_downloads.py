"""Downloads under load, over real gRPC: slots, readers that stall, places in the line, and the hint that says when."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest

from edgewright_contract import block_index, bundle, retry_hint
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.compile.store import ArtifactStore
from tests.controller.service_rig import Controller, Device, controller, manifest, result
from tests.delivery_load.room import write_model

MIB = 1 << 20
SIZE = 24 * MIB
# The head of its file is a block of its own, and so is each MiB.
BLOCKS = 1 + SIZE // MIB


@pytest.fixture
def target(tmp_path: Path) -> ImageTarget:
    """An artifact larger than anything that could be under way to a reader that does not read."""
    made = tmp_path / "made"
    made.mkdir()
    write_model(made / "model.gguf", SIZE)
    stored = ArtifactStore(tmp_path / "state" / "store").add(made)
    return ImageTarget("model", "m", "c", "gguf", stored.bundle, stored.bundle_length, stored.block_index, 1)


@pytest.fixture
async def fleet(tmp_path: Path, target: ImageTarget) -> AsyncIterator[Controller]:
    """Two slots, and little patience."""
    async with controller(tmp_path / "state", download_streams=2, stalled_after_s=1.0) as running:
        yield running


def asked(target: ImageTarget, count: int = BLOCKS) -> agent_pb2.FetchBlocksRequest:
    return agent_pb2.FetchBlocksRequest(
        bundle=target.bundle,
        block_index=target.block_index,
        ranges=[agent_pb2.BlockRange(first=0, count=count)],
    )


async def begun(device: Device, target: ImageTarget) -> Any:
    """A download of which the first part has come, and nothing more is read."""
    call = device.stub.FetchBlocks(asked(target), timeout=120)
    assert (await anext(aiter(call))).data
    return call


async def ended(call: Any) -> tuple[int, grpc.aio.AioRpcError | None]:
    """Bytes until the end, and how it ended."""
    size = 0
    try:
        async for part in call:
            size += len(part.data)
    except grpc.aio.AioRpcError as error:
        return size, error
    return size, None


def hint(error: grpc.aio.AioRpcError) -> float | None:
    return retry_hint.decoded(dict(error.trailing_metadata() or ()).get(retry_hint.KEY))


async def test_beyond_the_slots_a_device_is_told_when_to_come_back_and_then_is_let_in(
    fleet: Controller, target: ImageTarget
) -> None:
    devices = [await fleet.enrol(f"jetson-{number}") for number in range(3)]
    readers = [await begun(device, target) for device in devices[:2]]
    size, error = await ended(devices[2].stub.FetchBlocks(asked(target, 2), timeout=60))
    assert size == 0
    assert error is not None
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    told = hint(error)
    assert told is not None
    assert told > 0
    # Whoever reads gets all of it, but in turns while somebody waits.
    for size, error in await asyncio.gather(*map(ended, readers)):
        assert error is None
        assert size >= 8 * MIB - (256 << 10)
    deadline = asyncio.get_running_loop().time() + 60
    while (found := await ended(devices[2].stub.FetchBlocks(asked(target, 2), timeout=60)))[1] is not None:
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(hint(found[1]) or 0.1)
    assert MIB < found[0] < 2 * MIB


async def test_who_does_not_read_loses_its_slot_to_others_and_is_told_so_when_it_reads_on(
    fleet: Controller, target: ImageTarget
) -> None:
    devices = [await fleet.enrol(f"jetson-{number}") for number in range(3)]
    stalled = [await begun(device, target) for device in devices[:2]]
    deadline = asyncio.get_running_loop().time() + 120
    while (found := await ended(devices[2].stub.FetchBlocks(asked(target, 2), timeout=60)))[1] is not None:
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(hint(found[1]) or 0.1)
    assert MIB < found[0] < 2 * MIB
    ends = [await ended(call) for call in stalled]
    losers = [error for size, error in ends if error is not None]
    assert losers, "at least one of them made room"
    for error in losers:
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "were not taken" in str(error.details())


async def test_who_leaves_in_the_middle_makes_room(fleet: Controller, target: ImageTarget) -> None:
    devices = [await fleet.enrol(f"jetson-{number}") for number in range(3)]
    for device in devices[:2]:
        (await begun(device, target)).cancel()
    deadline = asyncio.get_running_loop().time() + 60
    while (found := await ended(devices[2].stub.FetchBlocks(asked(target), timeout=60)))[1] is not None:
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(hint(found[1]) or 0.1)
    assert found[0] > SIZE


async def test_what_is_sent_is_the_artifact(fleet: Controller, target: ImageTarget) -> None:
    device = await fleet.enrol("jetson-1")
    document = b"".join(
        [part.data async for part in device.stub.FetchObject(agent_pb2.FetchObjectRequest(sha256=target.bundle))]
    )
    indexed = b"".join(
        [part.data async for part in device.stub.FetchObject(agent_pb2.FetchObjectRequest(sha256=target.block_index))]
    )
    blocks = block_index.parse(indexed, bundle.parse(document)).blocks
    came: dict[int, bytes] = {}
    assert len(blocks) == BLOCKS
    async for part in device.stub.FetchBlocks(asked(target), timeout=60):
        came[part.index] = came.get(part.index, b"") + part.data
    assert [hashlib.sha256(came[block.index]).digest() for block in blocks] == [block.sha256 for block in blocks]


HOURS = """
[delivery]
{delivery}
"""


def shut_now() -> str:
    """Hours that begin in two hours, wherever the test runs: windows are in UTC here."""
    now = datetime.now(timezone.utc)
    start, end = (now + timedelta(hours=hours) for hours in (2, 4))
    return f"{start:%H:%M}-{end:%H:%M}"


async def test_outside_its_window_a_device_is_told_when_it_begins_and_after_a_new_manifest_it_is_let_in(
    fleet: Controller, target: ImageTarget, tmp_path: Path
) -> None:
    device = await fleet.enrol("jetson-01")
    text = manifest(tmp_path, ["jetson-01"])
    async with device.living():
        hours = shut_now()
        assert result(await fleet.apply(text + HOURS.format(delivery=f'window = "{hours}"'), tmp_path)).succeeded
        size, error = await ended(device.stub.FetchBlocks(asked(target), timeout=60))
        assert size == 0
        assert error is not None
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.details() == f"downloads wait for their window: not before {hours[:5]} (UTC)"
        assert hint(error) == retry_hint.LONGEST_S, "hours from now, of which a device takes ten minutes at a time"
        document = agent_pb2.FetchObjectRequest(sha256=target.bundle)
        assert [part async for part in device.stub.FetchObject(document, timeout=60)], "documents are small"
        assert result(await fleet.apply(text + HOURS.format(delivery='window = "00:00-24:00"'), tmp_path)).succeeded
        assert (await ended(device.stub.FetchBlocks(asked(target), timeout=60)))[0] > SIZE


async def test_a_device_gets_no_more_than_its_rate_also_after_a_restart_of_the_controller(
    tmp_path: Path, target: ImageTarget
) -> None:
    text = manifest(tmp_path, ["jetson-01"]) + HOURS.format(delivery='max_rate = "2MB/s"')
    async with controller(tmp_path / "state") as fleet:
        device = await fleet.enrol("jetson-01")
        async with device.living():
            assert result(await fleet.apply(text, tmp_path)).succeeded
    async with controller(tmp_path / "state") as fleet:
        device = await fleet.enrol("jetson-01")
        began = time.monotonic()
        size, error = await ended(device.stub.FetchBlocks(asked(target, 7), timeout=60))
        assert error is None
        assert time.monotonic() - began >= (size - 2_000_000 - 2 * (256 << 10)) / 2_000_000
