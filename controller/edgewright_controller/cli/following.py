"""Watching a change until it ends: a live view on a terminal, lines elsewhere, JSON lines for scripts."""

from __future__ import annotations

import time
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import printing, rollout_lines, rollout_view
from edgewright_controller.cli.ending import FAILED, INTERRUPTED, Ending
from edgewright_controller.cli.rollout_picture import Picture

_STYLES = {"done": "green", "cached": "green", "failed": "red", "refused": "red"}


def follow(events: Iterator[operator_pb2.ApplyEvent], *, as_json: bool, rollout: str = "") -> int:
    """Show the events until the result; the exit code: 0 when all devices are where they should be.

    `rollout` is what is watched, where that is known before the first event. Raises Ending when the operator leaves,
    and when the events end without a result.
    """
    console, view = printing.out(), View(rollout)
    try:
        if as_json:
            _json(events, view)
        elif console.is_terminal:
            _live(events, view, console)
        else:
            _lines(events, view, console)
    except KeyboardInterrupt:
        raise Ending(_left(view), INTERRUPTED) from None
    result = view.picture.result
    if result is None:
        raise Ending("the controller ended before the change did; it goes on when the controller is back", FAILED)
    return 0 if result.succeeded else FAILED


def _left(view: View) -> str:
    name = view.picture.rollout.rollout or view.rollout
    if not name:
        return "left; the change goes on at the controller, and the same command again follows it"
    return (
        f"left; {name} goes on at the controller: `edgewright rollout watch {name}` shows it again, "
        f"`edgewright rollout pause {name}` holds it up"
    )


class View:
    """The newest of each build, and the rollout, as one picture that is redrawn. Times are of time.monotonic."""

    def __init__(self, rollout: str = "") -> None:
        self.rollout = rollout
        self.builds: dict[str, operator_pb2.BuildProgress] = {}
        self.picture = Picture()

    def take(self, event: operator_pb2.ApplyEvent, now: float) -> None:
        """Remember what the event says."""
        if event.HasField("build"):
            self.builds[event.build.build_key] = event.build
        self.picture.take(event, now)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        builds = self._builds()
        if builds is not None:
            yield builds
        if self.picture.rollout.rollout or self.picture.devices:
            # The last line of the terminal stays free, or it scrolls.
            height = max(1, console.size.height - 1 - len(self.builds))
            size = rollout_view.Size(options.max_width, height, plain=not _draws(console))
            yield from rollout_view.frame(self.picture, size, time.monotonic())

    def _builds(self) -> RenderableType | None:
        if not self.builds:
            return None
        table = Table.grid(padding=(0, 2))
        for build in self.builds.values():
            ended = build.stage in ("done", "cached")
            extent = printing.size(build.artifact_bytes) if build.artifact_bytes else ""
            table.add_row(
                f"{build.model} {build.runtime} {build.quantization}",
                Text(build.stage, _STYLES.get(build.stage, "yellow")),
                ProgressBar(total=1.0, completed=1.0 if ended else build.fraction, width=24),
                ", ".join(part for part in (extent, build.detail[:60]) if part),
            )
        return table


def _draws(console: Console) -> bool:
    return console.encoding.lower().startswith("utf")


def _json(events: Iterator[operator_pb2.ApplyEvent], view: View) -> None:
    for event in events:
        view.take(event, time.monotonic())
        printing.json_line(event)


def _live(events: Iterator[operator_pb2.ApplyEvent], view: View, console: Console) -> None:
    with Live(view, console=console, refresh_per_second=4) as live:
        for event in events:
            view.take(event, time.monotonic())
            if event.HasField("plan"):
                live.console.print(printing.plan(event.plan))
            elif event.HasField("search"):
                live.console.print(printing.search(event.search))
            elif event.message:
                live.console.print(Text(event.message))
    if (result := view.picture.result) is not None:
        console.print(Text(result.summary, "green" if result.succeeded else "bold red"))


def _lines(events: Iterator[operator_pb2.ApplyEvent], view: View, console: Console) -> None:
    told = rollout_lines.Told()
    for event in events:
        view.take(event, time.monotonic())
        for line in rollout_lines.lines(event, told):
            console.print(Text(line))
        if event.HasField("plan"):
            console.print(printing.plan(event.plan))
        elif event.HasField("search"):
            console.print(printing.search(event.search))
