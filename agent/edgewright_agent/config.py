"""The agent's configuration: one TOML file, read once at the start.

    device = "jetson-01"            # optional; when given it must be the certificate's device
    state = "/var/lib/edgewright"   # relative paths start at this file's folder

    [controller]
    address = "controller.local:7443"   # instead of the address learnt at enrolment

    [mqtt]
    enabled = true
    address = "controller.local:8883"   # instead of the address learnt at enrolment

    [gateway]
    listen = "127.0.0.1:8080"

    [engines]
    confinement = "best"            # "require": no engine that is confined in part only; "off": none is confined
    user = "edgewright-engine"      # who engines are when the agent is root; without it nobody, by a free number

    [engines.gguf]                  # also mlx, onnx; a runtime that is not named is looked for
    python = "/opt/engines/bin/python"
    engine = "xllamacpp"
    threads = 2
    accelerators = ["cuda", "cpu"]
    enabled = true

    [disk]
    reserve = "512MB"               # what the agent leaves free
    quota = "20GB"                  # old versions are kept until all artifacts take so much; without it none is

    [verify]
    every = "7d"                    # how often artifacts are hashed again at rest; "never"

    [intervals]
    check_in = "60s"
    telemetry = "30s"

A key that is not in this list is an error: a misspelt one would otherwise be silently without effect.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import tomli

from edgewright_agent.engines import catalogue
from edgewright_agent.engines.confinement import BEST, MODES, ConfinementSettings
from edgewright_agent.quantities import parse_duration, parse_size
from edgewright_contract import names, small_file
from edgewright_contract.release import RUNTIMES

ACCELERATORS: Final = ("cpu", "cuda", "metal", "vulkan", "opencl", "qnn", "openvino", "dml", "webgpu")

MAX_BYTES: Final = 1 << 20

_T = TypeVar("_T")


class ConfigError(ValueError):
    """The configuration cannot be used. The text names the file and the key, and says what would be right."""


@dataclass(frozen=True)
class EngineConfig:
    """How one runtime is served here. An empty `python` is the agent's own interpreter, an empty `engine`
    the first one that is installed. `accelerators` are those that this device may claim for the runtime."""

    python: str = ""
    engine: str = ""
    threads: int = 1
    accelerators: tuple[str, ...] = ("cpu",)
    enabled: bool = True


@dataclass(frozen=True)
class AgentConfig:
    """The whole configuration, checked. Sizes in bytes, durations in seconds; None: learnt at enrolment.

    `disk_quota` 0: no artifact is kept that nothing needs. `verify_every_s` infinite: never."""

    file: Path
    state: Path
    device: str | None = None
    controller_address: str | None = None
    mqtt_address: str | None = None
    mqtt_enabled: bool = True
    gateway_host: str = "127.0.0.1"
    gateway_port: int = 8080
    engines: Mapping[str, EngineConfig] = field(default_factory=lambda: {name: EngineConfig() for name in RUNTIMES})
    confinement: ConfinementSettings = field(default_factory=ConfinementSettings)
    disk_reserve: int = 512_000_000
    disk_quota: int = 0
    verify_every_s: float = 7 * 86400.0
    check_in_s: float = 60.0
    telemetry_s: float = 30.0


def load(file: Path) -> AgentConfig:
    """Read and check `file`. Raises ConfigError."""
    try:
        text = small_file.read_text(file, MAX_BYTES)
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror or error}; name the configuration with --config") from error
    except small_file.TooLarge as error:
        raise ConfigError(f"{file}: {error}; that is no configuration") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not UTF-8 text: {error}") from error
    return parse(text, file)


def parse(text: str, file: Path) -> AgentConfig:
    """The configuration in `text`; `file` gives relative paths their folder and messages their name.

    Raises ConfigError.
    """
    try:
        document = tomli.loads(text)
    except tomli.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{file}: tables or lists nested too deeply") from error
    top = _Table(
        file,
        "",
        document,
        ("device", "state", "controller", "mqtt", "gateway", "engines", "disk", "verify", "intervals"),
    )
    controller = top.table("controller", ("address",))
    mqtt = top.table("mqtt", ("address", "enabled"))
    gateway = top.table("gateway", ("listen",))
    disk = top.table("disk", ("reserve", "quota"))
    verify = top.table("verify", ("every",))
    intervals = top.table("intervals", ("check_in", "telemetry"))
    host, port = gateway.checked("listen", ("127.0.0.1", 8080), str, lambda value: _address(value, lowest=0))
    device = top.optional("device", str)
    if device is not None and not names.is_id(device):
        raise top.error("device", f"{device!r} is not an id: small letters, digits and -, at most 63")
    state = top.optional("state", str)
    if not state:
        raise top.error("state", 'missing; name the folder of the agent\'s state, for example state = "state"')
    try:
        folder = (file.parent / Path(state).expanduser()).absolute()
    except RuntimeError as error:  # ~somebody who does not exist
        raise top.error("state", f"{state!r}: {str(error).lower()}; name a folder") from error
    engines = top.table("engines", (*RUNTIMES, "confinement", "user"))
    return AgentConfig(
        file=file,
        state=folder,
        device=device,
        controller_address=controller.checked("address", None, str, _joined_address),
        mqtt_address=mqtt.checked("address", None, str, _joined_address),
        mqtt_enabled=mqtt.given("enabled", True, bool),
        gateway_host=host,
        gateway_port=port,
        engines=_engines(engines),
        confinement=_confinement(engines),
        disk_reserve=disk.checked("reserve", 512_000_000, str, parse_size),
        disk_quota=disk.checked("quota", 0, str, parse_size),
        verify_every_s=verify.checked("every", 7 * 86400.0, str, _rhythm),
        check_in_s=intervals.checked("check_in", 60.0, str, _interval),
        telemetry_s=intervals.checked("telemetry", 30.0, str, _interval),
    )


def _confinement(table: _Table) -> ConfinementSettings:
    mode = table.given("confinement", BEST, str)
    if mode not in MODES:
        raise table.error("confinement", f"{mode!r} is no way to confine{_suggestion(mode, MODES)}")
    return ConfinementSettings(mode, table.given("user", "", str))


def _engines(table: _Table) -> dict[str, EngineConfig]:
    engines = {}
    for runtime in RUNTIMES:
        entry = table.table(runtime, ("python", "engine", "threads", "accelerators", "enabled"))
        threads = entry.given("threads", 1, int)
        if not 1 <= threads <= 1024:
            raise entry.error("threads", f"{threads} is out of range; write 1 to 1024")
        engine = entry.given("engine", "", str)
        known = catalogue.names(runtime)
        if engine and not engine.endswith(".py") and engine not in known:
            advice = _suggestion(engine, (*known, "the path of a .py file"))
            raise entry.error("engine", f"{engine!r} is no engine for {runtime}{advice}")
        engines[runtime] = EngineConfig(
            python=entry.given("python", "", str),
            engine=engine,
            threads=threads,
            accelerators=_accelerators(entry),
            enabled=entry.given("enabled", True, bool),
        )
    return engines


def _accelerators(entry: _Table) -> tuple[str, ...]:
    values = entry.given("accelerators", ["cpu"], list)
    for value in values:
        if value not in ACCELERATORS:
            raise entry.error("accelerators", f"{value!r} is not an accelerator{_suggestion(str(value), ACCELERATORS)}")
    if not values:
        raise entry.error("accelerators", 'empty; write ["cpu"] when there is none')
    return tuple(values)


def _address(text: str, lowest: int = 1) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not lowest <= int(port) <= 65535:
        raise ValueError(f'{text!r} is not an address; write "host:port"')
    return host.strip("[]"), int(port)


def _joined_address(text: str) -> str:
    _address(text)
    return text


def _interval(text: str) -> float:
    seconds = parse_duration(text)
    if not 1 <= seconds <= 86400:
        raise ValueError(f"{text!r} is out of range; write 1s to 1d")
    return seconds


def _rhythm(text: str) -> float:
    if text == "never":
        return math.inf
    seconds = parse_duration(text)
    if not 60 <= seconds <= 366 * 86400:
        raise ValueError(f'{text!r} is out of range; write 1m to 366d, or "never"')
    return seconds


def _suggestion(wrong: str, right: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong, list(right), n=1)
    return f'; did you mean "{near[0]}"?' if near else f"; there are {', '.join(right)}"


class _Table:
    """One table of the document, which knows where it stands so that an error can say so."""

    def __init__(self, file: Path, place: str, values: Mapping[str, Any], known: tuple[str, ...]) -> None:
        self._file, self._place, self._values = file, place, values
        for key in values:
            if key not in known:
                raise self.error(key, f"unknown key{_suggestion(key, known)}")

    def error(self, key: str, what: str) -> ConfigError:
        return ConfigError(f"{self._file}: {self._place}{key}: {what}")

    def optional(self, key: str, kind: type[_T]) -> _T | None:
        value = self._values.get(key)
        if value is None:
            return None
        # bool is an int to Python, and nobody means `threads = true`.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            words = {str: "text", int: "a whole number", bool: "true or false", dict: "a table", list: "a list"}
            raise self.error(key, f"{value!r} is not {words.get(kind, kind.__name__)}")
        return value

    def given(self, key: str, default: _T, kind: type[_T]) -> _T:
        value = self.optional(key, kind)
        return default if value is None else value

    def checked(self, key: str, default: _T, kind: type[str], convert: Callable[[str], _T]) -> _T:
        value = self.optional(key, kind)
        if value is None:
            return default
        try:
            return convert(value)
        except ValueError as error:
            raise self.error(key, str(error)) from error

    def table(self, key: str, known: tuple[str, ...]) -> _Table:
        values: dict[str, Any] = self.given(key, {}, dict)
        return _Table(self._file, f"{self._place}{key}.", values, known)
