"""What an end-to-end test does with a fleet: apply manifests, ask the device, kill processes, wait with a deadline."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.client import Fleet
from edgewright_controller.demo import traffic
from edgewright_controller.demo.children import accepts
from edgewright_controller.demo.fleet import DemoFleet

T = TypeVar("T")

MANIFEST = """
[fleet]
name = "demo"

[models.smollm2]
source = "{source}"

[profiles.jetson]
runtime = "gguf"
quantization = "{quantization}"
accelerator = "{accelerator}"
memory = "2GB"
options = {{ context = {context}, threads = 1 }}

[devices.jetson-01]
profile = "jetson"

[groups.everyone]
model = "smollm2"
devices = ["jetson-01"]
probes = ["speaks"]

[probes.speaks]
prompt = "What is the capital of France?"
{expectation}
max_tokens = 8
timeout = "60s"

[rollout]
first_wave = "100%"
device_deadline = "{deadline}"
"""


def wait_until(holds: Callable[[], T], what: str, timeout_s: float = 60.0) -> T:
    """The first true value of `holds`; AssertionError naming `what` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while not (value := holds()):
        assert time.monotonic() < deadline, f"{what} did not come in {timeout_s:.0f} s"
        time.sleep(0.1)
    return value


class Room:
    """One fleet of one device."""

    def __init__(self, demo: DemoFleet, fleet: Fleet, source: Path) -> None:
        self.demo, self.fleet, self.source = demo, fleet, source

    @property
    def endpoint(self) -> str:
        return self.demo.devices[0].endpoint

    def manifest(
        self,
        *,
        context: int = 1024,
        expectation: str = 'expect_regex = "[A-Za-z]{2,}"',
        quantization: str = "Q4_K_M",
        accelerator: str = "cpu",
        deadline: str = "3m",
    ) -> str:
        """A manifest of one device. Another context is another release of the same artifact."""
        return MANIFEST.format(
            source=self.source,
            context=context,
            expectation=expectation,
            quantization=quantization,
            accelerator=accelerator,
            deadline=deadline,
        )

    def apply(self, manifest: str, *, again: bool = True) -> operator_pb2.ApplyResult:
        """Apply to the end."""
        *_, last = self.fleet.apply(manifest, "test.toml", str(self.source.parent), again=again)
        assert last.WhichOneof("event") == "result", last
        return last.result

    def device(self) -> operator_pb2.DeviceView:
        """The device as the controller sees it."""
        return self.fleet.status().devices[0]

    def answers(self) -> bool:
        """Whether the device answers a question right now."""
        try:
            return bool(traffic.ask(self.endpoint, "smollm2", "Name a colour.", max_tokens=4).text)
        except traffic.AnswerError:
            return False

    def kill(self, name: str) -> None:
        """SIGKILL for "controller" or a device's agent."""
        self.demo.children.named(name).kill()

    def start_again(self, name: str) -> None:
        """Start it again and wait until it listens, as systemd would."""
        child = self.demo.children.start_again(name)
        address = self.demo.access.address if name == "controller" else self.endpoint.removesuffix("/v1")
        port = int(address.rpartition(":")[2])
        self.demo.children.wait_for(child, lambda: accepts(port), "listening again")

    def edgewright(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """An operator's command, to its end."""
        command = [sys.executable, "-m", "edgewright_controller.cli", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def controller(self) -> psutil.Process:
        """The controller's process."""
        return psutil.Process(self.demo.children.named("controller").pid)

    def agent(self) -> psutil.Process:
        """The agent's process."""
        return psutil.Process(self.demo.children.named("jetson-01").pid)

    def engine(self) -> psutil.Process:
        """The child of the agent that serves."""
        return self.agent().children()[0]
