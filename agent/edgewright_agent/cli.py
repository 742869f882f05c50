"""`edgewright-agent run | enroll | key | install | import | verify | repair | status`: one
clear line when something is wrong.

Exit codes: 0 it worked, 1 it failed, 2 the command or the configuration is wrong. Heavy parts are imported by the
command that needs them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from edgewright_agent import __version__, config
from edgewright_agent.config import AgentConfig, ConfigError
from edgewright_agent.database import StateDamaged
from edgewright_agent.state_lock import StateInUse, StateLock

_DEFAULT: Final = Path("agent.toml")
_HEALTH_S: Final = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    given = _parser().parse_args(arguments)
    try:
        code: int = given.command(given)
    except ConfigError as error:
        return _say(str(error), 2)
    except (StateDamaged, StateInUse) as error:
        return _say(str(error), 1)
    except OSError as error:
        return _say(f"{error.filename or 'the agent'}: {error.strerror or error}", 1)
    except KeyboardInterrupt:
        return 130
    return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one line, as everything else does, and takes no half-written flags."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        sys.exit(_say(f"{message}; see {self.prog} --help", 2))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="edgewright-agent", description="Serves what the controller signed for it.")
    parser.add_argument("--version", action="version", version=f"edgewright-agent {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="serve, and follow the controller")
    run.add_argument("--config", type=Path, default=_DEFAULT, metavar="FILE", help="default: agent.toml")
    run.set_defaults(command=_run)

    enroll = commands.add_parser("enroll", help="get this device's certificate with a token")
    enroll.add_argument("--token", required=True, help="what `edgewright enroll create` printed; - reads it")
    place = enroll.add_mutually_exclusive_group()
    place.add_argument("--config", type=Path, default=_DEFAULT, metavar="FILE", help="default: agent.toml")
    place.add_argument("--state", type=Path, metavar="DIR", help="the state folder, without a configuration")
    enroll.set_defaults(command=_enroll)

    install = commands.add_parser("install", help="install what an offline mandate says, without a network")
    install.add_argument("--mandate", type=Path, required=True, metavar="FILE", help="the signed mandate")
    install.add_argument("--content", type=Path, metavar="DIR", help="a folder that has the artifact, as on a stick")
    install.add_argument("--config", type=Path, default=_DEFAULT, metavar="FILE", help="default: agent.toml")
    install.set_defaults(command=_install)
    bring = commands.add_parser("import", help="install what `edgewright bundle export` wrote, without a network")
    bring.add_argument("file", type=Path, metavar="FILE", help="what was carried here; it must stay until it serves")
    bring.add_argument("--mandate", type=Path, metavar="FILE", help="the signed mandate; else in FILE, or beside it")
    bring.add_argument("--config", type=Path, default=_DEFAULT, metavar="FILE", help="default: agent.toml")
    bring.set_defaults(command=_import)
    for name, told, command in (
        ("verify", "hash all artifacts again and say what is damaged; exit code 1 when something is", _verify),
        ("repair", "the same, and fetch what is damaged anew", _repair),
    ):
        care = commands.add_parser(name, help=told)
        care.add_argument("--config", type=Path, default=_DEFAULT, metavar="FILE", help="default: agent.toml")
        care.set_defaults(command=command)
    key = commands.add_parser("key", help="print this device's public key, for `edgewright enroll authorise`")
    key.add_argument("--config", type=Path, default=_DEFAULT, metavar="FILE", help="default: agent.toml")
    key.set_defaults(command=_key)

    status = commands.add_parser("status", help="what this device serves and how its last update ended")
    status.add_argument("--config", type=Path, default=_DEFAULT, metavar="FILE", help="default: agent.toml")
    status.add_argument("--json", action="store_true", help="for scripts")
    status.set_defaults(command=_status)
    return parser


def _run(given: argparse.Namespace) -> int:
    from edgewright_agent.gateway import PortTaken
    from edgewright_agent.identity import IdentityError
    from edgewright_agent.run import run

    try:
        run(config.load(given.config))
    except (IdentityError, PortTaken) as error:
        return _say(str(error), 1)
    return 0


def _enroll(given: argparse.Namespace) -> int:
    from edgewright_agent.enrolment import enrol
    from edgewright_agent.identity import IdentityError

    settings = None if given.state is not None else config.load(given.config)
    state = given.state.absolute() if settings is None else settings.state
    token = sys.stdin.readline() if given.token == "-" else given.token
    try:
        _check_device(token, settings)
        with StateLock(state):
            identity = enrol(token, state)
    except IdentityError as error:
        return _say(str(error), 1)
    print(f"{identity.device} is enrolled in fleet {identity.fleet}; its state is in {state}")  # noqa: T201 the answer
    return 0


def _key(given: argparse.Namespace) -> int:
    from cryptography.hazmat.primitives import serialization

    from edgewright_agent.device_key import FileKeys, IdentityError
    from edgewright_agent.identity import FOLDER
    from edgewright_agent.key_pairs import Pairs
    from edgewright_contract import digest

    settings, keys = config.load(given.config), FileKeys()
    try:
        folder = Pairs(settings.state / FOLDER, keys).current().folder
        if keys.has(folder):
            public = keys.load(folder).public_key()
        else:
            with StateLock(settings.state):
                public = keys.make(folder).public_key()
    except IdentityError as error:
        return _say(str(error), 1)
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    print(public.public_bytes(serialization.Encoding.PEM, spki).decode(), end="")  # noqa: T201 the answer
    named = digest.of_bytes(public.public_bytes(serialization.Encoding.DER, spki))
    print(f"sha256 {named}", file=sys.stderr)  # noqa: T201 beside the answer, so that a file gets the PEM alone
    return 0


def _check_device(token: str, settings: AgentConfig | None) -> None:
    """Before the token is spent: it must be for the device that the configuration names."""
    from edgewright_contract import enrolment_token

    if settings is None or settings.device is None:
        return
    try:
        device = enrolment_token.parse(token).device
    except enrolment_token.TokenError:
        return  # enrol says what is wrong with it
    if device != settings.device:
        raise ConfigError(f"{settings.file}: device: {settings.device!r}, but the token is for {device!r}")


def _install(given: argparse.Namespace) -> int:
    from edgewright_agent.identity import IdentityError
    from edgewright_agent.install import NotInstalled, install

    try:
        install(config.load(given.config), given.mandate, given.content, _tell)
    except (IdentityError, NotInstalled) as error:
        return _say(str(error), 1)
    return 0


def _import(given: argparse.Namespace) -> int:
    from edgewright_agent.identity import IdentityError
    from edgewright_agent.install import NotInstalled, bring

    try:
        bring(config.load(given.config), given.file, given.mandate, _tell)
    except (IdentityError, NotInstalled) as error:
        return _say(str(error), 1)
    return 0


def _verify(given: argparse.Namespace) -> int:
    from edgewright_agent.repair import NoArtifacts, verify

    try:
        return 1 if verify(config.load(given.config), _tell) else 0
    except NoArtifacts as error:
        return _say(str(error), 1)


def _repair(given: argparse.Namespace) -> int:
    from edgewright_agent.identity import IdentityError
    from edgewright_agent.repair import NoArtifacts, NotRepaired, repair

    try:
        repair(config.load(given.config), _tell)
    except (IdentityError, NoArtifacts, NotRepaired) as error:
        return _say(str(error), 1)
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)  # noqa: T201 the answer


def _status(given: argparse.Namespace) -> int:
    from edgewright_agent import status

    settings = config.load(given.config)
    try:
        read = status.read(settings.state)
    except status.NoState as error:
        return _say(str(error), 1)
    read |= _certificate(settings.state)
    read["mandate_until"] = _mandate_until(settings.state)
    read["health"] = _health(read["endpoint"]) if read["running"] else {"status": "not running"}
    if given.json:
        print(json.dumps(read, indent=2))  # noqa: T201 the answer
    else:
        print("\n".join(_lines(read)))  # noqa: T201 the answer
    return 0


def _certificate(state: Path) -> dict[str, str]:
    """When this device's certificate ends and when it is renewed, or what is wrong with the identity."""
    from datetime import datetime, timezone

    from edgewright_agent import certificate_life
    from edgewright_agent.identity import Identity, IdentityError

    try:
        identity = Identity.load(state)
    except IdentityError as error:
        return {"certificate_until": "", "certificate_renews": "", "identity_fault": str(error)}
    life, now = identity.life, datetime.now(timezone.utc)
    return {
        "certificate_until": f"{life.not_after:%Y-%m-%d}",
        "certificate_renews": f"{certificate_life.renews_at(identity.device, life):%Y-%m-%d}",
        "identity_fault": certificate_life.trouble(life, life.not_before, now),
    }


def _mandate_until(state: Path) -> str:
    """When the mandate that is in force here ends, empty without one."""
    from edgewright_agent import trust_rows

    document = trust_rows.mandate_in(state / "agent.sqlite")
    if document is None:
        return ""
    from edgewright_agent import trust_mandate

    return f"{trust_mandate.end_of(document):%Y-%m-%d}"


def _health(endpoint: str) -> dict[str, Any]:
    """What the gateway itself says."""
    import http.client
    from urllib.parse import urlsplit

    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=_HEALTH_S)
    try:
        connection.request("GET", "/health")
        answer: dict[str, Any] = json.loads(connection.getresponse().read(1 << 16))
    except (OSError, ValueError, http.client.HTTPException) as error:
        return {"status": "no answer", "reason": f"{endpoint}: {error}"}
    finally:
        connection.close()
    return answer


def _lines(read: dict[str, Any]) -> list[str]:
    health, active = read["health"], read["active_release"]
    shown = {
        "agent": "running" if read["running"] else "not running",
        "health": " ".join(filter(None, [health.get("status"), health.get("reason")])),
        "serves": f"{read['active_model']}, release {active[:12]}" if active else "nothing",
        "endpoint": read["endpoint"],
        "update": f"generation {read['generation']}: {read['step']}, {read['outcome']}",
        "download": _download(read),
        "why": " ".join(filter(None, [read["error"], read["reason"]])),
        "previous": read["previous_release"][:12],
        "identity": read["identity_fault"] or _life(read),
        "mandate": f"until {read['mandate_until']}" if read["mandate_until"] else "",
        "held": ", ".join(release[:12] for release in read["held_releases"]),
        "damaged": "; ".join([*read["damaged"], *read["not_mended"]]),
        "verified": _day(read["verified_unix"]) if read["verified_unix"] and not read["damaged"] else "",
        "confined": _confined(read["unconfined"]),
    }
    return [f"{key + ':':<10} {value}" for key, value in shown.items() if value]


def _life(read: dict[str, Any]) -> str:
    return f"until {read['certificate_until']}, renewed from {read['certificate_renews']} on"


def _download(read: dict[str, Any]) -> str:
    if read["downloads_paused"]:
        return "paused on request"
    if not read["total_bytes"]:
        return ""
    from edgewright_agent.quantities import size_in_words, span_in_words

    done = f"{size_in_words(read['done_bytes'])} of {size_in_words(read['total_bytes'])}"
    rate = f"{size_in_words(read['bytes_per_s'])}/s" if read["bytes_per_s"] else ""
    left = f"{span_in_words(read['remaining_s'])} left" if read["remaining_s"] else ""
    return ", ".join(filter(None, [done, rate, left]))


def _day(unix: float) -> str:
    from datetime import datetime, timezone

    return f"{datetime.fromtimestamp(unix, timezone.utc):%Y-%m-%d}"


def _confined(lacking: list[str] | None) -> str:
    """How far engines are confined; empty when no agent has found out yet."""
    if lacking is None:
        return ""
    return f"all but: {', '.join(lacking)}" if lacking else "in all that this version knows"


def _say(message: str, code: int) -> int:
    print(f"edgewright-agent: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201 the one line
    return code


if __name__ == "__main__":
    sys.exit(main())
