"""`edgewright rollback`: back to the release before, with a higher generation."""

from __future__ import annotations

from typing import Annotated

import typer

from edgewright_controller.cli import completing, named, reach


def rollback(
    release: Annotated[
        str,
        typer.Argument(
            help="the release to leave, by its digest or the beginning of it; none: the change that runs, else the "
            "newest in use",
            autocompletion=completing.releases,
        ),
    ] = "",
    devices: named.OnlyDevicesFlag = None,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Return devices to the release before. The one they leave is not released again without `apply --again`."""
    from edgewright_controller.cli import following

    with reach.fleet(config, controller) as fleet:
        return following.follow(fleet.rollback(release, devices or []), as_json=as_json)
