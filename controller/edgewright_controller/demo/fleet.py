"""The demo's fleet: one controller with its broker, three agents that enrol as real devices do."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from edgewright_controller.client import Access, Fleet, read_access
from edgewright_controller.demo.children import Child, Children, accepts, free_ports, run_once

FLEET: Final = "demo"
# Shorter than the defaults, so that a person sees telemetry before losing patience.
INTERVALS: Final[Mapping[str, str]] = {"telemetry": "5s", "check_in": "15s"}


@dataclass(frozen=True)
class Device:
    """One simulated device and where it answers."""

    id: str
    runtime: str
    port: int

    @property
    def endpoint(self) -> str:
        """Where its OpenAI-compatible API starts."""
        return f"http://127.0.0.1:{self.port}/v1"


RUNTIMES: Final[Mapping[str, str]] = {"jetson-01": "gguf", "mac-01": "mlx", "npu-pc-01": "onnx"}


class DemoFleet:
    """Starts everything below `folder`. The controller's state stays between demos, so artifacts are cached; the
    devices begin anew, because the demo shows how an empty device gets its model."""

    def __init__(
        self, folder: Path, devices: Mapping[str, str] = RUNTIMES, intervals: Mapping[str, str] = INTERVALS
    ) -> None:
        """`devices`: id → runtime. `intervals`: the agents' table of that name; empty for their defaults."""
        self.folder = folder
        self._intervals = intervals
        self._runtimes = devices
        self.controller = folder / "controller"
        self.children = Children(folder / "logs")
        self.devices: Sequence[Device] = ()
        self.access: Access

    def start(self) -> None:
        """Start the controller, enrol and start the three agents. Raises DemoError."""
        shutil.rmtree(self.folder / "logs", ignore_errors=True)
        client = self._start_controller()
        ports = free_ports(len(self._runtimes))
        with Fleet(client) as fleet, ThreadPoolExecutor() as side_by_side:
            self.devices = list(side_by_side.map(partial(self._enrol, fleet), self._runtimes, ports))
        agents = {device: self._start_agent(device) for device in self.devices}
        for device, agent in agents.items():
            self.children.wait_for(agent, partial(accepts, device.port), "its endpoint")

    def stop(self) -> None:
        """End every process."""
        self.children.stop()

    def _start_controller(self) -> Access:
        grpc, enrolment, mqtt = free_ports(3)
        access_file = self.controller / "operator" / "client.toml"
        access_file.unlink(missing_ok=True)
        controller = self.children.start(
            "controller",
            "edgewright_controller.cli",
            "serve",
            *("--state", str(self.controller), "--fleet", FLEET),
            *("--listen", f"127.0.0.1:{grpc}", "--enrolment", f"127.0.0.1:{enrolment}", "--mqtt", f"127.0.0.1:{mqtt}"),
        )
        self.children.wait_for(controller, lambda: access_file.exists() and accepts(grpc), "listening")
        self.access = read_access(access_file)
        return self.access

    def _enrol(self, fleet: Fleet, device: str, port: int) -> Device:
        state = self.folder / device
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir(parents=True)
        config = self.folder / f"{device}.toml"
        intervals = "".join(f'{key} = "{value}"\n' for key, value in self._intervals.items())
        config.write_text(
            f'device = "{device}"\nstate = "{state}"\n\n'
            f'[gateway]\nlisten = "127.0.0.1:{port}"\n\n'
            f"[intervals]\n{intervals}"
        )
        token = fleet.create_enrolment(device).token
        run_once(device, "edgewright_agent.cli", "enroll", "--config", str(config), "--token", token)
        return Device(device, self._runtimes[device], port)

    def _start_agent(self, device: Device) -> Child:
        config = str(self.folder / f"{device.id}.toml")
        return self.children.start(device.id, "edgewright_agent.cli", "run", "--config", config)
