"""A release: an artifact with everything that goes with it, as one unit of rollout and rollback.

Its name is the sha256 of its canonical JSON. The director signs the whole document into the device's
targets, so that runtime options and probes are as authentic as the artifact.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from edgewright_contract import canonical, digest, names

FORMAT: Final = 1
RUNTIMES: Final = ("gguf", "mlx", "onnx")
MAX_PROBES: Final = 32
MAX_PROMPT_BYTES: Final = 16 << 10

Option = str | int | bool


class ReleaseError(ValueError):
    """The document is not a release."""


@dataclass(frozen=True)
class Probe:
    """A question that a new version must answer before it takes traffic.

    `expect` is a substring, `expect_regex` a Python regular expression searched for; at most one is
    set. With neither, any non-empty answer satisfies. Decoding is greedy.
    """

    name: str
    prompt: str
    expect: str = ""
    expect_regex: str = ""
    max_tokens: int = 16
    timeout_s: int = 60


@dataclass(frozen=True)
class Release:
    """One model for one profile. `artifact` and `engine` are bundle digests; `engine` may be empty,
    which means the engine that the device has. `options` are the runtime's: context, parallel, threads…; one is
    the gateway's: `served_name`; and one, `chat_template`, is the sha256 of the template that the engine must use.
    `memory_bytes` is what the device must have free to load it, as predicted at build time."""

    model: str
    profile: str
    runtime: str
    artifact: str
    accelerator: str
    memory_bytes: int
    options: Mapping[str, Option] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()
    engine: str = ""

    @property
    def hw_class(self) -> str:
        """The kind of hardware that the image repository must name for the artifact."""
        return hw_class(self.runtime, self.accelerator)

    @property
    def served_name(self) -> str:
        """The name that clients ask for: the option of this name, else the model's id."""
        return str(self.options.get("served_name", self.model))

    @property
    def chat_template(self) -> str:
        """The sha256 of the artifact's chat template (model_files.chat_template), empty when it is not pinned."""
        return str(self.options.get("chat_template", ""))

    def to_json(self) -> dict[str, Any]:
        """The document, ready for `canonical.encode`."""
        document = asdict(self)
        document["options"] = dict(self.options)
        document["probes"] = [asdict(probe) for probe in self.probes]
        document["edgewright_release"] = FORMAT
        return document

    @property
    def digest(self) -> str:
        """The release's name."""
        return digest.of_bytes(canonical.encode(self.to_json()))


def hw_class(runtime: str, accelerator: str) -> str:
    """`gguf` on `cuda` → `gguf-cuda`."""
    return f"{runtime}-{accelerator}"


def from_json(document: Any) -> Release:
    """A release from a signed but unchecked document. Raises ReleaseError."""
    try:
        value = dict(document)
        if value.pop("edgewright_release") != FORMAT:
            raise ReleaseError(f"release format is not {FORMAT}; update the agent")
        probes = tuple(Probe(**_typed(Probe, probe)) for probe in value.pop("probes"))
        options = value.pop("options")
        if not isinstance(options, dict):
            raise ReleaseError(f"options: {options!r} is not a table")
        release = Release(**_typed(Release, value), options=options, probes=probes)
        _check(release)
        canonical.encode(release.to_json())  # what has no digest is no release
    except ReleaseError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ReleaseError(f"not a release: {error!r}") from error
    return release


def _typed(kind: type, value: Mapping[str, Any]) -> dict[str, Any]:
    types = {"str": str, "int": int}
    for key, item in value.items():
        wanted = types.get(kind.__annotations__.get(key, ""))
        if wanted is not None and type(item) is not wanted:
            raise ReleaseError(f"{key}: {item!r} is not of type {wanted.__name__}")
    return dict(value)


def _check(release: Release) -> None:
    for key in ("model", "profile", "accelerator"):
        if not names.is_id(getattr(release, key)):
            raise ReleaseError(f"{key}: {getattr(release, key)!r} is not an id")
    if release.runtime not in RUNTIMES:
        raise ReleaseError(f"runtime: {release.runtime!r}; there are {', '.join(RUNTIMES)}")
    if not digest.is_sha256(release.artifact):
        raise ReleaseError(f"artifact: {release.artifact!r} is not a sha256")
    if release.engine and not digest.is_sha256(release.engine):
        raise ReleaseError(f"engine: {release.engine!r} is not a sha256")
    if release.memory_bytes < 0:
        raise ReleaseError(f"memory_bytes: {release.memory_bytes}")
    for key, option in release.options.items():
        if not isinstance(key, str) or not isinstance(option, str | int | bool):
            raise ReleaseError(f"options.{key}: {option!r} is neither text, a whole number nor a boolean")
    served_name = release.options.get("served_name", release.model)
    if not isinstance(served_name, str) or not names.is_served_name(served_name):
        raise ReleaseError(f"options.served_name: {served_name!r} is not a name that clients could ask for")
    pinned = release.options.get("chat_template", "0" * 64)
    if not isinstance(pinned, str) or not digest.is_sha256(pinned):
        raise ReleaseError(f"options.chat_template: {pinned!r} is not a sha256")
    if len(release.probes) > MAX_PROBES:
        raise ReleaseError(f"{len(release.probes)} probes; at most {MAX_PROBES}")
    for probe in release.probes:
        if len(probe.prompt.encode()) > MAX_PROMPT_BYTES or not probe.prompt:
            raise ReleaseError(f"probe {probe.name}: the prompt is empty or too long")
        if probe.expect and probe.expect_regex:
            raise ReleaseError(f"probe {probe.name}: both expect and expect_regex")
        if not (0 < probe.max_tokens <= 4096 and 0 < probe.timeout_s <= 3600):
            raise ReleaseError(f"probe {probe.name}: max_tokens or timeout_s out of range")
        try:
            re.compile(probe.expect_regex)
        except re.error as error:
            raise ReleaseError(f"probe {probe.name}: expect_regex: {error}") from error
