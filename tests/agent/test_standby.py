"""An agent that cannot open its state serves what it served last, and goes on as soon as it can."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from edgewright_agent import last_served
from edgewright_contract.release import Probe, Release
from edgewright_contract.v1 import agent_pb2
from tests.agent.small_controller import SmallController
from tests.agent.test_run import AgentProcess

RELEASE = Release("m", "p", "gguf", "a" * 64, "cpu", 1 << 28, {"context": 1024}, (Probe("hi", "Hello", expect="ü"),))


def test_what_serves_is_noted_and_forgotten(tmp_path: Path) -> None:
    assert last_served.read(tmp_path) is None
    last_served.note(tmp_path, RELEASE)
    assert last_served.read(tmp_path) == RELEASE
    written = (tmp_path / last_served.FILE).stat().st_mtime_ns
    last_served.note(tmp_path, RELEASE)
    assert (tmp_path / last_served.FILE).stat().st_mtime_ns == written
    last_served.note(tmp_path, None)
    assert last_served.read(tmp_path) is None


def test_a_note_that_is_not_as_it_was_written_is_none(tmp_path: Path) -> None:
    last_served.note(tmp_path, RELEASE)
    path = tmp_path / last_served.FILE
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        assert last_served.read(tmp_path) in (None, RELEASE)
        path.write_bytes(whole[:place])
        assert last_served.read(tmp_path) is None
    path.write_bytes(whole)
    assert last_served.read(tmp_path) == RELEASE


def test_a_device_with_a_damaged_database_serves_and_goes_on_when_it_has_it_back(tmp_path: Path) -> None:
    controller, agent = SmallController(tmp_path / "controller"), AgentProcess(tmp_path / "device")
    try:
        assert agent.command("enroll", "--token", controller.token()).returncode == 0
        agent.start()
        first = controller.release("one", prefix="v1 ")
        controller.want(1, first)
        assert controller.ended(1).outcome == agent_pb2.OUTCOME_SUCCEEDED
        agent.end()
        database = agent.state / "agent.sqlite"
        whole = database.read_bytes()
        database.write_bytes(whole[:100] + bytes(len(whole) - 100))
        controller.want(2, controller.release("two", prefix="v2 "))
        assert agent.start().endswith(f"serves {first[0].digest[:12]}\n")
        assert agent.ask() == "v1 hello there"
        (engine,) = psutil.Process(agent.pid).children()
        said = agent.log.read_text()
        assert "move the file away and enrol the device again. Until then this device serves" in said
        assert agent.ask() == "v1 hello there"
        since = controller.heard
        database.write_bytes(whole)
        controller.until(lambda status: status.active_release == first[0].digest, since)
        assert controller.ended(2).outcome == agent_pb2.OUTCOME_SUCCEEDED
        assert agent.ask() == "v2 hello there"
        assert "v1" not in agent.ask()
        assert not engine.is_running()
        assert agent.log.read_text().count("engine echo_engine answers") == 3, "the engine that stood by was kept"
        # Nothing to serve: as before, one line.
        agent.end()
        database.write_bytes(whole[:100] + bytes(len(whole) - 100))
        (agent.state / last_served.FILE).unlink()
        done = agent.command("run")
        assert (done.returncode, "enrol the device again" in done.stderr) == (1, True)
        assert "Traceback" not in agent.log.read_text() + done.stderr
    finally:
        agent.end(signal.SIGKILL)
        controller.stop()


@pytest.mark.parametrize("damage", ["model", "note"])
def test_it_does_not_serve_what_is_damaged_itself(tmp_path: Path, damage: str) -> None:
    controller, agent = SmallController(tmp_path / "controller"), AgentProcess(tmp_path / "device")
    try:
        assert agent.command("enroll", "--token", controller.token()).returncode == 0
        agent.start()
        first = controller.release("one", prefix="v1 ")
        controller.want(1, first)
        assert controller.ended(1).outcome == agent_pb2.OUTCOME_SUCCEEDED
        agent.end()
        (agent.state / "agent.sqlite").write_bytes(b"rubbish" * 1000)
        damaged = agent.state / (
            "artifacts/" + first[1].bundle + "/model.gguf" if damage == "model" else last_served.FILE
        )
        damaged.chmod(0o644)
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
        done = agent.command("run")
        assert (done.returncode, "enrol the device again" in done.stderr) == (1, True)
    finally:
        agent.end(signal.SIGKILL)
        controller.stop()
