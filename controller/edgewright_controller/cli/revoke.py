"""`edgewright revoke`: an end to what a device or an operator may do, at once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from edgewright_controller.cli import named, reach

app = typer.Typer(help="Shut a device or an operator out, at once.", no_args_is_help=True)

_Reason = Annotated[str, typer.Option("--reason", help="told to whoever shows the certificate")]


@app.callback()
def group() -> None:
    """Shut a device or an operator out, at once."""


@app.command("device")
def device(
    device: named.DeviceArgument,
    reason: _Reason = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Revoke all certificates of a device: lost, stolen or broken into. What it serves, it serves on."""
    _revoke("device", device, reason, reach.Where(config, controller), as_json=as_json)
    if not as_json:
        sys.stdout.write(f"to let it in again: edgewright enroll create --device {device}\n")
    return 0


@app.command("operator")
def operator(
    name: Annotated[str, typer.Argument(help="the operator's name")],
    reason: _Reason = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Revoke all certificates of an operator."""
    _revoke("operator", name, reason, reach.Where(config, controller), as_json=as_json)
    return 0


def _revoke(kind: str, holder: str, reason: str, where: reach.Where, *, as_json: bool) -> None:
    from edgewright_contract.v1 import operator_pb2
    from edgewright_controller.cli import printing

    kinds = operator_pb2.RevokeRequest
    with reach.fleet(where.config, where.controller) as fleet:
        answer = fleet.revoke(kinds.KIND_DEVICE if kind == "device" else kinds.KIND_OPERATOR, holder, reason)
    if as_json:
        printing.json_line(answer)
    else:
        count = "1 certificate" if answer.certificates == 1 else f"{answer.certificates} certificates"
        sys.stdout.write(f"{kind} {holder}: {count} revoked\n")
