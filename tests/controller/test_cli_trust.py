"""The commands of trust, as an operator types them, against a controller that runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgewright_controller.cli import run
from tests.controller.service_rig import Controller, controller


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


async def typed(fleet: Controller, line: str) -> int:
    """Type a command; its exit code."""
    return await asyncio.to_thread(run, [*line.split(), "--config", str(fleet.running.client_toml)])


async def test_a_device_is_revoked_and_shown_as_such(fleet: Controller, capsys: pytest.CaptureFixture[str]) -> None:
    await fleet.enrol("jetson-01")
    assert await typed(fleet, "revoke device jetson-01 --reason stolen") == 0
    assert capsys.readouterr().out == (
        "device jetson-01: 1 certificate revoked\nto let it in again: edgewright enroll create --device jetson-01\n"
    )
    assert await typed(fleet, "status") == 0
    shown = capsys.readouterr().out
    assert "revoked" in shown
    assert "jetson-01: its certificates are revoked; to let it in again: edgewright enroll create" in shown
    assert await typed(fleet, "devices --json") == 0
    assert json.loads(capsys.readouterr().out)["devices"][0]["revoked"] is True


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("revoke device nobody", "device nobody has no certificate that could be revoked; `edgewright devices` lists"),
        ("revoke operator admin", "operator admin is you; let another administrator do that"),
        ("revoke device jetson-01 --reason " + "x" * 501, "reason: 501 characters; give at most 500"),
    ],
)
async def test_what_cannot_be_revoked_is_said_in_one_line(
    fleet: Controller, capsys: pytest.CaptureFixture[str], line: str, message: str
) -> None:
    assert await typed(fleet, line) != 0
    error = capsys.readouterr().err
    assert error.startswith(f"edgewright: {message}")
    assert error.count("\n") == 1
