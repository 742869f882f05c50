"""`edgewright bundle export`, as an operator types it, against a controller that runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgewright_agent.carried_file import CarriedFile
from edgewright_contract import mandate as contract
from edgewright_controller.cli import run
from edgewright_controller.compile.store import ArtifactStore
from tests.controller.service_rig import Controller, controller
from tests.controller.test_gc import gc, has


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


async def test_a_release_is_carried_in_one_file_with_its_mandate_in_it_or_beside_it(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def typed(line: str, code: int = 0) -> str:
        found = await asyncio.to_thread(run, [*line.split(), "--config", str(fleet.running.client_toml)])
        said = capsys.readouterr()
        assert found == code, said.err
        return said.err if code else said.out

    device = await fleet.enrol("dev-a")
    older = await has(fleet, device, tmp_path, bytes(1 << 21) + b"older")
    first = device.status.active_release
    artifact = await has(fleet, device, tmp_path, bytes(1 << 21) + b"newer")
    stick = tmp_path / "stick"
    stick.mkdir()
    export = f"bundle export {stick} --device dev-a"

    # Drawn up beside the file, signed, then carried in it.
    said = await typed(f"{export} --valid-for 90d")
    file = stick / f"dev-a-{device.status.active_release[:12]}.edgewright"
    assert f"edgewright-agent import {file.name}" in said
    found = CarriedFile(file)
    found.check(lambda done, of: None)
    assert (found.head.device, found.head.fleet, found.head.artifact) == ("dev-a", "plant-7", artifact)
    assert (found.head.release, found.mandate()) == (device.status.active_release, b"")
    beside = file.with_name(f"{file.name}.mandate")
    contract.parse(beside.read_bytes())
    whole = tmp_path / "whole.edgewright"
    assert "sign it first" in await typed(f"bundle export {whole} --mandate {beside}", 2)
    key = tmp_path / "state" / "keys" / "image-mandate.pem"
    assert await asyncio.to_thread(run, ["mandate", "sign", str(beside), "--key", str(key), "--yes"]) == 0
    capsys.readouterr()
    await typed(f"bundle export {whole} --mandate {beside}")
    assert CarriedFile(whole).mandate() == beside.read_bytes()
    CarriedFile(whole).check(lambda done, of: None)

    # Only what changed: the blocks of zeros are on the device.
    less = tmp_path / "less.edgewright"
    said = await typed(f"bundle export {less} --mandate {beside} --since {first[:16]}")
    assert f"without what is in artifact {older[:12]}" in said
    assert CarriedFile(less).head.base == older
    CarriedFile(less).check(lambda done, of: None)
    assert less.stat().st_size < whole.stat().st_size // 2
    audit = await typed("audit")
    assert "release.export" in audit

    refusals = {
        f"{export}": "give --mandate FILE or --valid-for",
        f"bundle export {stick} --valid-for 9d": "give --device or --profile",
        f"{export} --valid-for 200d": "not a number of days from 1d to 180d",
        f"bundle export {whole} --mandate {beside}": "is there already",
        f"bundle export {tmp_path / 'x'} --mandate {beside} --device dev-b": "it says dev-a, not --device dev-b",
        f"bundle export {tmp_path / 'x'} --mandate {key}": "not a mandate",
        f"bundle export {tmp_path / 'no' / 'x'} --mandate {beside}": "make the folder first",
        f"bundle export {tmp_path / 'x'} --mandate {beside} --since fedcba": "there is no release",
    }
    for line, why in refusals.items():
        said = await typed(line, 2)
        assert why in said, (line, said)
        assert not (tmp_path / "x").exists()

    # A damaged store is told, and nothing is left of the file.
    weights = next(ArtifactStore(tmp_path / "state" / "store").path(artifact).glob("*.gguf"))
    weights.chmod(0o644)
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "is not what the release names" in await typed(f"bundle export {tmp_path / 'x'} --mandate {beside}", 1)
    weights.write_bytes(data[:-1])
    assert "was collected" in await typed(f"bundle export {tmp_path / 'x'} --mandate {beside}", 1)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith((".x", "x"))] == []
    # What somebody exports is not collected from under it.
    assert (await gc(fleet)).count == 0
