"""Looking up what a plan must know: the sources on the disk, the toolchains, and the ledger's facts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

from sqlalchemy import Connection

from edgewright_contract.model_files import FileUnsafe, chat_template
from edgewright_contract.release import Release
from edgewright_contract.v1 import agent_pb2
from edgewright_controller import log
from edgewright_controller.compile.builder import Builder
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.recipe import RECIPES, options_of, recipe_of
from edgewright_controller.compile.source import ModelFacts, Source, SourceError, describe
from edgewright_controller.compile.sources import reference
from edgewright_controller.compile.sources.sources import Resolved, Sources
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.compile.toolchain import ToolchainMissing
from edgewright_controller.ledger import (
    Ledger,
    NotInLedger,
    artifacts,
    build_cards,
    cordons,
    devices,
    releases,
    rolled_back_on,
)
from edgewright_controller.ledger.devices import DesiredRow, DeviceRow
from edgewright_controller.ledger.releases import RolledBackRow
from edgewright_controller.manifest import Assignment, Manifest, Profile
from edgewright_controller.quality.measures import Measures
from edgewright_controller.service import looking, standing
from edgewright_controller.service.change import BadInput, ChangeRefused
from edgewright_controller.service.looking import Seen
from edgewright_controller.world import BuildFact, DeviceFact, InventoryFact, Outcome, RollbackFact, SourceFact, World

_log = log.of(__name__)


@dataclass(frozen=True)
class Survey:
    """The plan's world, and the sources and artifacts behind its facts."""

    world: World
    seen: Seen


class Surveyor:
    """Looks things up."""

    def __init__(
        self,
        ledger: Ledger,
        store: ArtifactStore,
        builder: Builder,
        sources: Sources,
        *,
        shut: Callable[[], frozenset[str]],
        online: Callable[[str], bool],
    ) -> None:
        """`shut`: the devices of which everything is revoked. `online`: whether a device was heard of lately."""
        self._ledger, self._store, self._builder, self._shut = ledger, store, builder, shut
        self._online, self._sources = online, sources
        self._templates: dict[str, str] = {}

    async def survey(
        self,
        manifest: Manifest,
        file: str,
        only: AbstractSet[str] | None = None,
        resolved: Resolved | None = None,
    ) -> Survey:
        """The world for a resolved manifest, or for `only` these of its devices; `file` is its name in messages.
        `resolved` is what moving names meant when the same manifest was looked at before.

        Raises BadInput for a source that is missing or not a model, and for a recipe that a toolchain does not know;
        ChangeRefused for a missing toolchain.
        """
        every = manifest.assignments().values()
        wanted = [assignment for assignment in every if only is None or assignment.device in only]
        try:
            seen = await looking.look(self._sources, manifest, wanted, file, dict(resolved or {}))
        except ToolchainMissing as error:
            raise ChangeRefused(str(error)) from error
        toolchains = await asyncio.to_thread(self._toolchains, manifest, wanted)
        await self._check_recipes(manifest, wanted, file)
        known = await self._ledger.read(_known)
        shut = self._shut()
        heard = {device: replace(fact, online=self._online(device)) for device, fact in known.devices.items()}
        revoked = {
            device: DeviceFact(enrolled=False, revoked=True, decommissioned=device in known.decommissioned)
            for device in shut
        }
        world = World(
            builds=await asyncio.to_thread(self._at_hand, known),
            measures=known.measures,
            gated=self._builder.gated,
            devices={**heard, **revoked},
            rolled_back=known.rolled_back,
            sources=seen.facts,
            to_prepare=seen.to_prepare,
            source_notes=seen.notes,
            shapes=await asyncio.to_thread(_shapes, manifest, wanted, seen.looks),
            prebuilt={path: _fact(source) for path, source in seen.prebuilt.items()},
            toolchains=toolchains,
            releases=known.releases,
        )
        return Survey(world, seen)

    def _at_hand(self, known: _Known) -> dict[str, BuildFact]:
        """The builds that need not be made again. What a device found damaged is read through before it counts."""
        at_hand = {}
        for key, build in known.builds.items():
            suspect = build.artifact in known.suspects
            if self._store.is_intact(build.artifact) if suspect else self._store.has(build.artifact):
                at_hand[key] = replace(build, chat_template=self._template(build.artifact))
            elif suspect:
                _log.warning("artifact is damaged in the store; an apply builds it again", artifact=build.artifact)
        return at_hand

    def _template(self, artifact: str) -> str:
        """The sha256 of the artifact's chat template. An artifact never changes, so it is looked for once."""
        if artifact not in self._templates:
            folder = self._store.path(artifact)
            files = {file.path: folder / file.path for file in self._store.bundle(artifact).files}
            try:
                self._templates[artifact] = chat_template.of(files)
            except FileUnsafe as error:
                # Built by an older version, with fewer rules; each device refuses it, by name and reason.
                _log.warning("artifact has no one chat template", artifact=artifact, why=str(error))
                self._templates[artifact] = ""
        return self._templates[artifact]

    def _toolchains(self, manifest: Manifest, wanted: Sequence[Assignment]) -> dict[str, Mapping[str, str]]:
        used = {manifest.profiles[assignment.profile] for assignment in wanted}
        try:
            return {
                name: self._builder.versions(name)
                for name in sorted({_toolchain(profile) for profile in used if not profile.is_prebuilt})
            }
        except ToolchainMissing as error:
            raise ChangeRefused(str(error)) from error

    async def _check_recipes(self, manifest: Manifest, wanted: Sequence[Assignment], file: str) -> None:
        faults = []
        for name in sorted({assignment.profile for assignment in wanted}):
            profile = manifest.profiles[name]
            if profile.is_auto or profile.is_prebuilt:
                continue
            try:
                fault = await self._builder.fault(recipe_of(profile))
            except StageFailed as error:
                raise ChangeRefused(f"profiles.{name}: its recipe could not be looked at: {error.reason}") from error
            if fault:
                faults.append(f"{file}: profiles.{name}.{fault}")
        if faults:
            raise BadInput("\n".join(faults))


def _toolchain(profile: Profile) -> str:
    """The toolchain that builds for the profile, whichever of its precisions it will be."""
    if not profile.is_auto:
        return recipe_of(profile).toolchain
    return RECIPES[profile.runtime].toolchain(options_of(profile)) or profile.runtime


def _shapes(manifest: Manifest, wanted: Sequence[Assignment], looked_at: Iterable[str]) -> dict[str, ModelFacts]:
    """Of models that are only shipped prebuilt, where the checkpoint lies at hand; nothing is compiled from it."""
    shapes: dict[str, ModelFacts] = {}
    for model in {assignment.model for assignment in wanted} - set(looked_at):
        source = reference.parse(manifest.models[model].source)
        if not isinstance(source, reference.Folder):
            continue
        try:
            shapes[model] = describe(Path(source.path))
        except SourceError as error:
            # The plan warns of what it then cannot count.
            _log.info("shape of a prebuilt model not known", model=model, why=str(error))
    return shapes


@dataclass(frozen=True)
class _Known:
    builds: Mapping[str, BuildFact]
    measures: Mapping[str, Measures]
    devices: Mapping[str, DeviceFact]
    rolled_back: Mapping[str, RollbackFact]
    releases: Mapping[str, Release]
    decommissioned: frozenset[str]
    suspects: frozenset[str]
    """Artifacts that a device said are not what was signed."""


def _known(connection: Connection) -> _Known:
    desired = devices.desired(connection)
    there = {
        device: {digest: _rollback(row) for digest, row in found.items()}
        for device, found in rolled_back_on.rollbacks(connection).items()
    }
    cordoned = {device: row.words for device, row in cordons.every(connection).items()}
    rows = devices.every(connection)
    facts = {
        row.id: replace(
            _device(row, desired.get(row.id)),
            rolled_back=there.get(row.id, {}),
            cordoned=cordoned.get(row.id, ""),
        )
        for row in rows
    }
    decommissioned = frozenset(row.id for row in rows if row.decommissioned_ms is not None)
    rolled_back = {digest: _rollback(row) for digest, row in releases.rollbacks(connection).items()}
    of_devices = {
        digest
        for fact in facts.values()
        for digest in (fact.desired_release, fact.active_release, fact.previous_release)
    }
    named = of_devices.union(rolled_back, *there.values())
    found = {}
    for digest in sorted(named - {""}):
        try:
            found[digest] = releases.get(connection, digest).release
        except NotInLedger:
            # A device may still serve what an older ledger gave it; the plan then knows only its name.
            continue
    builds = {key: BuildFact(row.bundle, row.size) for key, row in artifacts.builds(connection).items()}
    return _Known(builds, _measures(connection), facts, rolled_back, found, decommissioned, _suspects(connection))


def _measures(connection: Connection) -> dict[str, Measures]:
    """What was measured on builds, by key, as far as this version can read it; the rest is measured again."""
    found = {}
    for key, row in build_cards.every(connection).items():
        if not row.measures:
            continue
        try:
            found[key] = Measures.from_json(json.loads(row.measures))
        except ValueError as error:
            _log.warning("what was measured on a build cannot be read", build=key, why=str(error))
    return found


def _rollback(row: RolledBackRow) -> RollbackFact:
    return RollbackFact(row.by, row.at_ms, row.reason)


def _suspects(connection: Connection) -> frozenset[str]:
    said = [status for row in devices.every(connection) if (status := standing.said(row)) is not None]
    found = set()
    for status in said:
        if status.error == agent_pb2.ERROR_CODE_ARTIFACT_CORRUPT:
            with contextlib.suppress(NotInLedger):
                found.add(releases.get(connection, status.release).release.artifact)
    return frozenset(found)


def _device(row: DeviceRow, desired: DesiredRow | None) -> DeviceFact:
    status = standing.said(row) or agent_pb2.DeviceStatus()
    # A generation that the device has not concluded counts as not given, so that an apply gives it anew and
    # waits for it: an apply that returns has seen every device reach a final state.
    settled = desired is not None and status.generation == desired.generation and status.outcome in devices.SETTLED
    return DeviceFact(
        generation=desired.generation if desired else 0,
        desired_release=(desired.release or "") if desired and settled else "",
        given_release=(desired.release or "") if desired else "",
        active_release=status.active_release,
        previous_release=status.previous_release,
        outcome=Outcome(status.outcome) if settled else Outcome.NONE,
        reason=status.reason if settled else "",
        held_releases=frozenset(status.held_releases),
        inventory=_inventory(row.inventory),
    )


def _inventory(inventory: agent_pb2.Inventory | None) -> InventoryFact | None:
    if inventory is None:
        return None
    return InventoryFact(
        memory_bytes=inventory.memory_bytes,
        disk_free_bytes=inventory.disk_free_bytes,
        runtimes=frozenset(inventory.runtimes),
        accelerators=frozenset(accelerator.kind for accelerator in inventory.accelerators),
    )


def _fact(source: Source) -> SourceFact:
    return SourceFact(source.digest, source.bytes, source.facts, source.calibration.digest)
