"""What will probably go wrong on the devices, seen from the controller."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from edgewright_controller.manifest import Assignment, Manifest
from edgewright_controller.world import World

MAX_LISTED: Final = 20  # devices that one warning names


def of_assignments(
    manifest: Manifest, world: World, used: AbstractSet[tuple[str, str]], assignments: Mapping[str, Assignment]
) -> list[str]:
    """What speaks against what the manifest gives the devices. `used`: every model and profile among it."""
    found: dict[str, list[str]] = {}
    for device, assignment in assignments.items():
        profile, fact = manifest.profiles[assignment.profile], world.devices.get(device)
        if fact is None or not fact.enrolled:
            continue
        seen = fact.inventory
        if seen is None:
            found.setdefault("has not reported its memory and disk; only its profile was checked", []).append(device)
            continue
        if profile.runtime not in seen.runtimes:
            text = f"reports no engine for {profile.runtime}; there, pip install 'edgewright[agent,{profile.runtime}]'"
            found.setdefault(text, []).append(device)
        if profile.accelerator != "cpu" and profile.accelerator not in seen.accelerators:
            found.setdefault(f"reports no {profile.accelerator} accelerator", []).append(device)
    about_models = (*_too_long_contexts(manifest, world, used), *_unknown_shapes(world, used))
    return [*about_models, *(f"{listed(devices)}: {text}" for text, devices in found.items())]


def of_strangers(manifest: Manifest, world: World) -> list[str]:
    """Devices of the fleet that the manifest forgets."""
    strangers = sorted(
        name
        for name, fact in world.devices.items()
        if name not in manifest.devices and not fact.decommissioned and (fact.enrolled or fact.desired_release)
    )
    if not strangers:
        return []
    advice = "left alone; to take away what it serves, add it with serve = false"
    return [f"{listed(strangers)}: in the fleet but not in the manifest; {advice}"]


def listed(devices: Sequence[str]) -> str:
    """The devices by name, as many as one line bears."""
    more = len(devices) - MAX_LISTED
    return ", ".join(devices[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


def _too_long_contexts(manifest: Manifest, world: World, used: AbstractSet[tuple[str, str]]) -> Iterable[str]:
    for model, profile_name in used:
        shape = world.shape(model)
        trained = shape.context if shape else 0
        context = manifest.profiles[profile_name].options.context
        if 0 < trained < context:
            key = f"profiles.{profile_name}.options.context"
            yield f"{key}: {context:,} is more than models.{model} was trained for: {trained:,}"


def _unknown_shapes(world: World, used: AbstractSet[tuple[str, str]]) -> Iterable[str]:
    for model, profile_name in used:
        if world.shape(model) is None and model not in world.to_prepare:
            yield (
                f"profiles.{profile_name}: memory for its context is not counted, because "
                f"models.{model}.source is no checkpoint that tells the model's shape"
            )
