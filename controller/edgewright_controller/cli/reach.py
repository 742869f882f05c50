"""Which controller a command talks to: flag, then environment, then the file in the platform's usual place."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_controller import access_place
from edgewright_controller.cli.ending import client_errors

if TYPE_CHECKING:
    from edgewright_controller.client import Fleet


ControllerFlag = Annotated[
    str | None,
    typer.Option("--controller", envvar=access_place.CONTROLLER, help="host:port, instead of the file's address"),
]
ConfigFlag = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar=access_place.CONFIG,
        help=f"TOML file with address, certificate, key and ca; else {access_place.default_config()}",
    ),
]
JsonFlag = Annotated[bool, typer.Option("--json", help="print JSON, for scripts")]


@dataclass(frozen=True)
class Where:
    """The two flags that say which controller is meant."""

    config: Path | None
    controller: str | None


@contextmanager
def fleet(config: Path | None, controller: str | None) -> Iterator[Fleet]:
    """A connection to the controller; whatever goes wrong with it inside the block becomes an Ending."""
    from edgewright_controller.client import Fleet, read_access

    file = config or access_place.default_config()
    with client_errors():
        access = read_access(file, controller)
        with Fleet(access) as connection:
            yield connection
            _renew(file.absolute(), connection)


def _renew(file: Path, connection: Fleet) -> None:
    """Renew the operator's certificate when half of its life is gone. What keeps it from that, the command that was
    typed need not suffer for: it is told, and tried again with the next."""
    from edgewright_controller import operator_login
    from edgewright_controller.client import ClientError, read_access

    try:
        access = read_access(file)  # with the file's own address, not the one that this command was told
        if operator_login.is_due(access, datetime.now(timezone.utc)):
            operator_login.renew(access, file, connection)
    except (operator_login.LoginRefused, ClientError, OSError, ValueError) as error:
        sys.stderr.write(f"edgewright: this operator's certificate was not renewed: {error}\n")
