"""The devices as a test sees them: processes to start and to kill, orders to give, and what each one's disk says."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgewright_contract import durable
from edgewright_controller.client import Fleet
from edgewright_controller.demo.children import Children
from tests.simulated_fleet.device import Intervals
from tests.simulated_fleet.evidence import Disk, read_disk
from tests.simulated_fleet.mortal import Mortal
from tests.simulated_fleet.orders import OrderBook, Orders
from tests.simulated_fleet.process import UP


class SimulatedFleet:
    """Devices below `folder`, spread over `processes`; killing one of those is a power cut for each of its devices."""

    def __init__(
        self,
        children: Children,
        folder: Path,
        devices: Sequence[str],
        *,
        processes: int = 5,
        late: Sequence[str] = (),
        intervals: Intervals | None = None,
    ) -> None:
        """`late`: devices that are enrolled some other time, each with a process of its own."""
        intervals = intervals or Intervals()
        self.folder, self.devices, self.late = folder, list(devices), list(late)
        self.processes = []
        shares = [self.devices[number::processes] for number in range(min(processes, len(self.devices)))]
        for number, share in enumerate([*shares, *([one] for one in late)]):
            paces = ("--check-in-s", str(intervals.check_in_s), "--telemetry-s", str(intervals.telemetry_s))
            arguments = (str(folder), "--devices", *share, *paces)
            made = Mortal(children, f"devices-{number}", "tests.simulated_fleet.process", arguments, UP)
            self.processes.append(made)
        durable.make_folder(folder)
        self.orders = OrderBook(folder)
        self.orders.write(Orders())

    def enrol(self, fleet: Fleet, devices: Sequence[str] = ()) -> None:
        """Give each device, or some, a token: it enrols at once, or when its process starts."""
        devices = devices or self.devices
        with ThreadPoolExecutor(8) as side_by_side:
            tokens = list(side_by_side.map(lambda device: fleet.create_enrolment(device).token, devices))
        for device, token in zip(devices, tokens, strict=True):
            durable.write(self.folder / f"{device}.token", token.encode())

    def start(self) -> None:
        """Start every process."""
        for process in self.processes:
            process.start()

    def disk(self, device: str) -> Disk:
        """What a device remembers now, running or not."""
        return read_disk(self.folder / device)
