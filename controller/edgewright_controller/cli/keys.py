"""`edgewright keys`: who signs for the fleet, and how that changes. `docs/ceremony.md` tells it for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgewright_controller.cli import passphrases
from edgewright_controller.cli.ending import BAD_INPUT, FAILED, Ending

if TYPE_CHECKING:
    from edgewright_controller.ceremony_state import CeremonyState
    from edgewright_controller.publish.holders import Holder, HolderKeys

app = typer.Typer(help="Who signs for the fleet: status, ceremony, rotation.", no_args_is_help=True)

StateFlag = Annotated[Path, typer.Option("--state", help="the controller's state folder", file_okay=False)]
RequestFlag = Annotated[Path, typer.Option("--request", help="the signing request to write")]
PassphraseFlag = Annotated[
    list[str] | None,
    typer.Option("--passphrase-file", help="NAME=FILE, for scripts; else each passphrase is asked for"),
]


@app.callback()
def group() -> None:
    """Who signs for the fleet: status, ceremony, rotation."""


@app.command("status")
def status(
    state: StateFlag, as_json: Annotated[bool, typer.Option("--json", help="print JSON, for scripts")] = False
) -> int:
    """Say of each role which keys speak for it, where they are, and how long what they signed is good."""
    from edgewright_controller import ceremony_state
    from edgewright_controller.publish import key_status

    with _refusals(FAILED):
        rows = key_status.rows(ceremony_state.look(state), _now())
    if as_json:
        sys.stdout.write(json.dumps([row.document() for row in rows], sort_keys=True) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in key_status.lines(rows)))
    return 0


@app.command("init")
def init(
    *,
    state: StateFlag,
    out: Annotated[Path, typer.Option("--out", help="folder for the holders' files, best on removable media")],
    holders: Annotated[list[str], typer.Option("--holder", help="a holder's name; name three")],
    threshold: Annotated[int, typer.Option("--threshold", min=1, help="how many of them must sign")] = 2,
    fleet: Annotated[str, typer.Option("--fleet", help="only for a state folder that is still empty")] = "",
    passphrase_files: PassphraseFlag = None,
) -> int:
    """Give the keys of roots and targets to people: nobody who breaks into the controller has them after that.

    Stop the controller first. Devices follow by themselves.
    """
    from edgewright_controller.publish import ceremony
    from edgewright_controller.publish import holders as holder_files

    if not 1 < threshold <= len(holders):
        raise Ending(
            f"--threshold {threshold} of {len(holders)} holders: name three holders and two that sign", BAD_INPUT
        )
    with _opened(state, fleet) as opened:
        repositories = opened.repositories
        if repositories.controller_as_holder().signers.keys() != {"image-root", "image-targets", "director-root"}:
            # A run that was cut off after its publication left them, and devices that sleep still believe them.
            left = opened.forget_online_keys(authority=(out / "root-ca.keys").exists())
            also = f"; {len(left)} keys that an earlier run left are removed now" if left else ""
            raise Ending(
                f"{state}: holders have the keys already; `edgewright keys rotate` changes who they are{also}", FAILED
            )
        people = [holder_files.new(name, opened.fleet) for name in holders]
        holder_files.check_distinct([one.public for one in people], opened.fleet)
        request = ceremony.request(
            repositories,
            why="the keys of roots and targets go to holders",
            now=_now(),
            holders=[one.public for one in people],
            threshold=threshold,
        )
        for one in people:
            request, _ = request.signed_by(one)
        files = {f"{one.name}.keys": (one, _new_passphrase(one.name, passphrase_files)) for one in people}
        authority = opened.root_authority()
        if authority is not None:
            files["root-ca.keys"] = (authority, _new_passphrase("root-ca", passphrase_files))
        _write_new(out, {name: holder_files.encode(one, secret) for name, (one, secret) in files.items()})
        opened.publish(request, by="keys init")
        removed = opened.forget_online_keys(authority=authority is not None)
    sys.stdout.write(
        f"{out}: {', '.join(files)}\n{threshold} of {len(people)} holders now sign for roots and targets;"
        f" {len(removed)} keys are removed from {state}\n"
        "give each holder its file and nobody else's, keep root-ca.keys apart from them, and start the controller\n"
    )
    return 0


@app.command("holder")
def holder(
    *,
    name: Annotated[str, typer.Argument(help="the holder's name")],
    fleet: Annotated[str, typer.Option("--fleet", help="the fleet's name")],
    out: Annotated[Path, typer.Option("--out", help="folder for the two files")],
    passphrase_files: PassphraseFlag = None,
) -> int:
    """Make the files of a new holder, on its own machine: NAME.keys stays with it, NAME.pub goes to the controller."""
    from edgewright_controller.publish import holders as holder_files

    with _refusals(BAD_INPUT):
        made = holder_files.new(name, fleet)
        sealed = holder_files.encode(made, _new_passphrase(name, passphrase_files))
        _write_new(out, {f"{name}.keys": sealed, f"{name}.pub": holder_files.encode_public(made.public)})
    sys.stdout.write(f"{out / f'{name}.pub'}: take it to the controller: edgewright keys rotate --add {name}.pub\n")
    return 0


@app.command("renew")
def renew(*, state: StateFlag, request: RequestFlag) -> int:
    """Ask the holders to sign roots and targets for another year, and another three months, with the same keys."""
    return _ask(state, request, roles=(), why="everything offline is good for longer")


@app.command("rotate")
def rotate(
    *,
    roles: Annotated[list[str] | None, typer.Argument(help="snapshot, timestamp, director, builder")] = None,
    state: StateFlag,
    request: RequestFlag,
    add: Annotated[
        list[Path] | None, typer.Option("--add", help="the .pub file of a new holder", exists=True, dir_okay=False)
    ] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="the name of a holder who leaves")] = None,
    threshold: Annotated[
        int | None, typer.Option("--threshold", min=2, help="how many holders must sign; else as many as now")
    ] = None,
) -> int:
    """Ask for other keys: of roles that sign online, or other holders. Old keys are worthless once it is published."""
    from edgewright_controller.publish import holders as holder_files

    if not (roles or add or remove):
        raise Ending("nothing to rotate: name roles, --add or --remove", BAD_INPUT)
    with _refusals(BAD_INPUT):
        new = [holder_files.decode_public(file.read_bytes()) for file in add or []]
    what = [
        *(roles or []),
        *(f"holder {one.name} comes" for one in new),
        *(f"holder {one} leaves" for one in remove or []),
    ]
    return _ask(
        state, request, roles=roles or (), why=f"other keys: {', '.join(what)}", people=(new, remove or [], threshold)
    )


@app.command("intermediate")
def intermediate(*, state: StateFlag, request: RequestFlag) -> int:
    """Ask whoever keeps root-ca.keys for a new certificate of the intermediate authority, whose five years end."""
    with _opened(state) as opened:
        made = opened.ask_for_intermediate()
        _write_new(request.parent, {request.name: made.encode()})
    sys.stdout.write(
        f"{request}: edgewright keys sign {request.name} --keys root-ca.keys\n"
        f"then: edgewright keys publish {request.name} --state {state}\n"
    )
    return 0


@app.command("sign")
def sign(
    *,
    request: Annotated[Path, typer.Argument(help="the signing request", exists=True, dir_okay=False)],
    keys: Annotated[Path, typer.Option("--keys", help="the holder's own file", exists=True, dir_okay=False)],
    passphrase_files: PassphraseFlag = None,
    yes: Annotated[bool, typer.Option("--yes", help="sign without asking")] = False,
) -> int:
    """Say what a request would change, ask, and add this holder's signatures to its file. Needs no network."""
    from edgewright_controller import authority_request
    from edgewright_controller.publish import signing_request

    if authority_request.is_one(request.read_bytes()):
        return _sign_intermediate(request, keys, passphrase_files, yes=yes)
    with _refusals(BAD_INPUT, str(request)):
        asked = signing_request.decode(request.read_bytes())
        signing_request.check(asked, _now())
    sys.stdout.write("".join(f"{line}\n" for line in signing_request.describe(asked)))
    if not yes:
        typer.confirm("Sign this?", abort=True)
    with _refusals(FAILED, "nothing was signed"):
        who = _unlocked(keys, passphrase_files)
        signed, _ = asked.signed_by(who)
    _write(request, signed.encode())
    left = signed.more_holders
    more = "1 more holder" if left == 1 else f"{left} more holders"
    following = f"{more} must sign" if left else "complete: edgewright keys publish"
    sys.stdout.write(f"signed by {who.name}; {following}\n")
    return 0


@app.command("publish")
def publish(
    *,
    requests: Annotated[list[Path], typer.Argument(help="the signed request, or copies of it signed apart")],
    state: StateFlag,
) -> int:
    """Take up a complete request. Stop the controller first; devices follow at their next check-ins."""
    from edgewright_controller import authority_request
    from edgewright_controller.publish import signing_request

    if authority_request.is_one(requests[0].read_bytes()):
        with _refusals(BAD_INPUT):
            answered = authority_request.decode(requests[0].read_bytes())
        with _opened(state) as opened:
            ends = opened.install_intermediate(answered)
        sys.stdout.write(f"the intermediate authority is good until {ends:%Y-%m-%d}; start the controller\n")
        return 0
    with _refusals(BAD_INPUT):
        signed = signing_request.collected(signing_request.decode(one.read_bytes()) for one in requests)
    with _opened(state) as opened:
        opened.publish(signed, by="keys publish")
        removed = opened.forget_online_keys()
    gone = f"; {len(removed)} keys that nobody needs online any more are removed" if removed else ""
    sys.stdout.write(f"published: {signed.why}{gone}\nstart the controller; devices follow by themselves\n")
    return 0


def _sign_intermediate(request: Path, keys: Path, passphrase_files: list[str] | None, *, yes: bool) -> int:
    from edgewright_controller import authority_request

    with _refusals(BAD_INPUT, str(request)):
        asked = authority_request.decode(request.read_bytes())
        sys.stdout.write("".join(f"{line}\n" for line in authority_request.describe(asked)))
    if not yes:
        typer.confirm("Sign this?", abort=True)
    with _refusals(FAILED, "nothing was signed"):
        who = _unlocked(keys, passphrase_files)
        if who.authority is None:
            raise Ending(f"{keys}: it has not the root authority's key; root-ca.keys has; nothing was signed", FAILED)
        signed = authority_request.sign(asked, who.fleet, who.authority, _now())
    _write(request, signed.encode())
    sys.stdout.write("signed; complete: edgewright keys publish\n")
    return 0


People = tuple["Sequence[HolderKeys]", Sequence[str], int | None]


def _ask(state: Path, file: Path, *, roles: Sequence[str], why: str, people: People | None = None) -> int:
    from edgewright_controller.publish import ceremony, succession

    if file.exists():  # before a new key takes the place of one that the request there may name
        raise Ending(f"{file} is there already; nothing was written", BAD_INPUT)
    with _opened(state) as opened:
        repositories = opened.repositories
        holders: Sequence[HolderKeys] = ()
        threshold = 2
        if people is not None and (people[0] or people[1]):
            new, leaving, wanted = people
            threshold = wanted or succession.present_threshold(repositories.standing())
            holders = succession.changed_holders(repositories.standing(), new, leaving)
        made = ceremony.request(repositories, why=why, now=_now(), roles=roles, holders=holders, threshold=threshold)
        if not made.missing:
            opened.publish(made, by="keys")
            sys.stdout.write(f"published: {why}; the keys are online, so nobody else had to sign\n")
            return 0
        _write_new(file.parent, {file.name: made.encode()})
    sys.stdout.write(
        f"{file}: take it to the holders: edgewright keys sign {file.name} --keys NAME.keys\n"
        f"then: edgewright keys publish {file.name} --state {state}\n"
    )
    return 0


@contextmanager
def _opened(state: Path, fleet: str = "") -> Iterator[CeremonyState]:
    from edgewright_controller import ceremony_state

    with ExitStack() as stack, _refusals(FAILED):
        yield stack.enter_context(ceremony_state.opened(state, fleet, _now()))


@contextmanager
def _refusals(code: int, also: str = "") -> Iterator[None]:
    """Turn what the ceremony raises into an Ending."""
    from edgewright_controller.ledger import LedgerError
    from edgewright_controller.pki_files import AuthorityError
    from edgewright_controller.publish import PublishError
    from edgewright_controller.sealed import SealedError
    from edgewright_controller.state_lock import StateInUse

    try:
        yield
    except StateInUse as error:
        raise Ending(f"{error}; stop it first, devices serve on meanwhile", code) from error
    except (PublishError, SealedError, AuthorityError, LedgerError) as error:
        raise Ending(f"{error}; {also}" if also else str(error), code) from error


def _unlocked(file: Path, passphrase_files: list[str] | None) -> Holder:
    from edgewright_controller.publish import PublishError
    from edgewright_controller.publish import holders as holder_files
    from edgewright_controller.sealed import SealedError

    content = file.read_bytes()
    try:
        name = holder_files.decode_public(content).name
        secret = _passphrase(name, passphrase_files) if holder_files.is_sealed(content) else ""
        return holder_files.decode(content, secret)
    except PublishError as error:
        raise PublishError(f"{file}: {error}") from error
    except SealedError as error:
        raise SealedError(f"{file}: {error}") from error


def _passphrase(name: str, files: list[str] | None) -> str:
    for given in files or []:
        who, _, file = given.partition("=")
        if who == name and file:
            return passphrases.of_file(Path(file))
    return passphrases.typed(f"passphrase of {name}")


def _new_passphrase(name: str, files: list[str] | None) -> str:
    from edgewright_controller.sealed import SealedError, check_passphrase

    for given in files or []:
        if given.partition("=")[0] == name:
            return _passphrase(name, files)
    while True:
        asked = passphrases.typed(f"a new passphrase for {name}", twice=True)
        try:
            check_passphrase(asked)
        except SealedError as error:
            sys.stderr.write(f"edgewright: {error}\n")
            continue
        return asked


def _write_new(folder: Path, files: dict[str, bytes]) -> None:
    """Write files that must not be there yet; all or none."""
    from edgewright_contract import durable

    durable.make_folder(folder.absolute(), mode=0o700)
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise Ending(f"{folder / there[0]} is there already; nothing was written", BAD_INPUT)
    for name, content in files.items():
        durable.write(folder.absolute() / name, content, mode=0o600)


def _write(file: Path, content: bytes) -> None:
    from edgewright_contract import durable

    durable.write(file.absolute(), content, mode=0o600)


def _now() -> datetime:
    return datetime.now(timezone.utc)
