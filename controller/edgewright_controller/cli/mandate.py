"""`edgewright mandate`: offline mandates, drawn up here, signed by whoever holds the offline key."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgewright_controller.cli import passphrases, reach
from edgewright_controller.cli.ending import BAD_INPUT, FAILED, Ending

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from edgewright_controller.publish.mandates import Reading

app = typer.Typer(help="Updates for sites without a network.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(help="the mandate, signed or not", exists=True, dir_okay=False)]


@app.callback()
def group() -> None:
    """Updates for sites without a network."""


@app.command("create")
def create(
    *,
    out: Annotated[Path, typer.Option("--out", help="the file to write; it must not be there yet")],
    valid_days: Annotated[int, typer.Option("--valid-days", min=1, max=180, help="at most 180")],
    device: Annotated[str, typer.Option("--device", help="the one device that it is for")] = "",
    profile: Annotated[str, typer.Option("--profile", help="the profile whose devices it is for")] = "",
    release: Annotated[str, typer.Option("--release", help="else what the device, or the profile, should have")] = "",
    config: reach.ConfigFlag = None,
    controller: reach.ControllerFlag = None,
) -> int:
    """Draw up a mandate. Nobody has signed it yet; `mandate sign` does, where the key is."""
    if bool(device) == bool(profile):
        raise Ending("a mandate is for a device or for a profile: give --device or --profile", BAD_INPUT)
    if out.exists():
        raise Ending(f"{out} is there already; name another file with --out", BAD_INPUT)
    with reach.fleet(config, controller) as fleet:
        answer = fleet.create_mandate(device, profile, release, valid_days * 86_400)
    _write(out, answer.document)
    sys.stdout.write(
        f"mandate {answer.number} for {device or f'profile {profile}'}: release {answer.release[:12]},"
        f" generation {answer.generation}\nsign it where the key is: edgewright mandate sign {out} --key FILE\n"
    )
    return 0


@app.command("show")
def show(file: FileArgument, as_json: reach.JsonFlag = False) -> int:
    """Say what a mandate says and how far it is signed, once its documents are found to hold together."""
    reading = _read(file, file.read_bytes())
    sys.stdout.write(f"{json.dumps(_document(reading))}\n" if as_json else _lines(reading))
    return 0


@app.command("sign")
def sign(
    file: FileArgument,
    key: Annotated[
        Path,
        typer.Option("--key", help="a holder's file, or the controller's key", exists=True, dir_okay=False),
    ],
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="of a sealed or encrypted key; else it is asked for")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="sign without asking")] = False,
) -> int:
    """Say what a mandate says, ask, and add this key's signature to the file."""
    from edgewright_controller.publish import PublishError, mandates
    from edgewright_controller.sealed import SealedError

    document = file.read_bytes()
    sys.stdout.write(_lines(_read(file, document)))
    if not yes:
        typer.confirm("Sign this?", abort=True)
    try:
        signed = mandates.sign(document, _signer(key, passphrase_file))
    except (PublishError, SealedError) as error:
        raise Ending(f"{file}: {error}; nothing was signed", FAILED) from error
    _write(file, signed)
    left = mandates.read(signed).missing
    sys.stdout.write(f"signed; {f'{left} more to sign it' if left else 'devices will believe it'}\n")
    return 0


def _signer(key: Path, passphrase_file: Path | None) -> Signer:
    """What signs mandates: of a holder's file, or a plain key."""
    from edgewright_controller.publish import PublishError, holders, keys

    content = key.read_bytes()
    if not content.lstrip().startswith(b"{"):
        return keys.load(key, _passphrase(key, passphrase_file))
    secret = _passphrase(key, passphrase_file) if holders.is_sealed(content) else ""
    signer = holders.decode(content, secret or "").signers.get("image-mandate")
    if signer is None:
        raise PublishError(f"{key} has no key for mandates")
    return signer


def _passphrase(key: Path, file: Path | None) -> str | None:
    if file is not None:
        return passphrases.of_file(file)
    content = key.read_bytes()
    if b"ENCRYPTED" not in content and b'"sealed"' not in content:
        return None
    return passphrases.typed(f"Passphrase of {key}")


def _read(file: Path, document: bytes) -> Reading:
    from edgewright_controller.publish import PublishError, mandates

    try:
        return mandates.read(document)
    except PublishError as error:
        raise Ending(f"{file}: {error}", BAD_INPUT) from error


def _write(path: Path, document: bytes) -> None:
    from edgewright_contract import durable

    durable.write(path.absolute(), document)


def _document(reading: Reading) -> dict[str, Any]:
    said = reading.mandate
    return {
        "number": reading.number,
        "fleet": said.fleet,
        "device": said.device or "",
        "profile": said.profile or "",
        "generation": said.generation,
        "release": reading.release.digest,
        "model": reading.release.model,
        "hw_class": reading.release.hw_class,
        "issued": f"{said.issued:%Y-%m-%d %H:%M} UTC",
        "until": f"{reading.expires:%Y-%m-%d %H:%M} UTC",
        "signed_by": list(reading.signed),
        "missing": reading.missing,
        "root": reading.first_root,
    }


def _lines(reading: Reading) -> str:
    shown = _document(reading)
    missing = f", {shown['missing']} missing" if shown["missing"] else ""
    signed = ", ".join(key[:12] for key in shown.pop("signed_by")) or "nobody"
    shown = {key: value for key, value in shown.items() if value != "" and key != "missing"} | {
        "signed by": f"{signed}{missing}"
    }
    return "".join(f"{f'{key}:':<12}{value}\n" for key, value in shown.items())
