"""`edgewright releases`: what was released, what one of them is, and what two differ in."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewright_controller.cli import named, reach
from edgewright_controller.cli.ending import FAILED, Ending

if TYPE_CHECKING:
    from edgewright_contract.release import Release
    from edgewright_contract.v1 import operator_pb2

app = typer.Typer(help="List, show and compare releases.", no_args_is_help=True)


@app.command("list")
def list_(
    *,
    model: Annotated[str, typer.Option("--model", help="only of this model")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="at most so many")] = 20,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show releases, the newest first, with how many devices serve each, and why some cannot be returned to."""
    from edgewright_controller.cli import printing, release_pages

    with reach.fleet(config, controller) as fleet:
        answer = fleet.releases(limit, model)
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(release_pages.listed(answer))
    return 0


@app.command("show")
def show(
    release: named.ReleaseArgument,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Show all of one release: its artifact, options, probes and, where it is known, the recipe."""
    from edgewright_controller.cli import printing, release_pages

    with reach.fleet(config, controller) as fleet:
        answer = fleet.release(release)
    if as_json:
        printing.json_line(answer)
    else:
        printing.out().print(release_pages.shown(answer, _document(answer), _recipe(answer)))
    return 0


@app.command("diff")
def diff(
    old: named.ReleaseArgument,
    new: named.ReleaseArgument,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Say what the second release changes of the first, one line for each thing."""
    from edgewright_controller.cli import printing
    from edgewright_controller.release_difference import differences

    with reach.fleet(config, controller) as fleet:
        one, other = fleet.release(old), fleet.release(new)
    lines = differences(_document(one), _document(other), _recipe(one), _recipe(other))
    if as_json:
        printing.json_document({"old": one.release, "new": other.release, "differences": lines})
        return 0
    sys.stdout.write(f"{one.release[:12]} → {other.release[:12]}\n")
    for line in lines or ["they are the same release"]:
        sys.stdout.write(f"  {line}\n")
    return 0


def _document(view: operator_pb2.ReleaseView) -> Release:
    from edgewright_contract.release import ReleaseError, from_json

    try:
        return from_json(json.loads(view.document))
    except ReleaseError as error:
        cure = "this command is older than the controller, or newer; --json shows it as it is"
        raise Ending(f"release {view.release[:12]}: {error}; {cure}", FAILED) from error


def _recipe(view: operator_pb2.ReleaseView) -> dict[str, Any] | None:
    return dict(json.loads(view.recipe)) if view.recipe else None
