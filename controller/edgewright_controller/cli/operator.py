"""`edgewright operator`: who may operate the fleet, and as what."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from edgewright_controller.cli import reach
from edgewright_controller.cli.ending import BAD_INPUT, Ending

app = typer.Typer(help="Who operates the fleet, and as what.", no_args_is_help=True)

_Name = Annotated[str, typer.Argument(help="the operator's name")]
_Role = Annotated[str, typer.Option("--role", help="viewer (looks), operator (changes), admin (lets in and out)")]


@app.callback()
def group() -> None:
    """Who operates the fleet, and as what."""


@app.command("add")
def add(
    name: _Name,
    role: _Role,
    *,
    valid_hours: Annotated[float, typer.Option("--valid-hours", help="of the token, at most 24")] = 24.0,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Print the one line to run on the operator's own machine. Whoever lost a key is added again."""
    if not 0 < valid_hours <= 24:
        raise Ending(f"--valid-hours: {valid_hours:g}; a token is valid for more than 0 and at most 24", BAD_INPUT)
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.add_operator(name, role, max(1, int(valid_hours * 3600)))
    if as_json:
        printing.json_line(answer)
    else:
        sys.stdout.write(f"edgewright login --token {answer.token}\n")
    return 0


@app.command("list")
def list_(
    config: reach.ConfigFlag = None, controller: reach.ControllerFlag = None, as_json: reach.JsonFlag = False
) -> int:
    """Show the operators with their roles."""
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.operators()
    if as_json:
        printing.json_line(answer)
        return 0
    for one in answer.operators:
        ends = time.strftime("until %Y-%m-%d", time.gmtime(one.certificate_ends_unix_ms / 1000))
        held = ends if one.certificate_ends_unix_ms else "has not logged in"
        since = f"added by {one.by}, {held}" if one.by else "the controller's own, in operator/ of its state folder"
        sys.stdout.write(f"{one.name}  {one.role}  {since}\n")
    return 0


@app.command("role")
def role(
    name: _Name,
    role: _Role,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Give an operator another role, from the next call on. More than before needs another login."""
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        fleet.set_operator_role(name, role)
    if as_json:
        printing.json_document({"name": name, "role": role})
    else:
        again = f"for more rights than before: edgewright operator add {name} --role {role}"
        sys.stdout.write(f"operator {name} is {role} now; {again}\n")
    return 0


@app.command("remove")
def remove(
    name: _Name,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Take an operator's role and certificates, at once."""
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.remove_operator(name)
    if as_json:
        printing.json_line(answer)
    else:
        sys.stdout.write(f"operator {name} is removed; {printing.count(answer.certificates, 'certificate')} revoked\n")
    return 0
