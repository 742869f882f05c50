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
    *,
    devices: named.OnlyDevicesFlag = None,
    groups: Annotated[
        list[str] | None,
        typer.Option("--group", help="only this group of the manifest applied last; may be repeated"),
    ] = None,
    to: Annotated[
        int | None, typer.Option("--to", min=1, help="with one --device: back to what it had by this generation")
    ] = None,
    reason: named.ReasonFlag = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Return devices to the release before, all at once: waves, windows and limits do not apply.

    The one they leave is not released again without `apply --again`: nowhere, or, with --device or --group, just there.
    """
    from edgewright_controller.cli import following

    with reach.fleet(config, controller) as fleet:
        events = fleet.rollback(release, devices or [], groups=groups or [], generation=to or 0, reason=reason)
        return following.follow(events, as_json=as_json)
