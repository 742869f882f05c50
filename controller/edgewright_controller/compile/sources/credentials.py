"""Secrets for fetching, by name. A manifest says a name; the controller's settings say where the secret lies, and for
which sources it may be used:

    [credentials.hub]
    for = ["hf://acme/"]
    token = { env = "HF_TOKEN" }

    [credentials.bucket]
    for = ["s3://acme-models/"]
    access_key_id = { env = "MODELS_KEY_ID" }
    secret_access_key = { file = "/run/secrets/models" }
    region = "eu-central-1"

Who may apply a manifest chooses addresses, not secrets: without `for`, any address would do to carry a secret away.
`parse` and `covers` are pure. A secret is read when something is fetched, and kept nowhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from edgewright_contract import names, small_file
from edgewright_controller.compile.sources.reference import SCHEMES, Objects, Reference

MAX_SECRET_BYTES: Final = 64 << 10

# What each kind of source may be given: secrets, and what is said openly.
_SECRETS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "hf": ("token",),
        "https": ("token",),
        "s3": ("access_key_id", "secret_access_key", "session_token"),
        "gs": ("service_account_key",),
        "az": ("access_key", "sas_token"),
    }
)
_OPEN: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"hf": (), "https": (), "s3": ("region", "endpoint"), "gs": ("endpoint",), "az": ("account", "endpoint")}
)
_PLACES: Final = ("env", "file", "keyring")


class CredentialsError(ValueError):
    """Credentials cannot be used; the message names the key and what to do, and never a secret."""


@dataclass(frozen=True)
class Place:
    """Where one secret lies: `kind` is env (a variable of the controller), file, or keyring (service/user)."""

    kind: str
    name: str


@dataclass(frozen=True)
class Credentials:
    """One entry of the settings. `scopes` are beginnings of sources, all of one scheme."""

    name: str
    scopes: tuple[str, ...]
    secrets: tuple[tuple[str, Place], ...]
    options: tuple[tuple[str, str], ...]

    def covers(self, source: Reference) -> bool:
        """Whether the secret may be sent to fetch this."""
        place = f"{source}/" if isinstance(source, Objects) else str(source)
        return any(place.startswith(scope) for scope in self.scopes)


class Secrets:
    """Secrets that were read, by what they are. Says nothing of them when it is printed."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __repr__(self) -> str:
        return f"Secrets({', '.join(self._values)})"

    def __iter__(self) -> Iterator[str]:
        return iter(self._values.values())

    def for_the_child(self) -> dict[str, str]:
        """The secrets themselves, for the request to the one child that needs them."""
        return dict(self._values)


NO_SECRETS: Final = Secrets({})


def parse(document: Any) -> Mapping[str, Credentials]:
    """The table `credentials` of the settings, by name. Raises CredentialsError."""
    if not isinstance(document, dict):
        raise CredentialsError("credentials: must be a table of tables, [credentials.NAME]")
    return MappingProxyType({name: _entry(name, table) for name, table in document.items()})


def read(credentials: Credentials, environment: Mapping[str, str] = os.environ) -> Secrets:
    """The secrets, from where they lie. Raises CredentialsError."""
    return Secrets(
        {
            what: _read(f"credentials.{credentials.name}.{what}", place, environment)
            for what, place in credentials.secrets
        }
    )


def _entry(name: str, table: Any) -> Credentials:
    key = f"credentials.{name}"
    if not names.is_id(name):
        raise CredentialsError(f"{key}: a name has lower-case letters, digits and hyphens")
    if not isinstance(table, dict):
        raise CredentialsError(f"{key}: must be a table, [{key}]")
    scopes = table.get("for")
    if not (isinstance(scopes, list) and scopes and all(isinstance(scope, str) for scope in scopes)):
        raise CredentialsError(f'{key}.for: must list what it may be used for, such as ["hf://acme/"]')
    schemes = {_scheme(key, scope) for scope in scopes}
    if len(schemes) > 1:
        raise CredentialsError(f"{key}.for: names {' and '.join(sorted(schemes))}; make an entry for each")
    scheme = schemes.pop()
    known = ("for", *_SECRETS[scheme], *_OPEN[scheme])
    for unknown in table.keys() - set(known):
        raise CredentialsError(f"{key}.{unknown}: unknown key; for {scheme}:// there are {', '.join(known)}")
    secrets = tuple((what, _place(f"{key}.{what}", table[what])) for what in _SECRETS[scheme] if what in table)
    options = tuple((what, _option(f"{key}.{what}", table[what])) for what in _OPEN[scheme] if what in table)
    given = {what for what, _ in secrets}
    if scheme == "s3" and ("access_key_id" in given) != ("secret_access_key" in given):
        raise CredentialsError(f"{key}: access_key_id and secret_access_key go together")
    if scheme == "az" and "account" not in dict(options):
        raise CredentialsError(f"{key}.account: missing; the name of the storage account")
    if not secrets and not options:
        raise CredentialsError(f"{key}: has no secret; for {scheme}:// there are {', '.join(_SECRETS[scheme])}")
    return Credentials(name, tuple(scopes), secrets, options)


def _scheme(key: str, scope: str) -> str:
    scheme, separator, rest = scope.partition("://")
    # Without the slash, s3://models would also be s3://models-of-somebody-else. Only of the web is everything too much:
    # a token goes there as it is, to whatever host.
    whole = rest.endswith("/") and rest != "/"
    if not separator or scheme not in SCHEMES or not (whole or (rest == "" and scheme != "https")):
        raise CredentialsError(
            f"{key}.for: {scope[:80]!r} is no beginning of a source; write it up to a slash, such as "
            '"hf://acme/", "s3://bucket/" or "https://models.example/"'
        )
    return scheme


def _place(key: str, value: Any) -> Place:
    if isinstance(value, dict) and len(value) == 1:
        [(kind, name)] = value.items()
        if kind in _PLACES and isinstance(name, str) and name:
            if kind == "keyring" and "/" not in name:
                raise CredentialsError(f'{key}.keyring: write it as "service/user"')
            return Place(kind, name)
    # What stands there instead may be the secret itself, so it is not repeated.
    raise CredentialsError(
        f'{key}: says where the secret lies: {{ env = "NAME" }}, {{ file = "/path" }} or '
        '{ keyring = "service/user" }; the secret itself never stands in a file of settings'
    )


def _option(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or not value:
        raise CredentialsError(f"{key}: must be text")
    return value


def _read(key: str, place: Place, environment: Mapping[str, str]) -> str:
    if place.kind == "env":
        text = environment.get(place.name, "")
        if not text:
            raise CredentialsError(f"{key}: the controller's environment has no {place.name}; set it, and start again")
    elif place.kind == "file":
        text = _from_file(key, Path(place.name))
    else:
        text = _from_keyring(key, place.name)
    text = text.strip()
    if not text or len(text) > MAX_SECRET_BYTES:
        raise CredentialsError(f"{key}: {place.kind} {place.name}: empty, or no secret")
    return text


def _from_file(key: str, path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if os.name != "nt" and stat.S_IMODE(mode) & 0o077:
            raise CredentialsError(f"{key}: others may read {path}; chmod 600 {path}")
        return small_file.read_text(path, MAX_SECRET_BYTES)
    except OSError as error:
        raise CredentialsError(f"{key}: {path}: {error.strerror}") from error
    except (small_file.TooLarge, UnicodeDecodeError):
        # What the decoder says would tell a piece of the secret.
        raise CredentialsError(f"{key}: {path}: no text, or longer than {MAX_SECRET_BYTES:,} bytes") from None


def _from_keyring(key: str, name: str) -> str:
    try:
        import keyring
        import keyring.errors
    except ImportError as error:
        raise CredentialsError(f"{key}: keyring is not installed; pip install 'edgewright[sources]'") from error
    service, _, user = name.rpartition("/")
    try:
        secret = keyring.get_password(service, user)
    except keyring.errors.KeyringError as error:
        raise CredentialsError(f"{key}: the keyring cannot be read: {error}") from error
    if secret is None:
        raise CredentialsError(f"{key}: the keyring has nothing for {user} of {service}; `keyring set` puts it there")
    return secret
