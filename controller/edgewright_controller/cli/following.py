"""Watching a change until it ends: a live view on a terminal, lines elsewhere, JSON lines for scripts."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import printing
from edgewright_controller.cli.ending import FAILED, INTERRUPTED, Ending

_STYLES = {"succeeded": "green", "done": "green", "cached": "green", "failed": "red", "timed_out": "red"}


def follow(events: Iterator[operator_pb2.ApplyEvent], *, as_json: bool) -> int:
    """Show the events until the result; the exit code: 0 when all devices are where they should be."""
    console = printing.out()
    try:
        if as_json:
            result = _json(events)
        else:
            result = _live(events, console) if console.is_terminal else _lines(events, console)
    except KeyboardInterrupt:
        raise Ending(
            "left; the change goes on at the controller, and the same command again follows it", INTERRUPTED
        ) from None
    if result is None:
        raise Ending("the controller ended before the change did; it goes on when the controller is back", FAILED)
    return 0 if result.succeeded else FAILED


class View:
    """The newest event of each build and device, as one picture that is redrawn."""

    def __init__(self) -> None:
        self.builds: dict[str, operator_pb2.BuildProgress] = {}
        self.devices: dict[str, operator_pb2.DeviceProgress] = {}
        self.rollout: operator_pb2.RolloutProgress | None = None

    def take(self, event: operator_pb2.ApplyEvent) -> None:
        """Remember what the event says."""
        kind = event.WhichOneof("event")
        if kind == "build":
            self.builds[event.build.build_key] = event.build
        elif kind == "device":
            self.devices[event.device.device] = event.device
        elif kind == "rollout":
            self.rollout = event.rollout

    def __rich__(self) -> RenderableType:
        parts: list[RenderableType] = []
        if self.builds:
            parts.append(self._builds())
        if self.rollout is not None:
            parts.append(Text(_rollout(self.rollout), "bold"))
        if self.devices:
            parts.append(self._devices())
        return Group(*parts)

    def _builds(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for build in self.builds.values():
            ended = build.stage in ("done", "cached")
            table.add_row(
                f"{build.model} {build.runtime} {build.quantization}",
                Text(build.stage, _STYLES.get(build.stage, "yellow")),
                ProgressBar(total=1.0, completed=1.0 if ended else build.fraction, width=24),
                printing.size(build.artifact_bytes) if build.artifact_bytes else build.detail[:60],
            )
        return table

    def _devices(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for device in self.devices.values():
            status = device.status
            fraction = status.done_bytes / status.total_bytes if status.total_bytes else 0.0
            ended = device.state in _STYLES
            table.add_row(
                device.device,
                Text(device.state, _STYLES.get(device.state, "yellow")),
                "" if ended else printing.standing(status),
                "" if ended else ProgressBar(total=1.0, completed=fraction, width=24),
                status.reason,
            )
        return table


def _json(events: Iterator[operator_pb2.ApplyEvent]) -> operator_pb2.ApplyResult | None:
    result = None
    for event in events:
        printing.json_line(event)
        result = event.result if event.HasField("result") else result
    return result


def _live(events: Iterator[operator_pb2.ApplyEvent], console: Console) -> operator_pb2.ApplyResult | None:
    view, result = View(), None
    with Live(view, console=console, refresh_per_second=8) as live:
        for event in events:
            view.take(event)
            if event.HasField("result"):
                result = event.result
            elif event.HasField("plan"):
                live.console.print(printing.plan(event.plan))
            elif event.message:
                live.console.print(Text(event.message))
    if result is not None:
        console.print(Text(result.summary, "green" if result.succeeded else "bold red"))
    return result


def _lines(events: Iterator[operator_pb2.ApplyEvent], console: Console) -> operator_pb2.ApplyResult | None:
    last: dict[str, str] = {}
    result = None
    for event in events:
        for key, line in _line(event):
            if last.get(key) != line:
                last[key] = line
                console.print(Text(line))
        if event.HasField("plan"):
            console.print(printing.plan(event.plan))
        result = event.result if event.HasField("result") else result
    return result


def _line(event: operator_pb2.ApplyEvent) -> list[tuple[str, str]]:
    """(what it is about, the line). A line that says the same as the one before is not printed again."""
    kind = event.WhichOneof("event")
    if kind == "build":
        build = event.build
        extent = f", {printing.size(build.artifact_bytes)}" if build.artifact_bytes else ""
        return [(build.build_key, f"build {build.model} {build.runtime} {build.quantization}: {build.stage}{extent}")]
    if kind == "device":
        device = event.device
        step = printing.standing(device.status).split(" ")[0]
        reason = f": {device.status.reason}" if device.status.reason else ""
        shown = "" if step in ("–", device.state, "succeeded") else f" ({step})"
        return [(f"device {device.device}", f"{device.device}: {device.state}{shown}{reason}")]
    if kind == "rollout":
        return [("rollout", _rollout(event.rollout))]
    if kind == "message":
        return [("", event.message)]
    if kind == "result":
        return [("result", event.result.summary)]
    return []


def _rollout(rollout: operator_pb2.RolloutProgress) -> str:
    wave = f"wave {rollout.wave} of {rollout.waves}"
    line = f"{rollout.rollout}: {rollout.state}, {wave}"
    return f"{line}. {rollout.reason}" if rollout.reason not in ("", wave) else line
