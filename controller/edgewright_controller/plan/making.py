"""From a manifest and the state of the world to what has to be done."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import replace

from edgewright_contract.release import Release
from edgewright_controller import fit, fit_advice
from edgewright_controller.fit import Load, Misfit
from edgewright_controller.manifest import Assignment, Manifest
from edgewright_controller.plan import notes, warnings
from edgewright_controller.plan.builds import PlannedBuilds
from edgewright_controller.plan.releases import release_of, types_of
from edgewright_controller.plan.values import TO_DO, Change, Kind, Plan
from edgewright_controller.waves import Changed, waves_of
from edgewright_controller.world import DeviceFact, Outcome, World


def plan(manifest: Manifest, world: World, *, again: bool = False, only: AbstractSet[str] | None = None) -> Plan:
    """What makes the fleet what the manifest says. `manifest` is resolved; `again` releases what was held; `only`:
    these of its devices, None for all.

    Raises PlanError when a source or toolchain that a build key needs is not in the world.
    """
    assignments = {
        name: assignment for name, assignment in manifest.assignments().items() if only is None or name in only
    }
    retired = manifest.retired if only is None else manifest.retired & only
    builds = PlannedBuilds(manifest, world, {(a.model, a.profile) for a in assignments.values()})
    planner = _Planner(manifest, world, builds, again=again)
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
    refused = [f"{build.model} {build.recipe}: {line}" for build in builds.by_key.values() for line in build.refused]
    about_builds = (*manifest.warnings(), *world.source_notes, *refused)
    about_devices = warnings.of_assignments(manifest, world, builds.used, assignments)
    left_alone = warnings.of_strangers(manifest, world) if only is None else []
    to_do = [Changed(c.device, world.devices[c.device].online) for c in changes if c.kind in TO_DO]
    return Plan(
        builds=tuple(builds.by_key.values()),
        changes=tuple(changes),
        misfits=tuple(misfits),
        warnings=(*about_builds, *about_devices, *expected, *left_alone),
        waves=waves_of(manifest, to_do),
        searches=tuple(builds.searches.values()),
        preparations=builds.preparations(),
    )


def _kept_back(change: Change, fact: DeviceFact) -> Change:
    """The change, unless it is one and nothing may reach the device."""
    if not fact.cordoned or change.kind not in (*TO_DO, Kind.HELD):
        return change
    note = f"cordoned by {fact.cordoned}; `edgewright devices uncordon {change.device}` lets changes reach it"
    return replace(change, kind=Kind.CORDONED, note=note, lifts_hold=False)


class _Planner:
    """Remembers what many devices share, so that a fleet costs little more than its kinds of devices."""

    def __init__(self, manifest: Manifest, world: World, builds: PlannedBuilds, *, again: bool) -> None:
        self._manifest, self._world, self._builds, self._again = manifest, world, builds, again
        self._releases: dict[Assignment, Release] = {}
        self._sizes = {build.artifact: build.size_bytes for build in world.builds.values()}

    def change(self, assignment: Assignment, fact: DeviceFact) -> Change:
        """What happens to an enrolled or expected device."""
        release = self._release(assignment)
        digest = release.digest if release else ""
        change = Change(
            device=assignment.device,
            model=assignment.model,
            profile=assignment.profile,
            kind=Kind.UPDATE if fact.active_release else Kind.INSTALL,
            from_release=fact.active_release,
            to_release=digest,
            release=release,
            build_key=self._builds.key(assignment.model, assignment.profile),
        )
        if not fact.enrolled:
            note = f"`edgewright enroll create --device {assignment.device}` makes its token"
            note = f"{'decommissioned' if fact.decommissioned else 'revoked'}; {note}" if fact.revoked else note
            return replace(change, kind=Kind.UNENROLLED, note=note)
        if release is None:
            return replace(change, note="its build comes first")
        if fact.desired_release == digest and fact.outcome not in (Outcome.FAILED, Outcome.HELD):
            return replace(change, kind=Kind.NONE, note=notes.under_way(fact))
        held = digest in fact.held_releases
        rollback = fact.rolled_back.get(digest) or self._world.rolled_back.get(digest)
        if held or rollback:
            why = notes.drift(fact, digest, rollback) if rollback else notes.held_because(fact, digest)
            if not self._again:
                return replace(change, kind=Kind.HELD, note=f"{why}; `apply --again` releases it all the same")
            return replace(change, note=f"{why}; released again", lifts_hold=held)
        return replace(change, note=notes.difference(release, digest, fact, self._world))

    def misfits(self, assignment: Assignment, fact: DeviceFact, release: Release | None) -> list[Misfit]:
        """What the device lacks for its release, as far as it is known."""
        profile = self._builds.profile(assignment.model, assignment.profile)
        build = self._builds.build(assignment.model, assignment.profile)
        if build.provisional:
            return []  # an apply looks again as soon as the source is here, before anything is built
        memory = fit.memory_bytes(
            profile, build.size_bytes, self._world.shape(assignment.model), types_of(build.artifact, self._world)
        )
        old = self._load(fact.active_release)
        new = Load(memory, build.size_bytes, known=build.cached)
        held = (self._world.releases.get(digest) for digest in (fact.active_release, fact.previous_release))
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
        source = None if profile.is_prebuilt else self._world.sources.get(assignment.model)
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
        release = self._world.releases.get(digest)
        if release is None:
            return None
        return Load(release.memory_bytes, self._sizes.get(release.artifact, 0))

    def _release(self, assignment: Assignment) -> Release | None:
        """The assignment's release, None until its build is there."""
        shared = replace(assignment, device="")
        if shared not in self._releases:
            done = self._world.builds.get(self._builds.key(assignment.model, assignment.profile))
            if done is None:
                return None
            profile = self._builds.profile(assignment.model, assignment.profile)
            self._releases[shared] = release_of(self._manifest, assignment, done, self._world, profile)
        return self._releases[shared]


def _removal(device: str, fact: DeviceFact) -> Change:
    served = fact.active_release or fact.desired_release or fact.given_release
    if not (fact.enrolled and served):
        return Change(device, "", "", Kind.NONE, served, "", "serves nothing")
    return Change(device, "", "", Kind.REMOVE, served, "", "serve = false")
