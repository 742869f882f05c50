"""`edgewright devices`: what the devices are."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_controller.cli import reach


def devices(
    devices: Annotated[list[str] | None, typer.Argument(help="devices; none: all")] = None,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show each device's hardware, runtimes and agent."""
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.status(devices or [])
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(printing.devices(answer))
    return 0
