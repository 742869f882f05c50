"""The release that serves a build on a device, and why two releases that differ may be one all the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from edgewright_contract.release import Release
from edgewright_controller import fit
from edgewright_controller.manifest import Assignment, Manifest, Profile
from edgewright_controller.world import BuildFact, World


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
            profile, build.size_bytes, world.shape(assignment.model), types_of(build.artifact, world)
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


def types_of(artifact: str, world: World) -> Mapping[str, int] | None:
    """How many weights of each type the artifact was found to have, None before it was measured."""
    for key, measures in world.measures.items():
        build = world.builds.get(key)
        if build is not None and build.artifact == artifact:
            return measures.types
    return None
