"""A mandate end to end, by the commands that an operator types: a real controller, away while its device is updated."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgewright_contract.v1 import agent_pb2
from tests.end_to_end.room import Room, wait_until

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]


def test_a_device_is_updated_from_a_stick_and_its_controller_learns_of_it_later(room: Room, tmp_path: Path) -> None:
    assert room.apply(room.manifest(quantization="Q8_0")).succeeded
    wanted = room.device().desired_release
    # Two others since: neither the ledger wants it, nor has the device its artifact any more.
    for context in (1024, 1536):
        assert room.apply(room.manifest(context=context)).succeeded
    before, mandate, state = room.device(), tmp_path / "site.mandate", room.demo.folder / "controller"
    create = ("mandate", "create", "--device", "jetson-01", "--release", wanted[:16], "--valid-days", "90")
    config = ("--config", str(state / "operator" / "client.toml"))
    made = room.edgewright(*create, "--out", str(mandate), *config)
    assert made.returncode == 0, made.stderr
    signed = room.edgewright("mandate", "sign", str(mandate), "--key", str(state / "keys/image-mandate.pem"), "--yes")
    assert signed.returncode == 0, signed.stderr
    room.kill("controller")
    done = _install(room, mandate, state / "store")
    assert done.returncode == 0, done.stderr
    assert room.answers()
    room.start_again("controller")
    wait_until(lambda: room.device().desired_generation > before.desired_generation, "the device's word in the ledger")
    after = room.device()
    assert (after.desired_release, after.status.active_release) == (wanted, wanted)
    assert after.status.outcome == agent_pb2.OUTCOME_SUCCEEDED
    # An ordinary apply goes on from there.
    assert room.apply(room.manifest()).succeeded
    assert room.device().desired_generation == after.desired_generation + 1


def _install(room: Room, mandate: Path, content: Path) -> subprocess.CompletedProcess[str]:
    config = str(room.demo.folder / "jetson-01.toml")
    command = [sys.executable, "-m", "edgewright_agent.cli", "install", "--config", config]
    command += ["--mandate", str(mandate), "--content", str(content)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
