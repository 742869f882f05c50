"""`edgewright rollout`, as an operator types it, against a controller that runs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgewright_contract.v1 import agent_pb2, operator_pb2
from tests.controller.service_rig import Controller, controller, manifest, result
from tests.controller.typed import refuses, shows

NAMES = ["jetson-01", "jetson-02"]


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


async def states(fleet: Controller) -> dict[str, str]:
    """Where each rollout stands."""
    answer = await fleet.operator.ListRollouts(operator_pb2.ListRolloutsRequest(), timeout=10)
    return {view.rollout: view.state for view in answer.rollouts}


async def until(fleet: Controller, rollout: str, state: str) -> None:
    """Wait until the rollout stands there."""
    deadline = time.monotonic() + 60
    while (await states(fleet)).get(rollout) != state:
        assert time.monotonic() < deadline, f"{rollout} is not {state}: {await states(fleet)}"
        await asyncio.sleep(0.05)  # paces the polling; the deadline ends it


@dataclass
class Behaviour:
    """What devices say of a release."""

    error: agent_pb2.ErrorCode = agent_pb2.ERROR_CODE_UNSPECIFIED

    def __call__(self, release: str) -> agent_pb2.ErrorCode:
        return self.error


def in_two(folder: Path, weights: bytes, first: str) -> str:
    """A manifest whose first wave is one device."""
    text = manifest(folder, NAMES, weights=weights)
    whole = 'first_wave = "100%"'
    assert whole in text
    return text.replace(whole, f'waves = [{first}, "100%"]')


async def test_a_rollout_waits_for_approval_and_says_so(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = [await fleet.enrol(name) for name in NAMES]
    async with first.living(), second.living():
        text = in_two(tmp_path, b"weights", "{ devices = 1, approval = true }")
        applying = asyncio.create_task(fleet.apply(text, tmp_path, reason="faster"))
        await until(fleet, "rollout-1", "approval")
        page = await shows(fleet, "rollout show", capsys)
        assert page.startswith("rollout-1: approval, wave 1 of 2\n")
        for part in ("why faster", "waits for", "approval 1 succeeded", "the next needs approval"):
            assert part in " ".join(page.split())
        assert "cannot resume" in await refuses(fleet, "rollout resume rollout-1", 1, capsys)
        assert await shows(fleet, "rollout approve rollout-1 --reason good", capsys) == "rollout-1: running\n"
        assert result(await applying).succeeded
    assert "why: good" in await shows(fleet, "history", capsys)
    document = json.loads(await shows(fleet, "rollout show --json", capsys))
    assert [one["state"] for one in document["devices"]] == ["succeeded", "succeeded"]
    assert "rollout-1  " in await shows(fleet, "rollout list", capsys)


async def test_a_device_is_skipped_and_one_that_failed_is_tried_again(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = [await fleet.enrol(name) for name in NAMES]
    works, wavers = Behaviour(), Behaviour()
    applying = asyncio.create_task(fleet.apply(manifest(tmp_path, NAMES), tmp_path))
    await until(fleet, "rollout-1", "running")
    assert await first.update()
    assert await second.update()
    assert result(await applying).succeeded
    text = manifest(tmp_path, NAMES, weights=b"newer", first_wave="1")
    applying = asyncio.create_task(fleet.apply(text, tmp_path))
    await until(fleet, "rollout-2", "running")
    assert await shows(fleet, "rollout pause rollout-2", capsys) == "rollout-2: paused\n"
    said = await shows(fleet, "rollout skip rollout-2 --device jetson-02 --reason away", capsys)
    assert said == "rollout-2: paused; skipped: jetson-02\n"
    await shows(fleet, "rollout resume rollout-2", capsys)
    async with first.living(works), second.living(wavers):
        assert result(await applying).succeeded
        assert "1 skipped, 1 succeeded" in await shows(fleet, "rollout list", capsys)

        wavers.error = agent_pb2.ERROR_CODE_PROBE_FAILED
        text = manifest(tmp_path, NAMES, weights=b"newest", first_wave="1")
        assert not result(await fleet.apply(text, tmp_path)).succeeded
        page = await shows(fleet, "rollout show", capsys)
        assert "jetson-02: it did not answer" in page
        wavers.error = agent_pb2.ERROR_CODE_UNSPECIFIED
        said = await shows(fleet, "rollout retry rollout-3 --reason mended", capsys)
        assert said.splitlines()[0].startswith("rollout-4: ")
        assert said.splitlines()[0].endswith("; retried: jetson-02")
        assert said.splitlines()[1].endswith("this is a new one; follow it: edgewright rollout watch rollout-4")
        await until(fleet, "rollout-4", "succeeded")

    for line, code, message in (
        ("rollout show rollout-9", 2, "there is no rollout 'rollout-9'; `edgewright rollout list` shows"),
        ("rollout approve rollout-9", 2, "there is no rollout 'rollout-9'; `edgewright rollout list` shows"),
        ("rollout approve rollout-1", 1, "rollout-1 has ended"),
        ("rollout skip rollout-1 --device jetson-01", 1, "rollout-1 has ended"),
        ("rollout retry rollout-4", 1, "rollout-4"),
        ("rollout skip rollout-3", 2, "Missing option '--device'. (see edgewright rollout skip --help)"),
        ("rollout pause rollout-3 --reason " + "x" * 501, 2, "reason: 501 characters; give at most 500"),
    ):
        assert message in await refuses(fleet, line, code, capsys)
