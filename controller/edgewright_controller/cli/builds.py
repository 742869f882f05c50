"""`edgewright builds`: what became of each build, and the end of its log."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgewright_controller.cli import completing, reach

app = typer.Typer(help="List builds, and show their logs.", no_args_is_help=True)

BuildArgument = Annotated[
    str, typer.Argument(help="the build, by its key or the beginning of it", autocompletion=completing.builds)
]


@app.command("list")
def list_(
    *,
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="at most so many")] = 20,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show builds, the newest first: whether they gave an artifact, how long they took, and why they failed."""
    from edgewright_controller.cli import build_pages, printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.builds(limit)
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(build_pages.listed(answer))
    return 0


@app.command("log")
def log(
    build: BuildArgument,
    *,
    lines: Annotated[int, typer.Option("--lines", min=1, max=1000, help="the last so many")] = 100,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Print the last lines of a build's log."""
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.build_log(build, lines)
    if as_json:
        printing.json_line(answer)
    else:
        # What toolchains print is not ours: nothing in it may steer a terminal.
        for line in answer.lines:
            sys.stdout.write("".join(sign for sign in line if sign.isprintable() or sign == "\t") + "\n")
    return 0
