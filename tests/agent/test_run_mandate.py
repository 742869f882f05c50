"""Mandates brought by hand to a real agent, with no controller to ask, and what it then tells one that comes back."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from edgewright_contract.release import Probe
from edgewright_contract.v1 import agent_pb2
from tests.agent.small_controller import SmallController
from tests.agent.test_run import COMMAND, AgentProcess


def _file(folder: Path, document: bytes) -> str:
    path = folder / "for-jetson.mandate"
    path.write_bytes(document)
    return str(path)


def _status(agent: AgentProcess) -> dict[str, object]:
    read: dict[str, object] = json.loads(agent.command("status", "--json").stdout)
    return read


def test_a_device_without_a_network_is_updated_from_a_stick(
    tmp_path: Path, agent: AgentProcess, controller: SmallController
) -> None:
    second = controller.release("two", prefix="v2 ", size=3 << 20)
    file, stick = _file(tmp_path, controller.mandate(2, second)), controller.content(tmp_path / "stick", second)
    controller.stop()
    done = agent.command("install", "--mandate", file, "--content", str(stick))
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert said[0] == f"accepted: generation 2, release {second[0].digest[:12]}"
    assert said[-1] == f"release {second[0].digest[:12]} serves"
    assert agent.ask() == "v2 hello there"
    # The stick is pulled, the power goes: it serves on from its own disk, and knows why.
    shutil.rmtree(stick)
    agent.end(signal.SIGKILL)
    agent.start()
    assert agent.ask() == "v2 hello there"
    assert _status(agent)["generation"] == 2
    until = f"{datetime.now(timezone.utc) + timedelta(days=90):%Y-%m-%d}"
    assert _status(agent)["mandate_until"] == until
    assert f"mandate:   until {until}" in agent.command("status").stdout
    again = agent.command("install", "--mandate", file)
    assert again.returncode == 0, again.stderr


def test_an_agent_that_does_not_run_installs_it_when_it_starts(
    tmp_path: Path, agent: AgentProcess, controller: SmallController
) -> None:
    second = controller.release("two", prefix="v2 ")
    file, stick = _file(tmp_path, controller.mandate(2, second)), controller.content(tmp_path / "stick", second)
    controller.stop()
    agent.end()
    done = agent.command("install", "--mandate", file, "--content", str(stick))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("the agent installs it when it starts\n")
    agent.start()
    # Followed by bringing it once more.
    done = agent.command("install", "--mandate", file, "--content", str(stick))
    assert done.returncode == 0, done.stderr
    assert agent.ask() == "v2 hello there"


def test_an_artifact_that_is_on_the_disk_needs_no_stick(
    tmp_path: Path, agent: AgentProcess, controller: SmallController
) -> None:
    second = controller.release("two", prefix="v2 ")
    controller.want(2, second)
    controller.ended(2)
    back = controller.release("one", prefix="v1 ")
    file = _file(tmp_path, controller.mandate(3, back))
    controller.stop()
    done = agent.command("install", "--mandate", file)
    assert done.returncode == 0, done.stderr
    assert agent.ask() == "v1 hello there"


def test_a_controller_that_comes_back_goes_on_above_the_mandate(
    tmp_path: Path, agent: AgentProcess, controller: SmallController
) -> None:
    second, third = controller.release("two", prefix="v2 "), controller.release("three", prefix="v3 ")
    file, stick = _file(tmp_path, controller.mandate(5, second)), controller.content(tmp_path / "stick", second)
    controller.away = True
    assert agent.command("install", "--mandate", file, "--content", str(stick)).returncode == 0
    controller.want(4, third)  # made before the mandate's number was known
    controller.away = False
    status = controller.until(lambda status: status.generation == 5)
    assert (status.outcome, status.active_release) == (agent_pb2.OUTCOME_SUCCEEDED, second[0].digest)
    assert agent.ask() == "v2 hello there"
    controller.want(6, third)
    assert controller.ended(6).active_release == third[0].digest
    assert agent.ask() == "v3 hello there"


@pytest.mark.attack("mandates of many bad kinds on a running device")
def test_what_is_not_for_this_device_is_refused_in_one_line_and_the_device_serves_on(
    tmp_path: Path, agent: AgentProcess, controller: SmallController
) -> None:
    second = controller.release("two", prefix="v2 ")
    stick = controller.content(tmp_path / "stick", second)
    good, theirs = controller.mandate(3, second), controller.mandate(3, second, device="jetson-02")
    older = controller.mandate(2, second)
    controller.stop()
    broken = good[:900] + bytes([good[900] ^ 1]) + good[901:]
    for running in (True, False):
        for document, said in ((theirs, "for 'jetson-02'"), (broken, "refused"), (b"rubbish", "not a mandate")):
            done = agent.command("install", "--mandate", _file(tmp_path, document), "--content", str(stick))
            assert (done.returncode, said in done.stderr, done.stdout) == (1, True, ""), done
            assert len(done.stderr.splitlines()) == 1
        if running:
            assert agent.ask() == "v1 hello there"
            agent.end()
    agent.start()
    assert agent.ask() == "v1 hello there"
    assert agent.command("install", "--mandate", _file(tmp_path, good), "--content", str(stick)).returncode == 0
    replayed = agent.command("install", "--mandate", _file(tmp_path, older))
    assert (replayed.returncode, "generation 2 after 3" in replayed.stderr) == (1, True)
    assert agent.ask() == "v2 hello there"
    assert list((agent.state / "mandates").glob("*.*")) == []


@pytest.mark.attack("stick with damaged content")
def test_damaged_content_is_neither_served_nor_a_reason_to_hold_the_release(
    tmp_path: Path, agent: AgentProcess, controller: SmallController
) -> None:
    second = controller.release("two", prefix="v2 ")
    file, stick = _file(tmp_path, controller.mandate(2, second)), controller.content(tmp_path / "stick", second)
    weights = stick / "artifacts" / second[1].bundle / "model.gguf"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"?")
    controller.stop()
    command = [*COMMAND, "install", "--config", str(agent.config), "--mandate", file, "--content", str(stick)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as installing:
        assert installing.stdout is not None
        assert any(line == "downloading\n" for line in installing.stdout)
        assert agent.ask() == "v1 hello there"
        assert _status(agent)["held_releases"] == []
        weights.write_bytes(whole)
        assert installing.wait(120) == 0
    assert agent.ask() == "v2 hello there"


@pytest.mark.attack("mandate for a release that failed here")
def test_a_stick_does_not_bring_back_what_failed_here(
    tmp_path: Path, agent: AgentProcess, controller: SmallController
) -> None:
    bad = controller.release("bad", Probe("impossible", "hello", expect="goodbye"), prefix="v2 ")
    good = controller.release("good", prefix="v3 ")
    controller.want(2, bad)
    assert controller.ended(2).outcome == agent_pb2.OUTCOME_FAILED
    file, stick = _file(tmp_path, controller.mandate(3, bad)), controller.content(tmp_path / "stick", bad)
    better, other = controller.mandate(4, good), controller.content(tmp_path / "other", good)
    controller.stop()
    done = agent.command("install", "--mandate", file, "--content", str(stick))
    assert (done.returncode, "held" in done.stderr) == (1, True), done
    assert agent.ask() == "v1 hello there"
    done = agent.command("install", "--mandate", _file(tmp_path, better), "--content", str(other))
    assert done.returncode == 0, done.stderr
    assert agent.ask() == "v3 hello there"
