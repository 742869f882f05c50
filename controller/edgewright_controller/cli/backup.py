"""`edgewright backup` and `edgewright restore`, on the controller's host."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_controller.cli import passphrases
from edgewright_controller.cli.ending import BAD_INPUT, FAILED, Ending

if TYPE_CHECKING:
    from edgewright_controller.backup.restoring import Looked

PassphraseFlag = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="a file with the passphrase, for scripts; else it is asked for"),
]


def backup(
    *,
    state: Annotated[Path, typer.Option("--state", help="the controller's state folder", file_okay=False)],
    out: Annotated[Path, typer.Option("--out", help="the file to write; it must not be there yet", dir_okay=False)],
    passphrase_file: PassphraseFlag = None,
    without_reports: Annotated[
        bool, typer.Option("--without-reports", help="leave out what devices reported, mostly telemetry")
    ] = False,
) -> int:
    """Back up what a controller cannot make again, sealed under a passphrase; also while it runs."""
    from edgewright_controller.backup import making
    from edgewright_controller.cli.printing import size

    now = datetime.now(timezone.utc)
    with _refusals():
        secret = _passphrase(passphrase_file, new=True)
        made = making.make(state, out, secret, now, reports=not without_reports)
    sys.stdout.write(
        f"{out}: fleet {made.fleet}, {_counted(made.about.devices, made.about.releases)}, {size(made.size)}\n"
        f"keep the passphrase apart from it; look at it now and then: edgewright restore --check {out.name}\n"
    )
    return 0


def restore(
    *,
    file: Annotated[Path, typer.Argument(help="the backup", exists=True, dir_okay=False)],
    state: Annotated[
        Path | None, typer.Option("--state", help="the state folder to make; nothing may be there", file_okay=False)
    ] = None,
    fleet: Annotated[str, typer.Option("--fleet", help="refuse a backup of another fleet")] = "",
    check: Annotated[bool, typer.Option("--check", help="only look whether it is whole; writes nothing")] = False,
    passphrase_file: PassphraseFlag = None,
) -> int:
    """Make a state folder from a backup, whole or not at all."""
    from edgewright_controller.backup import restoring

    if state is None and not check:
        raise Ending("name the folder to restore into: --state DIR (or only look at the backup: --check)", BAD_INPUT)
    with _refusals():
        if state is not None:
            restoring.check_free(state)
        secret = _passphrase(passphrase_file, new=False)
        if check or state is None:
            sys.stdout.write(f"{_said(file, restoring.check(file, secret, fleet))}; it is whole\n")
            return 0
        done = restoring.restore(file, state, secret, datetime.now(timezone.utc), fleet)
    since = f"{done.created:%Y-%m-%d %H:%M} UTC"
    sys.stdout.write(
        f"{_said(file, done)}\nrestored into {state}; {done.voided} unused tokens and authorised keys are void\n"
        f"{_ended(done.ended)}"
        f"WHO WAS REVOKED AFTER {since} IS NOT REVOKED ANY MORE, device or operator: revoke again, first of all\n"
        f"next: edgewright serve --state {state}, with the addresses as they were; `edgewright apply` your manifest,"
        f" which builds what is missing; if holders signed something after {since}: edgewright keys publish REQUEST\n"
    )
    return 0


def _ended(rollouts: Sequence[str]) -> str:
    if not rollouts:
        return ""
    return f"ended, because how they went on is not known: {', '.join(rollouts)}; apply what is to be\n"


def _said(file: Path, looked: Looked) -> str:
    reports = "" if looked.about.reports else ", without reports"
    counted = _counted(looked.about.devices, looked.about.releases)
    return f"{file}: fleet {looked.fleet}, as it was at {looked.created:%Y-%m-%d %H:%M:%S} UTC: {counted}{reports}"


def _counted(devices: int, releases: int) -> str:
    return f"{devices} device{'' if devices == 1 else 's'}, {releases} release{'' if releases == 1 else 's'}"


def _passphrase(file: Path | None, *, new: bool) -> str:
    from edgewright_controller.sealed import check_passphrase

    secret = passphrases.of_file(file) if file else passphrases.typed("passphrase of the backup", twice=new)
    if new:
        check_passphrase(secret)
    return secret


@contextmanager
def _refusals() -> Iterator[None]:
    from edgewright_controller.backup import BackupRefused
    from edgewright_controller.ledger import LedgerError
    from edgewright_controller.sealed import SealedError
    from edgewright_controller.state_lock import StateInUse

    try:
        yield
    except StateInUse as error:
        raise Ending(f"{error}; stop it first, and move the folder away; nothing was changed", FAILED) from error
    except (BackupRefused, SealedError, LedgerError) as error:
        raise Ending(f"{error}; nothing was changed", FAILED) from error
