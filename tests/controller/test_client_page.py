"""The examples of docs/client.md, run as they stand."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import io
import re
from pathlib import Path
from typing import Any

import pytest

from edgewright_contract.v1 import agent_pb2
from edgewright_controller import access_place
from edgewright_controller.client import Fleet
from tests.controller.service_rig import controller, manifest

PAGE = Path(__file__).parents[2] / "docs" / "client.md"
EXAMPLE = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n^```text\n(?P<prints>.*?)^```\n)?", re.DOTALL | re.MULTILINE)
ROOMY = agent_pb2.Inventory(os="Linux", memory_bytes=10**11, disk_free_bytes=10**11, runtimes=["gguf"])


def ran(code: str, names: dict[str, Any]) -> list[str]:
    """What the code prints, line by line."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, str(PAGE), "exec"), names)
    return out.getvalue().splitlines()


async def test_every_example_of_the_page_prints_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = ["jetson-01", "jetson-02"]
    (tmp_path / "fleet.toml").write_text(manifest(tmp_path, devices))
    monkeypatch.chdir(tmp_path)
    examples = list(EXAMPLE.finditer(PAGE.read_text()))
    assert len(examples) > 4
    names: dict[str, Any] = {}
    async with controller(tmp_path / "state") as fleet, contextlib.AsyncExitStack() as living:
        monkeypatch.setenv(access_place.CONFIG, str(fleet.running.client_toml))
        for name in devices:
            device = await fleet.enrol(name)
            await device.check_in(inventory=ROOMY)
            await living.enter_async_context(device.living())
        for example in examples:
            printed = await asyncio.to_thread(ran, example["code"], names)
            expected = (example["prints"] or "").splitlines()
            assert len(printed) == len(expected), f"{example['code']}\nprints {printed}"
            for line, pattern in zip(printed, expected, strict=True):
                assert fnmatch.fnmatchcase(line, pattern.replace("[", "[[]")), f"{line!r} is not {pattern!r}"


def test_every_call_of_the_page_is_one_of_the_clients() -> None:
    called = set(re.findall(r"fleet\.(\w+)\(", PAGE.read_text()))
    assert called
    assert called <= {name for name in vars(Fleet) if not name.startswith("_")}
