"""The devices as a test sees them: processes to start and to kill, orders to give, and what each one's disk says."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright_agent import status
from edgewright_contract import durable
from edgewright_controller.client import Fleet
from edgewright_controller.demo.children import Children
from tests.simulated_fleet.device import TRAIL, Pace, Trail
from tests.simulated_fleet.orders import OrderBook, Orders


@dataclass(frozen=True)
class Disk:
    """What a device remembers: its state (see status.read), its trail, and what its spool has given out and keeps."""

    state: Mapping[str, Any]
    trail: Sequence[Mapping[str, Any]]

    @property
    def told(self) -> int:
        """The highest sequence of a status that the controller has taken."""
        return max((line["sequence"] for line in self.trail if line["what"] == "told"), default=0)


class SimulatedFleet:
    """Devices below `folder`, spread over `processes` processes."""

    def __init__(
        self, children: Children, folder: Path, devices: Sequence[str], *, processes: int = 5, pace: Pace | None = None
    ) -> None:
        self._children, self.folder, self.devices = children, folder, list(devices)
        self._pace = pace or Pace()
        self._shares = [self.devices[number::processes] for number in range(min(processes, len(self.devices)))]
        durable.make_folder(folder)
        self.orders = OrderBook(folder)
        self.orders.write(Orders())

    @property
    def processes(self) -> list[str]:
        """Their names."""
        return [f"devices-{number}" for number in range(len(self._shares))]

    def enrol(self, fleet: Fleet) -> None:
        """Give each device a token; it enrols when its process starts."""
        with ThreadPoolExecutor(8) as side_by_side:
            tokens = side_by_side.map(lambda device: fleet.create_enrolment(device).token, self.devices)
        for device, token in zip(self.devices, tokens, strict=True):
            durable.write(self.folder / f"{device}.token", token.encode())

    def start(self) -> None:
        """Start every process."""
        for name, share in zip(self.processes, self._shares, strict=True):
            pace = ("--check-in-s", str(self._pace.check_in_s), "--telemetry-s", str(self._pace.telemetry_s))
            arguments = (str(self.folder), "--devices", *share, *pace)
            self._children.start(name, "tests.simulated_fleet.process", *arguments)

    def kill(self, process: str) -> None:
        """SIGKILL for it, and so a power cut for each of its devices."""
        self._children.named(process).kill()

    def start_again(self, process: str) -> None:
        """After a kill: the same devices on the same disks."""
        self._children.start_again(process)

    def disk(self, device: str) -> Disk:
        """What a device remembers now, running or not."""
        state = self.folder / device
        return Disk(status.read(state), Trail.read(state / TRAIL))

    def spooled(self, device: str) -> int:
        """How many reports its spool keeps, since nobody has said that they are stored."""
        with sqlite3.connect(f"file:{self.folder / device / 'spool.sqlite'}?mode=ro", uri=True) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM envelope").fetchone()[0])
