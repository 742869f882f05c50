"""Simulated devices do what real ones do, and what they are told, over a real controller and its broker."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.client import Fleet
from edgewright_controller.demo.children import Children
from tests.simulated_fleet.controller import ServedController
from tests.simulated_fleet.device import Intervals
from tests.simulated_fleet.evidence import highest_in_spool
from tests.simulated_fleet.fleet import SimulatedFleet
from tests.simulated_fleet.manifests import FLEET, Wanted
from tests.simulated_fleet.orders import Orders

DEVICES = ("dev-0", "dev-1", "dev-2", "dev-3")


@dataclass
class Room:
    """A controller, four devices in two processes, and an operator."""

    folder: Path
    devices: SimulatedFleet
    operator: Fleet
    contexts: Iterator[int] = field(default_factory=lambda: itertools.count(512, 16))

    def apply(self, *, deadline: str = "30s", **rollout: str | int) -> operator_pb2.ApplyResult:
        """Another release for all of them, to the end of its rollout."""
        rollout |= {"first_wave": '"100%"', "device_deadline": f'"{deadline}"', "max_failures": len(DEVICES)}
        text = Wanted(DEVICES, context=next(self.contexts), rollout=rollout).text(self.folder)
        *_, last = self.operator.apply(text, "fleet.toml", str(self.folder))
        return last.result

    def view(self, device: str) -> operator_pb2.DeviceView:
        """What the controller knows of it."""
        return self.operator.status([device]).devices[0]

    @property
    def online(self) -> int:
        """How many devices the controller hears."""
        return sum(view.online for view in self.operator.status().devices)

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait for it; a minute is too long."""
        deadline = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < deadline, f"in vain: {what}"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    folder = tmp_path_factory.mktemp("fleet")
    children = Children(folder / "logs")
    try:
        controller = ServedController(children, folder / "controller", FLEET)
        controller.start()
        controller.wait_until_up()
        devices = SimulatedFleet(children, folder / "devices", DEVICES, processes=2, intervals=Intervals(0.5, 0.5))
        with controller.fleet() as operator:
            devices.enrol(operator)
            devices.start()
            made = Room(folder, devices, operator)
            made.until(lambda: made.online == len(DEVICES), "every device")
            first = made.apply()
            assert first.succeeded, first.summary
            yield made
            children.check()
    finally:
        children.stop()


@pytest.fixture(autouse=True)
def _nothing_told(room: Room) -> None:
    room.devices.orders.write(Orders())


def test_an_update_goes_through_every_step_and_is_told(room: Room) -> None:
    assert room.apply().devices_succeeded == len(DEVICES)
    for device in DEVICES:
        view, disk = room.view(device), room.devices.disk(device)
        assert disk.state["active_release"] == view.desired_release == view.status.active_release
        assert disk.state["generation"] == view.desired_generation
        newest = [
            line for line in disk.trail if line["what"] == "saved" and line["generation"] == disk.state["generation"]
        ]
        steps = [line["step"] for line in newest]
        assert steps == [
            "planning",
            "downloading",
            "verifying",
            "starting",
            "proving",
            "probing",
            "switching",
            "draining",
            "idle",
        ]
    room.until(lambda: all(room.view(device).telemetry.requests == 20 for device in DEVICES), "telemetry")
    room.until(lambda: not any(highest_in_spool(room.devices.folder / device) for device in DEVICES), "every report")


def test_a_device_fails_where_it_is_told_and_keeps_what_it_had(room: Room) -> None:
    before = room.view("dev-1").status.active_release
    room.devices.orders.write(Orders(), {"dev-1": Orders(fails_at="probe")})
    assert room.apply().devices_failed == 1
    view = room.view("dev-1")
    assert view.status.error == agent_pb2.ERROR_CODE_PROBE_FAILED
    assert view.status.active_release == before
    assert list(view.status.held_releases) == [view.status.release]


def test_a_device_that_refuses_metadata_says_so(room: Room) -> None:
    room.devices.orders.write(Orders(), {"dev-2": Orders(refuses=True)})
    assert room.apply().devices_failed == 1
    assert room.view("dev-2").status.error == agent_pb2.ERROR_CODE_METADATA_REFUSED


def test_a_silent_device_is_waited_for_until_its_deadline_and_returns_to_what_is_right(room: Room) -> None:
    room.devices.orders.write(Orders(), {"dev-3": Orders(silent=True)})
    room.until(lambda: not room.devices.disk("dev-3").state["running"], "silence")
    assert room.apply(deadline="3s").devices_failed == 1
    assert room.view("dev-3").rollout_state == "timed_out"
    room.devices.orders.write(Orders())

    def settled() -> bool:
        view = room.view("dev-3")
        return view.desired_generation == view.status.generation and view.status.active_release == view.desired_release

    room.until(settled, "what the device should have")


def test_a_process_killed_in_the_middle_of_an_update_goes_on_where_its_disks_say(room: Room) -> None:
    room.devices.orders.write(Orders(holds_at="start"))
    process = room.devices.processes[0]
    held = DEVICES[::2]

    def starting() -> bool:
        return all(room.devices.disk(device).state["step"] == "starting" for device in held)

    def kill_and_go_on() -> None:
        room.until(starting, "the step at which they are held")
        process.kill()
        room.devices.orders.write(Orders())
        process.start_again()

    killing = threading.Thread(target=kill_and_go_on)
    killing.start()
    try:
        assert room.apply().devices_succeeded == len(DEVICES)
    finally:
        killing.join(90)
    for device in held:
        generations = [line["generation"] for line in room.devices.disk(device).trail if line["what"] == "saved"]
        assert generations == sorted(generations)


def test_an_active_version_that_breaks_gives_way_to_the_one_before(room: Room) -> None:
    assert room.apply().devices_succeeded == len(DEVICES)
    disk = room.devices.disk("dev-0").state
    room.devices.orders.write(Orders(), {"dev-0": Orders(breaks=disk["active_release"])})
    room.until(lambda: room.view("dev-0").status.active_release == disk["previous_release"], "the fall-back")
    assert room.view("dev-0").status.outcome == agent_pb2.OUTCOME_FAILED
