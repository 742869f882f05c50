"""What the demo shows: live tables on a terminal, a line for each change elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edgewright_contract.v1 import agent_pb2, operator_pb2

_STYLES = {"succeeded": "green", "failed": "red", "timed_out": "red", "reverted": "yellow"}


@dataclass
class Progress:
    """The latest of each thing that one `apply` or `rollback` reported."""

    builds: dict[str, operator_pb2.BuildProgress] = field(default_factory=dict)
    devices: dict[str, operator_pb2.DeviceProgress] = field(default_factory=dict)
    rollout: operator_pb2.RolloutProgress | None = None
    result: operator_pb2.ApplyResult | None = None

    def take(self, event: operator_pb2.ApplyEvent) -> str | None:
        """Note the event; return a line for a log when it changes something that people follow."""
        match event.WhichOneof("event"):
            case "build":
                before = self.builds.get(event.build.build_key)
                self.builds[event.build.build_key] = event.build
                if before is None or before.stage != event.build.stage:
                    return f"build   {event.build.runtime:5} {event.build.quantization:8} {event.build.stage}"
            case "device":
                was = self.devices.get(event.device.device)
                self.devices[event.device.device] = event.device
                if was is None or _where(was) != _where(event.device):
                    return f"device  {event.device.device:10} {_where(event.device)}"
            case "devices":  # how all stand, as the rollout begins
                self.devices.update((one.device, one) for one in event.devices.devices)
            case "rollout":
                changed = self.rollout is None or self.rollout.state != event.rollout.state
                self.rollout = event.rollout
                if changed:
                    return f"rollout {event.rollout.state} {event.rollout.reason}".rstrip()
            case "message":
                return event.message
            case "result":
                self.result = event.result
        return None

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self.builds:
            table = Table("build", "stage", "", "artifact", box=None, padding=(0, 2, 0, 0))
            for build in self.builds.values():
                size = f"{build.artifact_bytes / 1e6:,.1f} MB" if build.artifact_bytes else ""
                bar = ProgressBar(total=1.0, completed=build.fraction, width=24)
                name = f"{build.model} {build.runtime} {build.quantization}"
                table.add_row(name, build.stage, bar, size)
            parts.append(table)
        if self.devices:
            table = Table("device", "state", "step", "", "", box=None, padding=(0, 2, 0, 0))
            for device in self.devices.values():
                status = device.status
                pulled: RenderableType = ""
                if status.total_bytes:
                    pulled = ProgressBar(total=status.total_bytes, completed=status.done_bytes, width=24)
                state = Text(device.state, style=_STYLES.get(device.state, "cyan"))
                table.add_row(device.device, state, _step(status), pulled, Text(status.reason, overflow="fold"))
            parts.append(table)
        return Group(*parts)


def _step(status: agent_pb2.DeviceStatus) -> str:
    name: str = agent_pb2.Step.Name(status.step)
    return "" if status.step == agent_pb2.STEP_UNSPECIFIED else name.removeprefix("STEP_").lower()


def _where(device: operator_pb2.DeviceProgress) -> str:
    reason = f": {device.status.reason}" if device.status.reason else ""
    return f"{device.state} {_step(device.status)}{reason}".strip()


class Screen:
    """The console, with a live view where it is a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def heading(self, text: str) -> None:
        self.console.print()
        self.console.rule(f"[bold]{text}", align="left")

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False)

    def check(self, holds: bool, text: str) -> bool:
        """Print a fact that the demo claims, and whether it held."""
        self.console.print(Text("  ✓ " if holds else "  ✗ ", style="green" if holds else "bold red"), text, sep="")
        return holds

    def follow(self, events: Iterable[operator_pb2.ApplyEvent]) -> Progress:
        """Show a job until its last event."""
        progress = Progress()
        terminal = self.console.is_terminal
        with Live(progress, console=self.console, refresh_per_second=8) if terminal else nullcontext():
            for event in events:
                line = progress.take(event)
                if line and (not terminal or event.WhichOneof("event") == "message"):
                    self.console.print(f"  {line}", highlight=False, markup=False)
        return progress
