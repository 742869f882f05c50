"""Agent, engine, controller and broker are killed at bad moments; the device serves the last good version."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.client import Fleet
from tests.end_to_end.room import Room, wait_until

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]


def test_an_apply_without_a_change_starts_no_child_process(room: Room) -> None:
    assert room.apply(room.manifest()).succeeded
    controller = room.controller()
    children, faults = controller.children(), ended_children_faults(controller.pid)
    result = room.apply(room.manifest())
    assert result.succeeded
    assert result.builds_made == 0
    assert controller.children() == children
    assert ended_children_faults(controller.pid) == faults


def ended_children_faults(pid: int) -> int:
    """Minor page faults of all children that this process has waited for: it rises with each, however short-lived."""
    # proc(5), /proc/pid/stat: cminflt is field 11; the command in field 2 may hold blanks, so count from its end.
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[8])


def runs(process: psutil.Process) -> bool:
    """Whether it has not ended, as far as anybody but its parent can tell."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_killed_engine_comes_back_and_no_request_is_lost(room: Room) -> None:
    assert room.answers()
    engine = room.engine()
    engine.send_signal(signal.SIGKILL)
    assert room.answers(), "the very next request waits for the new engine"
    assert room.engine().pid != engine.pid


def test_a_killed_agent_takes_its_engine_along_and_a_new_one_serves_at_once(room: Room) -> None:
    engine, before = room.engine(), room.device().status
    active = before.active_release
    room.kill("jetson-01")
    wait_until(lambda: not runs(engine), "the end of the engine")
    room.start_again("jetson-01")
    wait_until(room.answers, "an answer after the agent was killed")
    wait_until(lambda: room.device().status.started_unix_ms > before.started_unix_ms, "the new agent's check-in")
    assert room.device().online
    assert room.device().status.active_release == active


def test_an_agent_killed_at_random_moments_of_an_update_ends_with_the_new_version(room: Room, soak: int) -> None:
    chance = random.Random(4)
    for number in range(3 * soak):
        results: list[bool] = []
        manifest = room.manifest(context=512 + 16 * number)

        def update(manifest: str = manifest, results: list[bool] = results) -> None:
            results.append(room.apply(manifest).succeeded)

        applying = threading.Thread(target=update)
        applying.start()
        time.sleep(chance.uniform(0.0, 4.0))  # the moment is what this test varies
        room.kill("jetson-01")
        room.start_again("jetson-01")
        wait_until(room.answers, "an answer after the kill")
        applying.join(240)
        assert results == [True], f"update {number}: the rollout did not end well: {room.device()}"
        status = room.device().status
        assert status.active_release == room.device().desired_release
        assert status.outcome == agent_pb2.OUTCOME_SUCCEEDED


def test_a_controller_killed_in_the_middle_of_a_rollout_ends_it_after_its_restart(room: Room) -> None:
    def apply_and_lose_the_controller() -> None:
        try:
            room.apply(room.manifest(context=1536))
        except Exception as error:
            said.append(str(error))

    said: list[str] = []
    applying = threading.Thread(target=apply_and_lose_the_controller)
    applying.start()
    wait_until(lambda: room.device().rollout_state in ("offered", "updating"), "the rollout's first report")
    room.kill("controller")
    applying.join(60)
    assert room.answers(), "a device needs no controller to serve"
    room.start_again("controller")
    room.fleet = Fleet(room.demo.access)

    def ended() -> bool:
        view = room.device()
        return view.status.active_release == view.desired_release and view.rollout_state == "succeeded"

    wait_until(ended, "the end of the rollout after the restart", 120)
    assert said, "the client must be told that its controller is gone"


def the_broker(room: Room) -> psutil.Process | None:
    """The controller's mosquitto that runs."""
    for child in room.controller().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if "mosquitto" in child.name() and runs(child):
                return child
    return None


def test_reports_made_without_a_broker_are_delivered_later(room: Room) -> None:
    before = room.fleet.status().telemetry_stored
    broker = the_broker(room)
    assert broker is not None
    broker.send_signal(signal.SIGKILL)
    assert room.answers()
    wait_until(lambda: the_broker(room) not in (None, broker), "another broker's process", 60)
    wait_until(lambda: room.fleet.status().broker_connected, "the broker's restart", 60)
    wait_until(lambda: room.fleet.status().telemetry_stored > before + 2, "telemetry after the broker's death", 60)


def test_a_second_controller_on_the_same_state_is_refused(room: Room) -> None:
    done = room.edgewright("serve", "--state", str(room.demo.controller), "--listen", "127.0.0.1:0")
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    assert str(room.controller().pid) in done.stderr


def test_an_accelerator_that_is_not_there_is_a_failed_activation(room: Room) -> None:
    # The device may claim cuda in its configuration; only the engine's own account counts.
    good = room.device().status.active_release
    result = room.apply(room.manifest(accelerator="cuda"))
    assert not result.succeeded
    view = room.device()
    assert view.status.active_release == good
    assert room.answers()
    assert "cuda" in view.status.reason


def test_a_file_damaged_on_the_device_is_not_loaded_again(room: Room) -> None:
    assert room.apply(room.manifest()).succeeded
    active = room.device().status.active_artifact
    artifact = Path(room.demo.folder, "jetson-01", "artifacts", active, "model.gguf")
    room.kill("jetson-01")
    artifact.chmod(0o644)
    with artifact.open("r+b") as file:
        file.seek(artifact.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    room.start_again("jetson-01")
    # The controller still wants this release, so the device must fetch it anew rather than serve the damage.
    wait_until(room.answers, "an answer from a mended artifact", 120)
    with artifact.open("rb") as file:
        file.seek(artifact.stat().st_size // 2)
        assert file.read(1)[0] == byte
