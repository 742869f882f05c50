"""What is known of the sources that a manifest names, and of its prebuilt artifacts. Brings nothing here."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgewright_controller.compile import calibration
from edgewright_controller.compile.calibration import Calibration, CalibrationError
from edgewright_controller.compile.source import Source, SourceError
from edgewright_controller.compile.sources import reference
from edgewright_controller.compile.sources.sources import Asked, Look, Resolved, SourceRefused, Sources
from edgewright_controller.manifest import Assignment, Manifest
from edgewright_controller.service.change import BadInput
from edgewright_controller.world import SourceFact, ToPrepare


@dataclass(frozen=True)
class Seen:
    """By model id, and by path for prebuilt artifacts. `resolved` is what moving names meant. `calibrations` are the
    texts of models that have one of their own."""

    looks: Mapping[str, Look] = field(default_factory=dict)
    prebuilt: Mapping[str, Source] = field(default_factory=dict)
    resolved: Resolved = field(default_factory=dict)
    calibrations: Mapping[str, Calibration] = field(default_factory=dict)

    def calibration(self, model: str) -> Calibration:
        """What recipes measure the model with."""
        return self.calibrations.get(model) or calibration.shipped()

    @property
    def sources(self) -> dict[str, Source]:
        """The sources that are here."""
        return {
            model: replace(look.source, calibration=self.calibration(model))
            for model, look in self.looks.items()
            if look.source is not None
        }

    @property
    def facts(self) -> dict[str, SourceFact]:
        """What is known of sources, here or not."""
        return {
            model: SourceFact(known.digest, known.bytes, known.facts, self.calibration(model).digest)
            for model, look in self.looks.items()
            if (known := look.known) is not None
        }

    @property
    def to_prepare(self) -> dict[str, ToPrepare]:
        """What has to be done to have the others here."""
        return {
            model: ToPrepare(look.steps, look.fetch_bytes) for model, look in self.looks.items() if look.source is None
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever plans should know, with the keys."""
        return tuple(f"models.{model}: {note}" for model, look in self.looks.items() for note in look.notes)


def asked_of(manifest: Manifest, model: str) -> Asked:
    """The model's source, of a resolved manifest."""
    entry = manifest.models[model]
    adapter = reference.parse(entry.adapter) if entry.adapter is not None else None
    return Asked(reference.parse(entry.source), adapter, entry.credentials or "")


async def look(
    sources: Sources, manifest: Manifest, wanted: Sequence[Assignment], file: str, resolved: Resolved
) -> Seen:
    """Look at everything that is wanted. Raises BadInput with every fault, toolchain.ToolchainMissing."""
    faults: list[str] = []
    looks: dict[str, Look] = {}
    prebuilt: dict[str, Source] = {}
    calibrations: dict[str, Calibration] = {}
    for model, name in dict.fromkeys((assignment.model, assignment.profile) for assignment in wanted):
        profile = manifest.profiles[name]
        try:
            if profile.prebuilt is not None:
                if profile.prebuilt not in prebuilt:
                    found = await sources.inspect_prebuilt(Path(profile.prebuilt), profile.runtime)
                    prebuilt[profile.prebuilt] = found
            elif model not in looks:
                looks[model] = await sources.look(asked_of(manifest, model), resolved)
                text = manifest.models[model].calibration
                if text is not None:
                    calibrations[model] = await asyncio.to_thread(calibration.read, Path(text))
        except SourceRefused as error:
            faults.append(f"{file}: models.{model}.{error.key}: {error}")
        except CalibrationError as error:
            faults.append(f"{file}: models.{model}.calibration: {error}")
        except SourceError as error:
            faults.append(f"{file}: profiles.{name}.prebuilt: {error}")
    if faults:
        raise BadInput("\n".join(dict.fromkeys(faults)))
    return Seen(looks, prebuilt, resolved, calibrations)
