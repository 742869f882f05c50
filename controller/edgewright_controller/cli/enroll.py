"""`edgewright enroll create | authorise`: one device may enrol once, by a token or by its own key."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Final

import typer

from edgewright_controller.cli import reach
from edgewright_controller.cli.ending import BAD_INPUT, Ending

app = typer.Typer(help="Let devices into the fleet.", no_args_is_help=True)

MAX_KEY_BYTES: Final = 16 << 10
DeviceOption = Annotated[str, typer.Option("--device", help="the device's id")]


@app.callback()
def group() -> None:
    """Let devices into the fleet."""


@app.command("create")
def create(
    device: DeviceOption,
    valid_hours: Annotated[float, typer.Option("--valid-hours", help="at most 24")] = 24.0,
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Print the one line to run on the device. With --json, the token and its end alone."""
    if not 0 < valid_hours <= 24:
        raise Ending(
            f"--valid-hours: {valid_hours:g}; a token is valid for more than 0 and at most 24 hours", BAD_INPUT
        )
    from edgewright_controller.cli import printing

    with reach.fleet(config, controller) as fleet:
        answer = fleet.create_enrolment(device, max(1, int(valid_hours * 3600)))
    _say_enrolled(device, answer.enrolled_unix_ms)
    if as_json:
        printing.json_line(answer)
    else:
        sys.stdout.write(f"edgewright-agent enroll --config agent.toml --token {answer.token}\n")
    return 0


@app.command("authorise")
def authorise(
    device: DeviceOption,
    public_key: Annotated[Path, typer.Option("--public-key", help="what `edgewright-agent key` printed on the device")],
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
    as_json: reach.JsonFlag = False,
) -> int:
    """Let the device that holds this key enrol, once, and print the one line to run on it. The line is no secret."""
    from edgewright_contract import small_file
    from edgewright_controller.cli import printing

    try:
        text = small_file.read_text(public_key, MAX_KEY_BYTES)
    except OSError as error:
        raise Ending(f"--public-key: {public_key}: {error.strerror}", BAD_INPUT) from error
    except ValueError as error:
        raise Ending(f"--public-key: {public_key}: {error}; that is no public key in PEM", BAD_INPUT) from error
    with reach.fleet(config, controller) as fleet:
        answer = fleet.authorise_key(device, text)
    _say_enrolled(device, answer.enrolled_unix_ms)
    if as_json:
        printing.json_line(answer)
    else:
        sys.stdout.write(f"edgewright-agent enroll --config agent.toml --token {answer.token}\n")
    return 0


def _say_enrolled(device: str, enrolled_ms: int) -> None:
    """What it means that the id is in use, before somebody runs the line."""
    if enrolled_ms:
        since = datetime.fromtimestamp(enrolled_ms / 1000, timezone.utc)
        sys.stderr.write(
            f"edgewright: {device} is enrolled already, since {since:%Y-%m-%d %H:%M} UTC. If another machine runs this "
            f"line, it takes over {device}, and every certificate of the present one is revoked\n"
        )
