"""`edgewright bundle`: releases carried by hand to devices without a network."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_controller.cli import completing, reach
from edgewright_controller.cli.ending import BAD_INPUT, FAILED, Ending

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgewright_controller.client import Fleet

app = typer.Typer(help="Releases for devices without a network.", no_args_is_help=True)

_DAY_S = 86_400
_MOST_DAYS = 180


@app.callback()
def group() -> None:
    """Releases for devices without a network."""


@app.command("export")
def export(
    out: Annotated[Path, typer.Argument(metavar="FILE", help="the file to write, or a folder, such as a stick")],
    *,
    device: Annotated[
        str, typer.Option("--device", help="the one device that it is for", autocompletion=completing.devices)
    ] = "",
    profile: Annotated[str, typer.Option("--profile", help="the profile whose devices it is for")] = "",
    mandate: Annotated[
        Path | None,
        typer.Option("--mandate", help="a signed mandate, to carry in the file", exists=True, dir_okay=False),
    ] = None,
    valid_for: Annotated[
        str, typer.Option("--valid-for", help="draw up a mandate beside the file, like 90d; at most 180d")
    ] = "",
    release: Annotated[
        str,
        typer.Option(
            "--release", help="else what it should have, or what the mandate says", autocompletion=completing.releases
        ),
    ] = "",
    since: Annotated[
        str,
        typer.Option(
            "--since", help="only what changed since this release, which it holds", autocompletion=completing.releases
        ),
    ] = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
) -> int:
    """Write one file with all that a device needs for a release; `edgewright-agent import FILE` installs it there.

    With --valid-for, its mandate is drawn up as FILE.mandate, to be signed where the offline key is and carried beside
    the file. With --mandate, a signed one goes into the file.
    """
    from edgewright_controller import carrying
    from edgewright_controller.cli import printing

    if (mandate is None) == (not valid_for):
        raise Ending("a file goes with a mandate: give --mandate FILE or --valid-for 90d", BAD_INPUT)
    signed = b""
    if mandate is not None:
        signed = mandate.read_bytes()
        device, profile, release = _signed_for(mandate, signed, device, profile, release)
    elif bool(device) == bool(profile):
        raise Ending("a file is for a device or for a profile: give --device or --profile", BAD_INPUT)
    days = _days(valid_for) if valid_for else 0
    if not out.is_dir() and not out.absolute().parent.is_dir():
        raise Ending(f"{out.absolute().parent} is not there; make the folder first", BAD_INPUT)
    with reach.fleet(config, controller) as fleet:
        draw: Callable[[Path], str] | None = None
        if days:
            release, draw = _drawn_up(fleet, device, profile, release, days)
        file = _file(out, f"{device or profile}-{release[:12]}")
        try:
            head = carrying.write(
                file, fleet.export_release(release, since), signed, device=device, profile=profile, say=_progress()
            )
        except carrying.NotCarried as error:
            raise Ending(f"{file}: {error}; nothing was written", FAILED) from error
        note = draw(file) if draw is not None else ""
    whom = device or f"profile {profile}"
    size = printing.size(file.stat().st_size)
    sys.stdout.write(f"{file}: release {head.release[:12]} for {whom}, {size}{_without(head.base)}\n{note}")
    sys.stdout.write(f"on the device: edgewright-agent import {file.name}\n")
    return 0


def _days(text: str) -> int:
    from edgewright_controller.manifest import quantities

    seconds = quantities.seconds(text)
    days = seconds // _DAY_S if seconds else 0
    if not 1 <= days <= _MOST_DAYS:
        raise Ending(f"--valid-for: {text!r} is not a number of days from 1d to {_MOST_DAYS}d", BAD_INPUT)
    return days


def _signed_for(path: Path, document: bytes, device: str, profile: str, release: str) -> tuple[str, str, str]:
    """Device, profile and release of a signed mandate, which must be those that were named, if any were."""
    from edgewright_controller.publish import PublishError, mandates

    try:
        reading = mandates.read(document)
    except PublishError as error:
        raise Ending(f"{path}: {error}", BAD_INPUT) from error
    if reading.missing:
        cure = f"edgewright mandate sign {path} --key FILE"
        raise Ending(f"{path}: {reading.missing} signature(s) missing; sign it first: {cure}", BAD_INPUT)
    said = reading.mandate
    found = (said.device or "", said.profile or "", reading.release.digest)
    for flag, asked, has in zip(("--device", "--profile", "--release"), (device, profile, release), found, strict=True):
        if asked and not (has.startswith(asked) if flag == "--release" else has == asked):
            raise Ending(f"{path}: it says {has or 'none'}, not {flag} {asked}", BAD_INPUT)
    return found


def _drawn_up(fleet: Fleet, device: str, profile: str, release: str, days: int) -> tuple[str, Callable[[Path], str]]:
    """The release of a new mandate, and what writes it beside a file and says so."""
    from edgewright_contract import durable

    answer = fleet.create_mandate(device, profile, release, days * _DAY_S)

    def written(file: Path) -> str:
        path = file.with_name(f"{file.name}.mandate")
        durable.write(path.absolute(), answer.document)
        return (
            f"{path}: mandate {answer.number}, generation {answer.generation}, for {days} days, signed by nobody yet:"
            f" edgewright mandate sign {path} --key FILE; carry it beside the file\n"
        )

    return answer.release, written


def _file(out: Path, name: str) -> Path:
    """The file to write, which must not be there yet."""
    from edgewright_contract import carried

    file = out / f"{name}{carried.SUFFIX}" if out.is_dir() else out
    if file.exists():
        raise Ending(f"{file} is there already; name another file, or remove it", BAD_INPUT)
    return file


def _without(base: str) -> str:
    return f", without what is in artifact {base[:12]}, which it must hold" if base else ""


def _progress() -> Callable[[int, int], None]:
    """On a terminal, how far it is."""
    if not sys.stderr.isatty():
        return lambda done, of: None

    def say(done: int, of: int) -> None:
        end = "\n" if done == of else ""
        sys.stderr.write(f"\r{done / 1e6:,.0f} of {of / 1e6:,.0f} MB{end}")

    return say
