"""`edgewright history`: who changed what, why, when, and how it ended."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_controller.cli import completing, reach


def history(
    *,
    device: Annotated[
        str,
        typer.Option(
            "--device", help="only what touched it, with what it was to have", autocompletion=completing.devices
        ),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="at most so many")] = 30,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show what was changed in the fleet, the newest first. `edgewright audit` has every entry, with its hash."""
    from edgewright_controller.cli import history_page, printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.history(limit, device)
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(history_page.listed(answer))
    return 0
