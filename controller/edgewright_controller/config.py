"""The controller's settings: one frozen value from `controller.toml` and flags, flags first.

state = "/var/lib/edgewright"
fleet = "plant-7"                  # bound at the first start
names = ["edgewright.example"]     # what devices call this host; localhost is always among them

[listen]
grpc = "0.0.0.0:7443"              # mutual TLS: devices and operators
enrolment = "0.0.0.0:7444"         # TLS: devices without a certificate
mqtt = "0.0.0.0:7883"

[toolchains]                       # an interpreter for each, when not the controller's own
mlx = "/opt/mlx/bin/python"
openvino = "/opt/openvino/bin/python"  # builds for accelerator = "openvino"; must be named
reference = "/opt/torch/bin/python"   # what builds are compared with, when none of the others has torch

[builds]                           # without these, from the model's size and what the machine has free
memory = "12GB"                    # all that builds may hold together
stage_memory = "8GB"               # what one step of a build may hold
stage_deadline = "4h"              # how long one step may take
[sources]
keep = "200GB"                     # disk for models that were fetched; the longest unused ones go first

[store]
quota = "500GB"                    # beyond it, what no device and no release needs goes by itself; without it, nothing

[credentials.hub]                  # what a manifest's `credentials` names; see compile/sources/credentials.py
for = ["hf://acme/"]               # it is used for these only
token = { env = "HF_TOKEN" }       # or { file = "/run/secrets/hf" }, or { keyring = "service/user" }

[downloads]
streams = 256                      # so many downloads at once; who comes beyond that is told when to come back
stalled_after = "30s"              # a device that takes nothing for so long loses its download

[broker]
mode = "managed"                   # "external" with address = "host:port", or "off"
mosquitto = "/opt/bin/mosquitto"

[retention]
reports = "48h"                    # what devices reported is kept this long; the newest of each device stays

[identity]
return_within_days = 90            # a device whose certificate ended comes back by itself until then; 0: never
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Final

import tomli

from edgewright_contract import names, small_file
from edgewright_contract.release import RUNTIMES
from edgewright_controller.compile.sources import credentials as source_credentials
from edgewright_controller.compile.sources.credentials import Credentials, CredentialsError
from edgewright_controller.compile.stages import BuildLimits
from edgewright_controller.compile.toolchain import OPENVINO, REFERENCE
from edgewright_controller.manifest import quantities
from edgewright_controller.service.download_slots import STREAMS
from edgewright_controller.service.reading import PATIENCE_S

DEFAULT_GRPC: Final = "127.0.0.1:7443"
DEFAULT_ENROLMENT: Final = "127.0.0.1:7444"
DEFAULT_MQTT: Final = "127.0.0.1:7883"
DEFAULT_FLEET: Final = "fleet"
DEFAULT_REPORTS_KEPT: Final = "48h"
DEFAULT_SOURCES_KEPT: Final = "200GB"
DEFAULT_RETURN_DAYS: Final = 90
MAX_RETURN_DAYS: Final = 3650
DEFAULT_STALLED_AFTER: Final = f"{PATIENCE_S:.0f}s"
MAX_STREAMS: Final = 10_000
MAX_FILE_BYTES: Final = 1 << 20

# Toolchains for which no interpreter is taken unless one is named.
_NAMED: Final = (REFERENCE, OPENVINO)
_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "": (
        *("state", "fleet", "names", "listen", "toolchains", "builds", "sources", "store", "credentials"),
        *("downloads", "broker", "retention", "identity"),
    ),
    "listen": ("grpc", "enrolment", "mqtt"),
    "toolchains": (*RUNTIMES, *_NAMED),
    "builds": ("memory", "stage_memory", "stage_deadline"),
    "sources": ("keep",),
    "store": ("quota",),
    "downloads": ("streams", "stalled_after"),
    "broker": ("mode", "address", "mosquitto"),
    "retention": ("reports",),
    "identity": ("return_within_days",),
}


class SettingsError(ValueError):
    """A setting is wrong; the message names the file or flag, the key, and what would be right."""


class BrokerMode(Enum):
    """Where the MQTT broker comes from."""

    MANAGED = "managed"
    EXTERNAL = "external"
    OFF = "off"


@dataclass(frozen=True)
class Address:
    """A host and a port; port 0 means: whichever is free."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Settings:
    """Everything `run.serve` needs to know. `fleet` is None when not given: the state folder knows it."""

    state: Path
    fleet: str | None = None
    names: tuple[str, ...] = ()
    grpc: Address = field(default_factory=lambda: parse_address(DEFAULT_GRPC, "listen.grpc"))
    enrolment: Address = field(default_factory=lambda: parse_address(DEFAULT_ENROLMENT, "listen.enrolment"))
    mqtt: Address = field(default_factory=lambda: parse_address(DEFAULT_MQTT, "listen.mqtt"))
    interpreters: Mapping[str, str] = field(default_factory=lambda: dict.fromkeys(RUNTIMES, sys.executable))
    builds: BuildLimits = field(default_factory=BuildLimits)
    sources_kept_bytes: int = field(default_factory=lambda: _size({}, "keep", DEFAULT_SOURCES_KEPT, "sources."))
    store_quota_bytes: int = 0  # 0: no bound
    credentials: Mapping[str, Credentials] = field(default_factory=dict)
    download_streams: int = STREAMS
    stalled_after_s: float = PATIENCE_S
    broker: BrokerMode = BrokerMode.MANAGED
    broker_address: Address | None = None
    mosquitto: Path | None = None
    return_within_days: int = DEFAULT_RETURN_DAYS
    reports_kept_s: int = field(default_factory=lambda: _duration({}, "reports", DEFAULT_REPORTS_KEPT, "retention."))


def parse_address(text: str, key: str) -> Address:
    """`host:port`, IPv6 in brackets. Raises SettingsError that names `key`."""
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"{key}: {text!r} is not host:port, for example 127.0.0.1:7443")
    return Address(host, int(port))


def load(file: Path | None, flags: Mapping[str, str | None], default_state: Path) -> Settings:
    """Settings from `file` (if any), overridden by `flags` whose value is not None.

    Flags are named as keys of the file: "state", "fleet", "listen.grpc", "broker.mode". Raises SettingsError.
    """
    document = _read(file) if file else {}
    where = str(file) if file else "flags"
    for key, value in flags.items():
        if value is not None:
            table, _, leaf = key.rpartition(".")
            (document.setdefault(table, {}) if table else document)[leaf] = value
    try:
        return _settings(document, default_state)
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from error


def _read(file: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = tomli.loads(small_file.read_text(file, MAX_FILE_BYTES))
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from error
    except small_file.TooLarge as error:
        raise SettingsError(f"{file}: {error}; that is no configuration") from error
    except ValueError as error:
        raise SettingsError(f"{file}: not TOML: {error}") from error
    return document


def _settings(document: dict[str, Any], default_state: Path) -> Settings:
    _known("", document)
    listen, toolchains, builds, sources, store = (
        _table(document, key) for key in ("listen", "toolchains", "builds", "sources", "store")
    )
    downloads, broker, retention, identity = (
        _table(document, key) for key in ("downloads", "broker", "retention", "identity")
    )
    fleet = _text(document, "fleet", "") or None
    if fleet is not None and not names.is_id(fleet):
        raise SettingsError(f"fleet: {fleet!r}; a fleet's name has lower-case letters, digits and hyphens")
    own_names = document.get("names", [])
    if not isinstance(own_names, list) or not all(isinstance(name, str) and name for name in own_names):
        raise SettingsError("names: must be a list of host names or addresses")
    mode = _text(broker, "mode", BrokerMode.MANAGED.value, "broker.")
    if mode not in [known.value for known in BrokerMode]:
        raise SettingsError(f"broker.mode: {mode!r}; there are {', '.join(known.value for known in BrokerMode)}")
    address = _text(broker, "address", "", "broker.")
    if (mode == BrokerMode.EXTERNAL.value) != bool(address):
        raise SettingsError(
            'broker.address: goes with mode = "external", and only with it; write both under [broker] in the file '
            "of --settings"
        )
    mosquitto = _text(broker, "mosquitto", "", "broker.")
    return Settings(
        state=Path(_text(document, "state", str(default_state))).expanduser().absolute(),
        fleet=fleet,
        names=tuple(own_names),
        grpc=parse_address(_text(listen, "grpc", DEFAULT_GRPC, "listen."), "listen.grpc"),
        enrolment=parse_address(_text(listen, "enrolment", DEFAULT_ENROLMENT, "listen."), "listen.enrolment"),
        mqtt=parse_address(_text(listen, "mqtt", DEFAULT_MQTT, "listen."), "listen.mqtt"),
        interpreters={
            name: _interpreter(toolchains, name)
            for name in (*RUNTIMES, *_NAMED)
            if name in RUNTIMES or name in toolchains
        },
        builds=_builds(builds),
        sources_kept_bytes=_size(sources, "keep", DEFAULT_SOURCES_KEPT, "sources."),
        store_quota_bytes=_size(store, "quota", "", "store.") if "quota" in store else 0,
        credentials=_credentials(document),
        download_streams=_streams(downloads),
        stalled_after_s=float(_duration(downloads, "stalled_after", DEFAULT_STALLED_AFTER, "downloads.")),
        broker=BrokerMode(mode),
        broker_address=parse_address(address, "broker.address") if address else None,
        mosquitto=Path(mosquitto).expanduser() if mosquitto else None,
        return_within_days=_days(identity, "return_within_days", DEFAULT_RETURN_DAYS, "identity."),
        reports_kept_s=_duration(retention, "reports", DEFAULT_REPORTS_KEPT, "retention."),
    )


def _credentials(document: Mapping[str, Any]) -> Mapping[str, Credentials]:
    try:
        return source_credentials.parse(document.get("credentials", {}))
    except CredentialsError as error:
        raise SettingsError(str(error)) from error


def _interpreter(toolchains: Mapping[str, Any], runtime: str) -> str:
    path = os.path.expanduser(_text(toolchains, runtime, sys.executable, "toolchains."))
    if not os.access(path, os.X_OK):
        raise SettingsError(f"toolchains.{runtime}: {path} cannot be executed; name a Python interpreter")
    return path


def _builds(table: Mapping[str, Any]) -> BuildLimits:
    def memory(key: str) -> int | None:
        if key not in table:
            return None
        text = _text(table, key, "", "builds.")
        found = quantities.size_bytes(text)
        if not found:
            raise SettingsError(f'builds.{key}: {text!r} is not a size with its unit, like "12GB" or "800MB"')
        return found

    deadline = float(_duration(table, "stage_deadline", "", "builds.")) if "stage_deadline" in table else None
    return BuildLimits(memory("memory"), memory("stage_memory"), deadline)


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise SettingsError(f"{key}: must be a table, [{key}]")
    _known(key, table)
    return table


def _known(table: str, document: Mapping[str, Any]) -> None:
    for key in document:
        if key not in _KEYS[table]:
            near = difflib.get_close_matches(key, _KEYS[table], 1)
            advice = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(_KEYS[table])}"
            raise SettingsError(f"{table + '.' if table else ''}{key}: unknown key; {advice}")


def _text(document: Mapping[str, Any], key: str, default: str, prefix: str = "") -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        raise SettingsError(f"{prefix}{key}: {value!r} must be text")
    return value


def _streams(table: Mapping[str, Any]) -> int:
    value = table.get("streams", STREAMS)
    if type(value) is not int or not 1 <= value <= MAX_STREAMS:
        raise SettingsError(f"downloads.streams: {value!r} is not a number of downloads from 1 to {MAX_STREAMS:,}")
    return value


def _days(document: Mapping[str, Any], key: str, default: int, prefix: str) -> int:
    value = document.get(key, default)
    if type(value) is not int or not 0 <= value <= MAX_RETURN_DAYS:
        raise SettingsError(f"{prefix}{key}: {value!r} is not a number of days from 0 (never) to {MAX_RETURN_DAYS}")
    return value


def _duration(document: Mapping[str, Any], key: str, default: str, prefix: str) -> int:
    text = _text(document, key, default, prefix)
    found = quantities.seconds(text)
    if found is None:
        raise SettingsError(f'{prefix}{key}: {text!r} is not a duration with its unit, like "90m", "48h" or "7d"')
    return found


def _size(document: Mapping[str, Any], key: str, default: str, prefix: str) -> int:
    text = _text(document, key, default, prefix)
    found = quantities.size_bytes(text)
    if found is None:
        raise SettingsError(f'{prefix}{key}: {text!r} is not a size, like "200GB" or "64GiB"')
    return found
