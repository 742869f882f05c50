"""`edgewright rollout watch`: one rollout, live, until it ends. Leaving leaves it running."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_controller.cli import completing, reach


def watch(
    rollout: Annotated[
        str,
        typer.Argument(
            help="the rollout; none: the one that runs, else the newest", autocompletion=completing.rollouts
        ),
    ] = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Watch a rollout until it ends: a cell for each device, what it waits for, what failed and why. Ctrl-C leaves; the
    rollout goes on. The exit code is that of `apply`."""
    from edgewright_controller.cli import following

    with reach.fleet(config, controller) as fleet:
        return following.follow(fleet.watch(rollout), as_json=as_json, rollout=rollout)
