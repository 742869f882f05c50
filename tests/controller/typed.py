"""Commands as an operator types them, against a controller that runs in this process."""

from __future__ import annotations

import asyncio

import pytest

from edgewright_controller.cli import run
from tests.controller.service_rig import Controller


async def typed(fleet: Controller, line: str) -> int:
    """Type a command; its exit code."""
    return await asyncio.to_thread(run, [*line.split(), "--config", str(fleet.running.client_toml)])


async def shows(fleet: Controller, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that succeeds prints."""
    capsys.readouterr()
    code = await typed(fleet, line)
    said = capsys.readouterr()
    assert (code, said.err) == (0, ""), f"{line}: {said.err}"
    return said.out


async def refuses(fleet: Controller, line: str, code: int, capsys: pytest.CaptureFixture[str]) -> str:
    """What a command says that ends with this exit code: one line on standard error."""
    capsys.readouterr()
    assert await typed(fleet, line) == code, line
    (said,) = capsys.readouterr().err.splitlines()
    return said.removeprefix("edgewright: ")
