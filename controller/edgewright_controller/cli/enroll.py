"""`edgewright enroll create`: a token with which one device may enrol once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgewright_controller.cli import reach
from edgewright_controller.cli.ending import BAD_INPUT, Ending

app = typer.Typer(help="Let devices into the fleet.", no_args_is_help=True)


@app.callback()
def group() -> None:
    """Let devices into the fleet."""


@app.command("create")
def create(
    device: Annotated[str, typer.Option("--device", help="the device's id")],
    valid_hours: Annotated[float, typer.Option("--valid-hours", help="at most 24")] = 24.0,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Print the one line to run on the device. With --json, the token and its end alone."""
    if not 0 < valid_hours <= 24:
        raise Ending(
            f"--valid-hours: {valid_hours:g}; a token is valid for more than 0 and at most 24 hours", BAD_INPUT
        )
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.create_enrolment(device, max(1, int(valid_hours * 3600)))
    if as_json:
        printing.json_line(answer)
    else:
        sys.stdout.write(f"edgewright-agent enroll --config agent.toml --token {answer.token}\n")
    return 0
