"""Which device serves which model with which profile, and everything in which a manifest's parts disagree.

A device's model is its own, else that of its groups, which must agree. Its profile is its own, else that of its
groups, which must agree, else the one whose `match` chooses it, of which there must be exactly one. It answers the
probes of its groups, and those that name its model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from edgewright_contract import release
from edgewright_controller.compile.candidates import candidates
from edgewright_controller.compile.recipe import options_of, recipe_of
from edgewright_controller.compile.recipe_option import RecipeError
from edgewright_controller.manifest.errors import suggestion

if TYPE_CHECKING:
    from edgewright_controller.manifest.schema import Group, Manifest

# The director signs probes into the device's targets, which a device reads up to 256 KiB.
MAX_PROBES_BYTES: Final = 128 << 10

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Assignment:
    """What one device shall serve. `probes` are ids, sorted."""

    device: str
    model: str
    profile: str
    probes: tuple[str, ...]


@dataclass(frozen=True)
class Fault:
    """A contradiction and where it stands in the manifest. `for_want_of_labels`: more labels might settle it."""

    path: Path
    message: str
    for_want_of_labels: bool = False


@dataclass(frozen=True)
class Assignments:
    """The outcome. With faults, `assignments` lacks the devices concerned."""

    assignments: Mapping[str, Assignment]
    faults: tuple[Fault, ...]
    warnings: tuple[str, ...]


def assign(manifest: Manifest) -> Assignments:
    """Work out every device's assignment."""
    faults = [*_unknown_names(manifest), *_probe_faults(manifest), *_recipe_faults(manifest)]
    if faults:  # with a name that means nothing, what follows would only be noise
        return Assignments({}, tuple(faults), ())
    assignments, members = {}, _Members(manifest)
    for name in sorted(manifest.devices):
        if not manifest.devices[name].serve:
            continue
        made = members.assignment(name)
        if isinstance(made, Fault):
            faults.append(made)
        else:
            assignments[name] = made
            faults += _too_much_to_ask(manifest, made)
    return Assignments(assignments, tuple(faults), () if faults else _warnings(manifest, assignments, members))


@dataclass
class _Members:
    manifest: Manifest
    groups_of: Mapping[str, Sequence[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.groups_of = memberships(self.manifest)

    def assignment(self, name: str) -> Assignment | Fault:
        device, groups = self.manifest.devices[name], self.groups_of.get(name, [])
        model = self._one(name, device.model, {group: self.manifest.groups[group].model for group in groups}, "model")
        if isinstance(model, Fault):
            return model
        if model is None:
            message = "is in no group and names no model; add one, or say serve = false"
            return Fault(("devices", name), message, for_want_of_labels=True)
        named = {group: found for group in groups if (found := self.manifest.groups[group].profile) is not None}
        profile = self._one(name, device.profile, named, "profile")
        if profile is None:
            profile = self._matching(name)
        if isinstance(profile, Fault):
            return profile
        return Assignment(name, model, profile, self._probes(model, groups))

    def _one(self, device: str, own: str | None, of_groups: Mapping[str, str], what: str) -> str | Fault | None:
        """The device's own value, else the one its groups agree on, else None."""
        if own is not None:
            return own
        if len(set(of_groups.values())) <= 1:
            return next(iter(of_groups.values()), None)
        said = " and ".join(f"groups.{group} says {value}" for group, value in of_groups.items())
        return Fault(("devices", device), f"is in groups with different {what}s: {said}; name its {what} here")

    def _matching(self, name: str) -> str | Fault:
        labels = self.manifest.devices[name].labels
        found = [
            profile_name
            for profile_name, profile in sorted(self.manifest.profiles.items())
            if profile.match is not None and profile.match.chooses(labels)
        ]
        if len(found) == 1:
            return found[0]
        if found:
            both = " and ".join(f"profiles.{profile}" for profile in found)
            return Fault(
                ("devices", name), f"is matched by {both}; name its profile here, or make the labels exclusive"
            )
        message = "has no profile: it names none, nor does a group, and none matches its labels"
        return Fault(("devices", name), message, for_want_of_labels=True)

    def _probes(self, model: str, groups: Iterable[str]) -> tuple[str, ...]:
        asked = {probe for group in groups for probe in self.manifest.groups[group].probes}
        # A group's probes are about the group's model; a device that overrides it is not asked them.
        fitting = {p for p in asked if (models := self.manifest.probes[p].models) is None or model in models}
        of_model = {name for name, probe in self.manifest.probes.items() if model in (probe.models or ())}
        return tuple(sorted(fitting | of_model))


def memberships(manifest: Manifest) -> dict[str, list[str]]:
    """The names of each device's groups, in their order. A device that a group lists need not be the manifest's."""
    groups_of: dict[str, list[str]] = {}
    for group_name, group in sorted(manifest.groups.items()):
        for device in members(manifest, group):
            groups_of.setdefault(device, []).append(group_name)
    return groups_of


def members(manifest: Manifest, group: Group) -> set[str]:
    """The devices that a group lists or matches."""
    chosen = set(group.devices)
    if group.match is not None:
        chosen |= {name for name, device in manifest.devices.items() if group.match.chooses(device.labels)}
    return chosen


def _unknown_names(manifest: Manifest) -> Iterable[Fault]:
    tables: dict[str, Mapping[str, object]] = {
        "model": manifest.models,
        "profile": manifest.profiles,
        "device": manifest.devices,
        "probe": manifest.probes,
    }

    def check(path: Path, kind: str, name: str | None) -> Iterable[Fault]:
        if name is not None and name not in tables[kind]:
            yield Fault(path, f'there is no {kind} "{name}"{suggestion(name, tables[kind])}')

    for group_name, group in manifest.groups.items():
        here: Path = ("groups", group_name)
        yield from check((*here, "model"), "model", group.model)
        yield from check((*here, "profile"), "profile", group.profile)
        for kind, names in (("device", group.devices), ("probe", group.probes)):
            for index, name in enumerate(names):
                yield from check((*here, f"{kind}s", index), kind, name)
                if name in names[:index]:
                    yield Fault((*here, f"{kind}s", index), f'"{name}" is listed twice')
    for device_name, device in manifest.devices.items():
        yield from check(("devices", device_name, "model"), "model", device.model)
        yield from check(("devices", device_name, "profile"), "profile", device.profile)
        if not device.serve and device.model is not None:
            yield Fault(
                ("devices", device_name, "serve"), "is false, yet the device names a model; keep one of the two"
            )
    for probe_name, probe in manifest.probes.items():
        for index, name in enumerate(probe.models or ()):
            yield from check(("probes", probe_name, "models", index), "model", name)


def _probe_faults(manifest: Manifest) -> Iterable[Fault]:
    for group_name, group in manifest.groups.items():
        for index, name in enumerate(group.probes):
            models = manifest.probes[name].models if name in manifest.probes else None
            if models is not None and group.model not in models:
                message = f"probes.{name} is for other models than {group.model}: {', '.join(models)}"
                yield Fault(("groups", group_name, "probes", index), message)


def _recipe_faults(manifest: Manifest) -> Iterable[Fault]:
    for name, profile in manifest.profiles.items():
        try:
            if profile.is_auto:
                candidates(profile.runtime, options_of(profile))
            else:
                recipe_of(profile)
        except RecipeError as error:
            yield Fault(("profiles", name, *error.key.split(".")), error.message)


def _too_much_to_ask(manifest: Manifest, assignment: Assignment) -> Iterable[Fault]:
    here: Path = ("devices", assignment.device)
    if len(assignment.probes) > release.MAX_PROBES:
        yield Fault(here, f"would be asked {len(assignment.probes)} probes; a release has at most {release.MAX_PROBES}")
    size = sum(
        len(text.encode())
        for probe in manifest.release_probes(assignment)
        for text in (probe.prompt, probe.expect, probe.expect_regex)
    )
    if size > MAX_PROBES_BYTES:
        yield Fault(here, f"would be asked {size:,} bytes of probes; a release has at most {MAX_PROBES_BYTES:,}")


def _warnings(manifest: Manifest, assignments: Mapping[str, Assignment], members: _Members) -> tuple[str, ...]:
    used = assignments.values()
    unused = {
        "models": set(manifest.models) - {assignment.model for assignment in used},
        "profiles": set(manifest.profiles) - {assignment.profile for assignment in used},
        "probes": set(manifest.probes) - {probe for assignment in used for probe in assignment.probes},
    }
    filled = {group for groups in members.groups_of.values() for group in groups}
    return (
        *(f"groups.{name} has no device" for name in sorted(set(manifest.groups) - filled)),
        *(f"{table}.{name} is used by no device" for table, names in unused.items() for name in sorted(names)),
    )
