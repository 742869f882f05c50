"""The manifest as values. Its docstrings are also what an editor shows, through `json_schema`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from edgewright_contract import names, release
from edgewright_controller.compile.sources import reference
from edgewright_controller.delivery.terms import Terms
from edgewright_controller.manifest.assignment import Assignment, Fault, assign, members
from edgewright_controller.manifest.delivery import Delivery, Site, delivery_faults, delivery_warnings, terms
from edgewright_controller.manifest.errors import ManifestError, Problem, dotted
from edgewright_controller.manifest.profiles import Id, Labels, Match, Profile
from edgewright_controller.manifest.quantities import LocalPath, Seconds, TimeZone
from edgewright_controller.manifest.rollout import Rollout, Windows
from edgewright_controller.manifest.rollout_faults import rollout_faults, rollout_warnings
from edgewright_controller.manifest.sources import SourceText, below
from edgewright_controller.manifest.table import Table
from edgewright_controller.manifest.timing import Timing, timing_faults, timings

_SERVED_NAME = f"^{names.SERVED_NAME_PATTERN}$"


class Fleet(Table):
    """The fleet."""

    name: Id
    """Stands in every certificate. A controller serves one fleet, and refuses the manifest of another."""
    timezone: TimeZone | None = None
    """The time zone of windows, like "Europe/Berlin", where neither a device nor its group says. Without it, UTC."""


class Model(Table):
    """A source checkpoint."""

    source: SourceText
    """A folder in Hugging Face's layout on the controller's machine, relative to the manifest; or
    "hf://organisation/name@revision", "s3://bucket/prefix", "gs://…", "az://…", "https://host/folder"; or, with
    requantise = true, a file of the machine that ends in .gguf."""
    requantise: bool = False
    """With a .gguf file: its weights were rounded once already, a recipe rounds them again. Every figure says so."""
    adapter: SourceText | None = None
    """A LoRA adapter of PEFT, merged into the source before anything is built: a folder, or an address as above."""
    credentials: Id | None = None
    """With which secrets the source and adapter are fetched: a name from [credentials] of the controller's settings.
    Without it, as anybody may."""
    calibration: LocalPath | None = None
    """A text file, relative to the manifest, that recipes with calibration measure the model with: at least 4,096
    tokens of what it will be asked. Without it, a mixed text that comes with Edgewright."""
    served_name: Annotated[str, Field(pattern=_SERVED_NAME)] | None = None
    """The name that clients ask for. Without it, the model's id."""
    release_epoch: Annotated[int, Field(ge=0, le=2**31)] = 0
    """Raise it to forbid devices every release of a lower epoch for good, after a serious fault."""

    @model_validator(mode="after")
    def _source_is_as_said(self) -> Self:
        found = reference.parse(self.source)
        if isinstance(found, reference.GgufFile) != self.requantise:
            raise PydanticCustomError("requantise", _REQUANTISE if not self.requantise else _NOTHING_TO_REQUANTISE)
        adapter = reference.parse(self.adapter) if self.adapter is not None else None
        if isinstance(adapter, reference.GgufFile):
            raise PydanticCustomError("adapter", "`adapter` must be PEFT's own: a folder with adapter_config.json")
        if self.credentials is not None and isinstance(found, _OF_THIS_MACHINE) and not _is_far(adapter):
            raise PydanticCustomError("credentials", "`credentials` are named, but nothing of it is fetched")
        return self

    def resolve(self, folder: Path) -> Model:
        """The same with absolute paths where it names paths. `folder` is the manifest's own and absolute."""
        adapter = below(folder, self.adapter) if self.adapter is not None else None
        calibration = below(folder, self.calibration) if self.calibration is not None else None
        source = below(folder, self.source)
        return self.model_copy(update={"source": source, "adapter": adapter, "calibration": calibration})


_OF_THIS_MACHINE: Final = (reference.Folder, reference.GgufFile)
_REQUANTISE: Final = (
    "`source` is a .gguf file, whose weights were rounded already; name the checkpoint that it was made from, or "
    "write requantise = true"
)
_NOTHING_TO_REQUANTISE: Final = "requantise = true goes with a `source` that ends in .gguf, and this one does not"


def _is_far(adapter: reference.Reference | None) -> bool:
    return adapter is not None and not isinstance(adapter, _OF_THIS_MACHINE)


class Group(Table):
    """Devices that serve the same model."""

    model: Id
    """The model's id."""
    devices: tuple[Id, ...] = Field(default=(), strict=False)
    """The devices' ids."""
    match: Match | None = None
    """Devices that belong to the group by their labels."""
    profile: Id | None = None
    """The profile of all its devices. Without it, each device's own, or the one that matches its labels."""
    probes: tuple[Id, ...] = Field(default=(), strict=False)
    """Probes that a new version must pass on these devices before it takes traffic."""
    timezone: TimeZone | None = None
    """Where its devices are, like "Europe/Berlin"; a device may say otherwise."""
    window: Windows | None = None
    """When its devices may be offered a change, instead of what the rollout says."""
    site: Id | None = None
    """The site of its devices; a device may say otherwise."""

    @model_validator(mode="after")
    def _has_members(self) -> Self:
        if not self.devices and self.match is None:
            raise PydanticCustomError("members", "has no devices; list some in `devices`, or choose some by `match`")
        return self


class Device(Table):
    """One device. Its id is the one in its certificate."""

    profile: Id | None = None
    """Overrides its group's profile and every match."""
    model: Id | None = None
    """Overrides its group's model."""
    labels: Labels = Field(default_factory=dict)
    """Facts about the device that groups and profiles match."""
    serve: bool = True
    """false: the device keeps its place in the fleet, and what it serves is taken away."""
    timezone: TimeZone | None = None
    """Where the device is, like "Europe/Berlin". Without it, its site's, else its group's, else the fleet's."""
    site: Id | None = None
    """Its site. Without it, that of its groups."""
    delivery: Delivery | None = None
    """How fast, and when, it may download, instead of what its site or `delivery` says."""


class Probe(Table):
    """A question that a new version must answer before it takes traffic. Decoding is greedy."""

    prompt: Annotated[str, Field(min_length=1, max_length=release.MAX_PROMPT_BYTES)]
    """What is asked."""
    expect: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """Text that the answer must contain. Without `expect` and `expect_regex` any answer that is not empty will do."""
    expect_regex: Annotated[str, Field(min_length=1, max_length=1000)] | None = None
    """A Python regular expression that must be found in the answer."""
    max_tokens: Annotated[int, Field(ge=1, le=4096)] = 16
    """Length of the answer."""
    timeout_s: Seconds = Field(default=60, alias="timeout")
    """Time for the answer, at most an hour."""
    models: tuple[Id, ...] | None = Field(default=None, strict=False, min_length=1)
    """Asked of every device that serves one of these models. Without it, only where a group names the probe."""

    @field_validator("prompt")
    @classmethod
    def _fits_a_release(cls, prompt: str) -> str:
        if len(prompt.encode("utf-8", "surrogatepass")) > release.MAX_PROMPT_BYTES:
            raise PydanticCustomError("prompt", f"is longer than {release.MAX_PROMPT_BYTES:,} bytes")
        return prompt

    @field_validator("expect_regex")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except (re.error, RecursionError, OverflowError) as error:
            raise PydanticCustomError("regex", "{text}", {"text": f"is not a regular expression: {error}"}) from error
        return pattern

    @field_validator("timeout_s")
    @classmethod
    def _ends(cls, seconds: int) -> int:
        if seconds > 3600:
            raise PydanticCustomError("timeout", 'is longer than an hour ("1h")')
        return seconds

    @model_validator(mode="after")
    def _one_expectation(self) -> Self:
        if self.expect is not None and self.expect_regex is not None:
            raise PydanticCustomError("expectations", "has both expect and expect_regex; keep one")
        return self

    def named(self, name: str) -> release.Probe:
        """The probe as a release carries it."""
        return release.Probe(
            name, self.prompt, self.expect or "", self.expect_regex or "", self.max_tokens, self.timeout_s
        )


class Manifest(Table):
    """An Edgewright fleet: what it serves, on what hardware, and how a change goes out."""

    fleet: Fleet
    """The fleet."""
    models: dict[Id, Model] = Field(default_factory=dict)
    """Source checkpoints, by id."""
    profiles: dict[Id, Profile] = Field(default_factory=dict)
    """Kinds of hardware and their recipes, by id."""
    groups: dict[Id, Group] = Field(default_factory=dict)
    """Devices that serve the same model, by id."""
    devices: dict[Id, Device] = Field(default_factory=dict)
    """Every device of the fleet, by id."""
    probes: dict[Id, Probe] = Field(default_factory=dict)
    """Questions for new versions, by id."""
    rollout: Rollout = Rollout()
    """How a change goes out."""
    delivery: Delivery = Delivery()
    """How fast, and when, each device may download."""
    sites: dict[Id, Site] = Field(default_factory=dict)
    """Devices behind one line, by id."""

    def faults(self) -> tuple[Fault, ...]:
        """Everything in which its parts disagree."""
        return (*assign(self).faults, *timing_faults(self), *delivery_faults(self), *rollout_faults(self))

    def with_labels(self, labels: Mapping[str, Mapping[str, str]]) -> Manifest:
        """The same manifest with more labels for its devices, by device; where both name one, the manifest wins."""
        devices = {
            name: device.model_copy(update={"labels": {**labels[name], **device.labels}}) if name in labels else device
            for name, device in self.devices.items()
        }
        return self.model_copy(update={"devices": devices})

    def members(self, group: str) -> frozenset[str]:
        """The devices of a group, listed or matched. Raises KeyError for a group that there is not."""
        return frozenset(members(self, self.groups[group]))

    def timings(self) -> Mapping[str, Timing]:
        """When each device may be offered a change, by id."""
        return timings(self)

    def terms(self) -> Mapping[str, Terms]:
        """How fast, and when, each device may download, by id."""
        return terms(self)

    def assignments(self) -> Mapping[str, Assignment]:
        """What each device shall serve, for those that shall serve something, in the order of their ids.

        Raises ManifestError when the parts contradict each other; never for a manifest that came from `parse`.
        """
        found = assign(self)
        if found.faults:
            raise ManifestError([Problem("manifest", dotted(fault.path), fault.message) for fault in found.faults])
        return found.assignments

    @property
    def retired(self) -> frozenset[str]:
        """Devices from which everything served is to be taken away."""
        return frozenset(name for name, device in self.devices.items() if not device.serve)

    def warnings(self) -> tuple[str, ...]:
        """What is allowed but probably not meant: unused entries, groups without a device."""
        return (*assign(self).warnings, *delivery_warnings(self), *rollout_warnings(self))

    def served_name(self, model: str) -> str:
        """The name that clients ask for."""
        return self.models[model].served_name or model

    def release_probes(self, assignment: Assignment) -> tuple[release.Probe, ...]:
        """The assignment's probes as its release carries them."""
        return tuple(self.probes[name].named(name) for name in assignment.probes)

    def resolve(self, folder: Path) -> Manifest:
        """The same manifest with every source and prebuilt artifact as an absolute path. `folder` is the manifest's
        own and absolute; nothing is looked up."""
        models = {name: model.resolve(folder) for name, model in self.models.items()}
        profiles = {
            name: profile.model_copy(update={"prebuilt": below(folder, profile.prebuilt)})
            if profile.prebuilt is not None
            else profile
            for name, profile in self.profiles.items()
        }
        return self.model_copy(update={"models": models, "profiles": profiles})


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a manifest, for editors that complete and check TOML."""
    schema = Manifest.model_json_schema()
    _close(schema)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Edgewright manifest"}


def _close(schema: Any) -> None:
    """Pydantic leaves a key that is no id open."""
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        _close(part)
    if isinstance(schema, dict) and "patternProperties" in schema:
        schema["additionalProperties"] = False
