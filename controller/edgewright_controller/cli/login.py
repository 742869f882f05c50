"""`edgewright login` and `edgewright whoami`: this machine's own key and certificate."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from edgewright_controller import access_place
from edgewright_controller.cli import reach
from edgewright_controller.cli.ending import FAILED, Ending


def login(
    token: Annotated[str, typer.Option("--token", help="what `edgewright operator add` printed")],
    folder: Annotated[
        Path | None, typer.Option("--folder", help="where to put it; else the commands' usual place", file_okay=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="also over the files of another fleet")] = False,
) -> int:
    """Make a key on this machine and get a certificate for it. The commands renew it by themselves."""
    from edgewright_controller import operator_login

    place = folder or access_place.default_config().parent
    try:
        done = operator_login.login(token, place, force=force)
    except operator_login.LoginRefused as error:
        raise Ending(str(error), FAILED) from error
    config = f" --config {done.client_toml}" if folder else ""
    sys.stdout.write(
        f"logged in to fleet {done.fleet} as {done.name}, {done.role}; good until {done.not_after:%Y-%m-%d}\n"
        f"try: edgewright status{config}\n"
    )
    return 0


def whoami(
    config: reach.ConfigFlag = None, controller: reach.ControllerFlag = None, as_json: reach.JsonFlag = False
) -> int:
    """Say who this machine is to the controller."""
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.whoami()
    if as_json:
        printing.json_line(answer)
    else:
        ends = time.strftime("%Y-%m-%d", time.gmtime(answer.certificate_ends_unix_ms / 1000))
        sys.stdout.write(f"{answer.name}, {answer.role} of fleet {answer.fleet}; certificate good until {ends}\n")
    return 0
