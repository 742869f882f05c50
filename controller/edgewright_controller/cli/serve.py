"""`edgewright serve`: the controller, in the foreground, until a signal."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import platformdirs
import typer

from edgewright_controller.cli.ending import BAD_INPUT, FAILED, Ending

LogFormat = Literal["human", "json"]


def serve(
    *,
    state: Annotated[Path | None, typer.Option("--state", help="folder of keys, ledger and artifacts")] = None,
    settings_file: Annotated[
        Path | None, typer.Option("--settings", envvar="EDGEWRIGHT_SETTINGS", help="controller.toml")
    ] = None,
    fleet: Annotated[str | None, typer.Option("--fleet", help="the fleet's name, bound at the first start")] = None,
    listen: Annotated[str | None, typer.Option("--listen", help="host:port for devices and operators")] = None,
    enrolment: Annotated[str | None, typer.Option("--enrolment", help="host:port for devices to enrol")] = None,
    mqtt: Annotated[str | None, typer.Option("--mqtt", help="host:port of the broker that is started")] = None,
    names: Annotated[
        list[str] | None, typer.Option("--name", help="what devices call this host; may be repeated, the first is told")
    ] = None,
    broker: Annotated[str | None, typer.Option("--broker", help="managed, external or off")] = None,
    log_format: Annotated[LogFormat, typer.Option("--log-format", help="of the log on standard error")] = "human",
) -> int:
    """Run the controller. Prints one line when it is ready; SIGTERM and Ctrl-C end it cleanly."""
    from edgewright_controller import config, log, run

    flags = {
        "state": str(state) if state else None,
        "fleet": fleet,
        "listen.grpc": listen,
        "listen.enrolment": enrolment,
        "listen.mqtt": mqtt,
        "broker.mode": broker,
    }
    default_state = Path(platformdirs.user_data_dir("edgewright", appauthor=False)) / "controller"
    try:
        settings = config.load(settings_file, flags, default_state)
        settings = replace(settings, names=tuple(names)) if names else settings
    except config.SettingsError as error:
        raise Ending(str(error), BAD_INPUT) from error
    try:
        run.serve(settings, log.Format(log_format))
    except run.StartError as error:
        raise Ending(str(error), FAILED) from error
    return 0
