"""`edgewright status`: the fleet in one table."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_controller.cli import named, reach


def status(
    devices: named.DevicesArgument = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="at most so many devices; 0: all")] = 0,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show what each device serves, what it should serve, and why they differ."""
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.status(devices or [], limit)
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(printing.status(answer))
    return 0
