"""From a manifest and the state of the world to what has to be done. Pure: the same two give the same plan.

`apply` plans twice: once to learn which builds are missing, and again with all builds there, when every change names
its release. A device that is enrolled but not in the manifest is left as it is, with a warning: a forgotten
line must not stop a device from serving. To take away what a device serves, its entry says `serve = false`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from edgewright_contract.release import Release
from edgewright_controller import artifact_size, fit, fit_advice
from edgewright_controller.choosing import Choosing, choosing, concrete
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.recipe import Recipe, check_model, recipe_of
from edgewright_controller.compile.recipe_option import RecipeError
from edgewright_controller.fit import Load, Misfit
from edgewright_controller.manifest import Assignment, Manifest, Profile
from edgewright_controller.manifest.profiles import AUTO
from edgewright_controller.quality import verdict
from edgewright_controller.quality.limits import Overrides, limits
from edgewright_controller.waves import Changed, PlannedWave, waves_of
from edgewright_controller.world import BuildFact, DeviceFact, Outcome, RollbackFact, SourceFact, World

MAX_LISTED = 20  # devices that one warning names


class PlanError(Exception):
    """The plan needs a fact that the world does not have; the message names it."""


class Kind(Enum):
    """What happens to a device."""

    NONE = "none"
    INSTALL = "install"
    UPDATE = "update"
    REMOVE = "remove"
    HELD = "held"  # rolled back or failed there before; only `again` releases it
    UNENROLLED = "unenrolled"
    CORDONED = "cordoned"  # it would change; left as it is until it is uncordoned


_TO_DO: Final = (Kind.INSTALL, Kind.UPDATE, Kind.REMOVE)


@dataclass(frozen=True)
class Build:
    """One distinct build. `source` is what the manifest names, or the path of a prebuilt artifact. `artifact` is empty
    and `size_bytes` a prediction (0 when nothing is known) until it is `cached`. `quality` is what its profiles say of
    its limits. `refused` says why what was measured on it before is outside of them, empty when it is not. `tried`:
    only profiles whose recipe is being searched want it, so that its refusal is no failure. Its `key` is `provisional`
    until its source was prepared, and then is no build key."""

    key: str
    model: str
    profiles: tuple[str, ...]
    recipe: Recipe
    source: str
    cached: bool
    artifact: str
    size_bytes: int
    quality: tuple[Overrides, ...] = ()
    refused: tuple[str, ...] = ()
    tried: bool = False
    provisional: bool = False


@dataclass(frozen=True)
class Preparation:
    """A model's source that is fetched, dequantised or merged before the builds: the steps in words, bytes to fetch."""

    model: str
    steps: tuple[str, ...]
    fetch_bytes: int


@dataclass(frozen=True)
class Change:
    """What happens to one device. Releases are digests; `to_release` is empty, and `release` None, until the build is
    there or when everything is removed. `lifts_hold`: the device must be told to give up its hold first."""

    device: str
    model: str
    profile: str
    kind: Kind
    from_release: str
    to_release: str
    note: str = ""
    release: Release | None = None
    build_key: str = ""
    lifts_hold: bool = False


@dataclass(frozen=True)
class Plan:
    """Builds by model and recipe, changes by device, in which waves a rollout carries out those `to_do`, and where the
    searches of profiles without a recipe of their own stand. `preparations` are what the missing builds need first."""

    builds: tuple[Build, ...]
    changes: tuple[Change, ...]
    misfits: tuple[Misfit, ...]
    warnings: tuple[str, ...]
    waves: tuple[PlannedWave, ...] = ()
    searches: tuple[Choosing, ...] = ()
    preparations: tuple[Preparation, ...] = ()

    @property
    def missing_builds(self) -> tuple[Build, ...]:
        """Builds that have to be made."""
        return tuple(build for build in self.builds if not build.cached and not build.refused)

    @property
    def refused_builds(self) -> tuple[Build, ...]:
        """Builds that would be made for nothing: the gate has refused them before, and would again."""
        return tuple(build for build in self.builds if build.refused)

    @property
    def to_do(self) -> tuple[Change, ...]:
        """Changes that a rollout carries out."""
        return tuple(change for change in self.changes if change.kind in _TO_DO)


def plan(manifest: Manifest, world: World, *, again: bool = False, only: AbstractSet[str] | None = None) -> Plan:
    """What makes the fleet what the manifest says. `manifest` is resolved; `again` releases what was held; `only`:
    these of its devices, None for all.

    Raises PlanError when a source or toolchain that a build key needs is not in the world.
    """
    assignments = {
        name: assignment for name, assignment in manifest.assignments().items() if only is None or name in only
    }
    retired = manifest.retired if only is None else manifest.retired & only
    planner = _Planner(manifest, world, again, {(a.model, a.profile) for a in assignments.values()})
    changes, misfits, expected = [], [], []
    for device in sorted({*assignments, *retired}):
        fact = world.devices.get(device, DeviceFact(enrolled=False))
        assignment = assignments.get(device)
        change = _kept_back(planner.change(assignment, fact) if assignment else _removal(device, fact), fact)
        changes.append(change)
        if assignment and change.kind in (Kind.INSTALL, Kind.UPDATE):
            misfits += planner.misfits(assignment, fact, change.release)
        elif assignment and change.kind in (Kind.UNENROLLED, Kind.CORDONED):
            # Nothing goes out to it yet, so it must not hold up the others.
            expected += [misfit.message for misfit in planner.misfits(assignment, fact, change.release)]
    left_alone = _left_alone(manifest, world) if only is None else []
    refused = [f"{build.model} {build.recipe}: {line}" for build in planner.builds.values() for line in build.refused]
    about_builds = (*manifest.warnings(), *world.source_notes, *refused)
    warnings = (*about_builds, *planner.warnings(assignments), *expected, *left_alone)
    to_do = [Changed(c.device, world.devices[c.device].online) for c in changes if c.kind in _TO_DO]
    waves = waves_of(manifest, to_do)
    searches, preparations = tuple(planner.searches.values()), planner.preparations()
    return Plan(tuple(planner.builds.values()), tuple(changes), tuple(misfits), warnings, waves, searches, preparations)


def _kept_back(change: Change, fact: DeviceFact) -> Change:
    """The change, unless it is one and nothing may reach the device."""
    if not fact.cordoned or change.kind not in (*_TO_DO, Kind.HELD):
        return change
    note = f"cordoned by {fact.cordoned}; `edgewright devices uncordon {change.device}` lets changes reach it"
    return replace(change, kind=Kind.CORDONED, note=note, lifts_hold=False)


def release_of(
    manifest: Manifest, assignment: Assignment, build: BuildFact, world: World, profile: Profile | None = None
) -> Release:
    """The release that serves this build's artifact on the assignment's device. `profile` is the assignment's with the
    precision that was found for it, where the manifest names none.

    A release in the world that differs in nothing but the memory predicted for it, or in that it does not pin the
    chat template yet, is taken instead: what a newer controller knows must not send a fleet the same bytes again.
    """
    profile = profile or manifest.profiles[assignment.profile]
    served_name = manifest.models[assignment.model].served_name
    release = Release(
        model=assignment.model,
        profile=assignment.profile,
        runtime=profile.runtime,
        artifact=build.artifact,
        accelerator=profile.accelerator,
        memory_bytes=fit.memory_bytes(
            profile, build.size_bytes, world.shape(assignment.model), _types(build.artifact, world)
        ),
        options=profile.runtime_options
        | ({"served_name": served_name} if served_name else {})
        | ({"chat_template": build.chat_template} if build.chat_template else {}),
        probes=manifest.release_probes(assignment),
    )
    alike = (known for _, known in sorted(world.releases.items()) if _same_bytes(known, release))
    return release if release.digest in world.releases else next(alike, release)


def _same_bytes(known: Release, release: Release) -> bool:
    options = dict(known.options)
    if release.chat_template:
        options.setdefault("chat_template", release.chat_template)
    return replace(known, memory_bytes=release.memory_bytes, options=options) == release


@dataclass
class _Planner:
    """Remembers what many devices share, so that a fleet costs little more than its kinds of devices."""

    manifest: Manifest
    world: World
    again: bool
    used: set[tuple[str, str]]  # model and profile
    builds: dict[str, Build] = field(default_factory=dict)
    searches: dict[tuple[str, str], Choosing] = field(default_factory=dict)
    _profiles: dict[tuple[str, str], Profile] = field(default_factory=dict)
    _keys: dict[tuple[str, str], str] = field(default_factory=dict)
    _releases: dict[Assignment, Release] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._sizes = {build.artifact: build.size_bytes for build in self.world.builds.values()}
        for model, profile in sorted(self.used):
            self._add_build(model, profile)
        self.builds = {key: self._judged(build) for key, build in self.builds.items()}

    def _judged(self, build: Build) -> Build:
        """The build with what its profiles want of it, and what is known of that."""
        wanted: dict[Overrides, list[str]] = {}
        for name in build.profiles:
            wanted.setdefault(self.manifest.profiles[name].overrides, []).append(f"profiles.{name}")
        build = replace(build, quality=tuple(wanted))
        if build.recipe.prebuilt or not self.world.gated:
            return build
        measures = self.world.measures.get(build.key)
        refused: list[str] = []
        settled = measures is not None
        for overrides, profiles in wanted.items():
            if measures is None:
                # Known before it is built, which would be for nothing.
                words = verdict.words(verdict.unproven(build.recipe.unproven, overrides.allow_unproven))
                refused += [f"{', '.join(profiles)}: {line}" for line in words]
                continue
            limit = limits(measures.runtime, measures.precision, overrides)
            settled = settled and verdict.is_settled(measures, limit)
            refused += [f"{', '.join(profiles)}: {line}" for line in verdict.words(verdict.judge(measures, limit))]
        if not settled or refused:
            return replace(
                build, cached=False, artifact="", refused=tuple(refused) if settled or measures is None else ()
            )
        return build

    def _add_build(self, model: str, profile_name: str) -> None:
        profile = self.manifest.profiles[profile_name]
        source = self._source(model, profile_name)
        if source is None:
            self._add_provisional(model, profile_name)
            return

        def key_of(recipe: Recipe) -> str:
            return build_key(source.digest, recipe, self._versions(recipe), source.calibration)

        tried = False
        if profile.is_auto:
            found = choosing(model, profile_name, profile, source, self.world, key_of=key_of)
            if found.recipe is None:
                raise PlanError(found.failure)
            self.searches[model, profile_name] = found
            recipe, tried = found.recipe, found.search.chosen is None
        else:
            recipe = recipe_of(profile)
        if source.model is not None:
            try:
                check_model(recipe, source.model)
            except RecipeError as error:
                raise PlanError(f"profiles.{profile_name}.{error}") from error
        key = key_of(recipe)
        self._keys[model, profile_name] = key
        self._profiles[model, profile_name] = concrete(profile, recipe)
        if key in self.builds:
            known = self.builds[key]
            profiles = tuple(sorted({*known.profiles, profile_name}))
            self.builds[key] = replace(known, profiles=profiles, tried=known.tried and tried)
            return
        done = self.world.builds.get(key)
        self.builds[key] = Build(
            key=key,
            model=model,
            profiles=(profile_name,),
            recipe=recipe,
            source=profile.prebuilt or self.manifest.models[model].source,
            cached=done is not None,
            artifact=done.artifact if done else "",
            size_bytes=done.size_bytes if done else _predicted(recipe, source),
            tried=tried,
        )

    def _add_provisional(self, model: str, profile_name: str) -> None:
        """A build of which nothing is known but that it will be wanted, once its source is here."""
        profile = self.manifest.profiles[profile_name]
        recipe = Recipe(profile.runtime, AUTO) if profile.is_auto else recipe_of(profile)
        key = f"{model} {profile_name}"
        self._keys[model, profile_name] = key
        self._profiles[model, profile_name] = profile
        source = self.manifest.models[model].source
        self.builds[key] = Build(key, model, (profile_name,), recipe, source, False, "", 0, provisional=True)

    def preparations(self) -> tuple[Preparation, ...]:
        """What has to be done before the missing builds, by model."""
        models = {build.model for build in self.builds.values() if not build.cached and not build.recipe.prebuilt}
        todo = {model: self.world.to_prepare[model] for model in sorted(models) if model in self.world.to_prepare}
        return tuple(Preparation(model, one.steps, one.fetch_bytes) for model, one in todo.items())

    def _source(self, model: str, profile_name: str) -> SourceFact | None:
        """None while only preparing it would tell."""
        prebuilt = self.manifest.profiles[profile_name].prebuilt
        found = self.world.sources.get(model) if prebuilt is None else self.world.prebuilt.get(prebuilt)
        if found is None and (prebuilt is not None or model not in self.world.to_prepare):
            what = f"models.{model}.source" if prebuilt is None else f"profiles.{profile_name}.prebuilt"
            raise PlanError(f"{what}: was not looked at")
        return found

    def _versions(self, recipe: Recipe) -> Mapping[str, str]:
        if recipe.prebuilt:
            return {}
        if recipe.toolchain not in self.world.toolchains:
            raise PlanError(f"the versions of the {recipe.toolchain} toolchain are not known")
        return self.world.toolchains[recipe.toolchain]

    def release(self, assignment: Assignment) -> Release | None:
        """The assignment's release, None until its build is there."""
        shared = replace(assignment, device="")
        if shared not in self._releases:
            done = self.world.builds.get(self._keys[assignment.model, assignment.profile])
            if done is None:
                return None
            profile = self._profiles[assignment.model, assignment.profile]
            self._releases[shared] = release_of(self.manifest, assignment, done, self.world, profile)
        return self._releases[shared]

    def change(self, assignment: Assignment, fact: DeviceFact) -> Change:
        """What happens to an enrolled or expected device."""
        release = self.release(assignment)
        digest = release.digest if release else ""
        change = Change(
            device=assignment.device,
            model=assignment.model,
            profile=assignment.profile,
            kind=Kind.UPDATE if fact.active_release else Kind.INSTALL,
            from_release=fact.active_release,
            to_release=digest,
            release=release,
            build_key=self._keys[assignment.model, assignment.profile],
        )
        if not fact.enrolled:
            note = f"`edgewright enroll create --device {assignment.device}` makes its token"
            note = f"{'decommissioned' if fact.decommissioned else 'revoked'}; {note}" if fact.revoked else note
            return replace(change, kind=Kind.UNENROLLED, note=note)
        if release is None:
            return replace(change, note="its build comes first")
        if fact.desired_release == digest and fact.outcome not in (Outcome.FAILED, Outcome.HELD):
            return replace(change, kind=Kind.NONE, note=_under_way(fact))
        held = digest in fact.held_releases
        rollback = fact.rolled_back.get(digest) or self.world.rolled_back.get(digest)
        if held or rollback:
            why = _drift(fact, digest, rollback) if rollback else _held_because(fact, digest)
            if not self.again:
                return replace(change, kind=Kind.HELD, note=f"{why}; `apply --again` releases it all the same")
            return replace(change, note=f"{why}; released again", lifts_hold=held)
        return replace(change, note=_difference(release, digest, fact, self.world))

    def misfits(self, assignment: Assignment, fact: DeviceFact, release: Release | None) -> list[Misfit]:
        """What the device lacks for its release, as far as it is known."""
        profile = self._profiles[assignment.model, assignment.profile]
        build = self.builds[self._keys[assignment.model, assignment.profile]]
        if build.provisional:
            return []  # an apply looks again as soon as the source is here, before anything is built
        memory = fit.memory_bytes(
            profile, build.size_bytes, self.world.shape(assignment.model), _types(build.artifact, self.world)
        )
        old = self._load(fact.active_release)
        new = Load(memory, build.size_bytes, known=build.cached)
        held = (self.world.releases.get(digest) for digest in (fact.active_release, fact.previous_release))
        if release and release.artifact in {known.artifact for known in held if known}:
            new = replace(new, artifact_bytes=0)  # the bytes are there already

        def misfits(load: Load) -> list[Misfit]:
            return fit.misfits(
                assignment.device,
                profile,
                granted_by=f"profiles.{assignment.profile} grants",
                new=load,
                old=old,
                inventory=fact.inventory,
            )

        found = misfits(new)
        source = None if profile.is_prebuilt else self.world.sources.get(assignment.model)
        if not found or source is None or source.model is None:
            return found
        advice = fit_advice.would_fit(
            profile,
            source.model,
            source.beside_bytes,
            build.size_bytes,
            lambda memory, size: not misfits(Load(memory, size, known=False)),
        )
        return [replace(misfit, message=f"{misfit.message}; {advice}") for misfit in found]

    def _load(self, digest: str) -> Load | None:
        release = self.world.releases.get(digest)
        if release is None:
            return None
        return Load(release.memory_bytes, self._sizes.get(release.artifact, 0))

    def warnings(self, assignments: Mapping[str, Assignment]) -> list[str]:
        """What will probably go wrong on the devices, seen from here."""
        found: dict[str, list[str]] = {}
        for device, assignment in assignments.items():
            profile, fact = self.manifest.profiles[assignment.profile], self.world.devices.get(device)
            if fact is None or not fact.enrolled:
                continue
            seen = fact.inventory
            if seen is None:
                found.setdefault("has not reported its memory and disk; only its profile was checked", []).append(
                    device
                )
                continue
            if profile.runtime not in seen.runtimes:
                text = (
                    f"reports no engine for {profile.runtime}; there, pip install 'edgewright[agent,{profile.runtime}]'"
                )
                found.setdefault(text, []).append(device)
            if profile.accelerator != "cpu" and profile.accelerator not in seen.accelerators:
                found.setdefault(f"reports no {profile.accelerator} accelerator", []).append(device)
        about_models = (*self._too_long_contexts(), *self._unknown_shapes())
        return [*about_models, *(f"{_listed(devices)}: {text}" for text, devices in found.items())]

    def _too_long_contexts(self) -> Iterable[str]:
        for model, profile_name in self._keys:
            shape = self.world.shape(model)
            trained = shape.context if shape else 0
            context = self.manifest.profiles[profile_name].options.context
            if 0 < trained < context:
                key = f"profiles.{profile_name}.options.context"
                yield f"{key}: {context:,} is more than models.{model} was trained for: {trained:,}"

    def _unknown_shapes(self) -> Iterable[str]:
        for model, profile_name in self._keys:
            if self.world.shape(model) is None and model not in self.world.to_prepare:
                yield (
                    f"profiles.{profile_name}: memory for its context is not counted, because "
                    f"models.{model}.source is no checkpoint that tells the model's shape"
                )


def _predicted(recipe: Recipe, source: SourceFact) -> int:
    if recipe.prebuilt or source.model is None:
        return source.bytes if recipe.prebuilt else 0
    return artifact_size.predicted_bytes(recipe, source.model, source.beside_bytes)


def _types(artifact: str, world: World) -> Mapping[str, int] | None:
    """How many weights of each type the artifact was found to have, None before it was measured."""
    for key, measures in world.measures.items():
        build = world.builds.get(key)
        if build is not None and build.artifact == artifact:
            return measures.types
    return None


def _removal(device: str, fact: DeviceFact) -> Change:
    served = fact.active_release or fact.desired_release or fact.given_release
    if not (fact.enrolled and served):
        return Change(device, "", "", Kind.NONE, served, "", "serves nothing")
    return Change(device, "", "", Kind.REMOVE, served, "", "serve = false")


def _under_way(fact: DeviceFact) -> str:
    return "under way" if fact.outcome is not Outcome.SUCCEEDED and fact.active_release != fact.desired_release else ""


def _drift(fact: DeviceFact, digest: str, rollback: RollbackFact) -> str:
    """Where manifest and reality differ since a rollback."""
    at = datetime.fromtimestamp(rollback.at_ms / 1000, UTC)
    if fact.active_release == digest:  # it is on its way back
        has = f"it returns to {fact.given_release[:12]}" if fact.given_release else "it is to have none"
    else:
        has = f"it has {fact.active_release[:12]}" if fact.active_release else "it has none"
    who = f"{rollback.by} rolled that back on {at:%Y-%m-%d at %H:%M} UTC"
    return f"drift: the manifest says {digest[:12]}, {has}; {who}" + (f": {rollback.why}" if rollback.why else "")


def _held_because(fact: DeviceFact, digest: str) -> str:
    if digest == fact.desired_release and fact.reason:
        return f"failed there before: {fact.reason}"
    return "failed there before"


def _difference(release: Release, digest: str, fact: DeviceFact, world: World) -> str:
    if digest == fact.active_release:
        return "serves it already; settles what is desired"
    if digest == fact.desired_release:
        return f"tries again: {fact.reason or 'it failed before'}"
    old = world.releases.get(fact.active_release)
    if old is None or old.artifact != release.artifact:
        return ""
    changed = [
        name for name in ("options", "probes", "model", "profile") if getattr(old, name) != getattr(release, name)
    ]
    return f"the same artifact with other {' and '.join(changed) or 'settings'}"


def _left_alone(manifest: Manifest, world: World) -> list[str]:
    strangers = sorted(
        name
        for name, fact in world.devices.items()
        if name not in manifest.devices and not fact.decommissioned and (fact.enrolled or fact.desired_release)
    )
    if not strangers:
        return []
    advice = "left alone; to take away what it serves, add it with serve = false"
    return [f"{_listed(strangers)}: in the fleet but not in the manifest; {advice}"]


def _listed(devices: list[str]) -> str:
    more = len(devices) - MAX_LISTED
    return ", ".join(devices[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")
