"""The changes that an operator asks for. `apply` reads as parse, plan, compile, sign, start.

A change is a task of the controller's own: the caller may leave, and finds it done. What the manifest itself
gets wrong is said before anything begins; what goes wrong later is the change's result.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from edgewright_contract import canonical, digest
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller import log
from edgewright_controller.compile.builder import Builder
from edgewright_controller.compile.recipe_option import RecipeError
from edgewright_controller.compile.source import Source
from edgewright_controller.compile.sources.sources import Sources
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.ledger import (
    Ledger,
    LedgerError,
    applied,
    assignments,
    audit,
    labels,
    model_builds,
    releases,
    requests,
    rolled_back_on,
)
from edgewright_controller.ledger.model_builds import ModelBuildRow
from edgewright_controller.manifest import Manifest, ManifestError, SelectionError, parse, select
from edgewright_controller.plan import Build, Kind, Plan, PlanError
from edgewright_controller.plan import plan as make_plan
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.image import ImageRepository
from edgewright_controller.quality.limits import Overrides
from edgewright_controller.rollout import RolloutError
from edgewright_controller.service import plan_message, rollout_views
from edgewright_controller.service.change import ALL, BadInput, ChangeRefused, ManifestText, Selection
from edgewright_controller.service.compiling import Compiling, cached
from edgewright_controller.service.conflicts import refuse_parts, with_warnings
from edgewright_controller.service.job import Job
from edgewright_controller.service.looking import asked_of
from edgewright_controller.service.preparing import prepare
from edgewright_controller.service.rolling_back import RollingBack
from edgewright_controller.service.rollouts_runner import RolloutsRunner
from edgewright_controller.service.survey import Survey, Surveyor
from edgewright_controller.service.ways_back import Asked
from edgewright_controller.service.wish import Wish
from edgewright_controller.unix_time import unix_ms
from edgewright_controller.waves import policy_of

# What ends a change in an orderly way; its message is the change's result.
_ENDINGS = (BadInput, ChangeRefused, LedgerError, PublishError, RolloutError, PlanError, RecipeError, OSError)

_STOPPING: Final = "the controller is stopping; a rollout goes on when it is back, builds with the next apply"

_log = log.of(__name__)


class Jobs:
    """Plans, applies and rolls back, for one fleet."""

    def __init__(
        self,
        fleet: str,
        ledger: Ledger,
        *,
        store: ArtifactStore,
        builder: Builder,
        image: ImageRepository,
        runner: RolloutsRunner,
        sources: Sources,
        shut: Callable[[], frozenset[str]],
        online: Callable[[str], bool],
        clock: Callable[[], datetime],
    ) -> None:
        """`shut`: the devices of which everything is revoked. `online`: whether a device was heard of lately."""
        self._fleet, self._ledger, self._image, self._runner, self._clock = fleet, ledger, image, runner, clock
        self._surveyor = Surveyor(ledger, store, builder, sources, shut=shut, online=online)
        self._sources = sources
        self._compiling = Compiling(fleet, ledger, store, builder, clock)
        self._rolling_back = RollingBack(ledger, store, runner, shut)
        self._tasks: set[asyncio.Task[None]] = set()

    async def plan(self, text: ManifestText, only: Selection = ALL) -> operator_pb2.PlanResponse:
        """What an apply of this manifest would do. Raises BadInput, ChangeRefused, LedgerError."""
        manifest = await self._parse(text)
        plan, _ = await self._planned(manifest, text, only, again=False)
        return plan_message.message(with_warnings(plan, self._runner.running))

    async def apply(
        self,
        text: ManifestText,
        *,
        by: str,
        again: bool,
        build_only: bool,
        only: Selection = ALL,
        why: str = "",
        supersede: bool = False,
    ) -> Job:
        """Begin to make the fleet what the manifest says. `supersede`: also where it takes but a part of what a rollout
        still has to do. Raises BadInput, ChangeRefused, LedgerError."""
        manifest = await self._parse(text)
        plan, survey = await self._planned(manifest, text, only, again=again)
        await self._enter_builds(plan)
        _refuse_builds(plan)
        if not build_only:
            _refuse_misfits(plan)
            _refuse_held(plan)
            _refuse_cordoned(plan, only)
            if not supersede:
                refuse_parts(plan, self._runner.running)

        asked = {"again": again, "build only": build_only, "supersede": supersede}
        flags = "".join(f", {name}" for name, given in asked.items() if given)
        flags += f", only {only}" if only != ALL else ""
        sha256 = digest.of_bytes(text.text.encode())
        await self._enter(by, "apply", audit.with_reason(f"{text.file}, sha256 {sha256}{flags}", why))

        async def change(job: Job) -> operator_pb2.ApplyResult:
            return await self._apply(
                job,
                manifest,
                plan,
                survey,
                text,
                only=only,
                by=by,
                again=again,
                build_only=build_only,
                why=why,
                supersede=supersede,
            )

        return self._begin(f"apply of {text.file}", by, change)

    async def rollback(self, asked: Asked, *, by: str, why: str = "") -> Job:
        """Begin to return devices to the release before. Raises BadInput, ChangeRefused, LedgerError."""
        found = await self._rolling_back.look(asked)
        ways = ", ".join(f"{device}: {left[:12]} → {to[:12]}" for device, (left, to) in sorted(found.ways.items()))
        await self._enter(by, "rollback", audit.with_reason(ways, why), release=asked.release)

        async def change(job: Job) -> operator_pb2.ApplyResult:
            finish, came_to = await self._rolling_back.carry_out(job, asked, found, by=by, why=why)
            result = rollout_views.result(finish.phase, finish.reason, finish.counts)
            if came_to.stuck:
                result.succeeded = False
                result.summary += f"; cannot go back: {', '.join(sorted(came_to.stuck))}"
            return result

        return self._begin("rollback", by, change)

    async def close(self) -> None:
        """End what runs: builds are cancelled, rollouts go on at the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._compiling.close()

    async def _parse(self, text: ManifestText) -> Manifest:
        given = await self._ledger.read(labels.every)
        try:
            manifest = parse(text.text, file=text.file, labels=given)
        except ManifestError as error:
            raise BadInput(str(error)) from error
        if manifest.fleet.name != self._fleet:
            raise BadInput(
                f"{text.file}: fleet.name: {manifest.fleet.name!r}; this controller's fleet is {self._fleet!r}"
            )
        if not Path(text.folder).is_absolute():
            raise BadInput(f"{text.file}: its folder must be sent as an absolute path, not {text.folder!r}")
        return manifest.resolve(Path(text.folder))

    async def _planned(
        self, manifest: Manifest, text: ManifestText, only: Selection, *, again: bool, before: Survey | None = None
    ) -> tuple[Plan, Survey]:
        try:
            selected = select(manifest, only.devices, only.groups)
        except SelectionError as error:
            raise BadInput("\n".join(f"{text.file}: {line}" for line in str(error).splitlines())) from error
        resolved = before.seen.resolved if before else None
        survey = await self._surveyor.survey(manifest, text.file, selected, resolved)
        try:
            return make_plan(manifest, survey.world, again=again, only=selected), survey
        except (RecipeError, PlanError) as error:
            raise BadInput(f"{text.file}: {error}") from error

    def _begin(self, what: str, by: str, change: Callable[[Job], Coroutine[Any, Any, operator_pb2.ApplyResult]]) -> Job:
        job = Job()

        async def run() -> None:
            _log.info("change begins", what=what, operator=by)
            try:
                result = await change(job)
            except _ENDINGS as error:
                result = operator_pb2.ApplyResult(summary=str(error))
            except asyncio.CancelledError:
                job.say(_result(operator_pb2.ApplyResult(summary=_STOPPING)))
                raise
            except Exception as error:
                # A fault of ours: the operator is told that much, the log has the rest.
                _log.exception("change ended by a fault", what=what)
                result = operator_pb2.ApplyResult(summary=f"a fault in the controller, see its log: {error!r}")
            _log.info("change ended", what=what, succeeded=result.succeeded, why=result.summary)
            job.say(_result(result))

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return job

    async def _apply(
        self,
        job: Job,
        manifest: Manifest,
        plan: Plan,
        survey: Survey,
        text: ManifestText,
        *,
        only: Selection,
        by: str,
        again: bool,
        build_only: bool,
        why: str,
        supersede: bool,
    ) -> operator_pb2.ApplyResult:
        told = with_warnings(plan, self._runner.running, supersede=supersede)
        job.say(operator_pb2.ApplyEvent(plan=plan_message.message(told)))
        failed: dict[str, str] = {}
        if plan.preparations:
            asked = {one.model: asked_of(manifest, one.model) for one in plan.preparations}
            failed = await prepare(self._sources, asked, survey.seen.resolved, job, text.file)
            plan, survey = await self._planned(manifest, text, only, again=again, before=survey)
            await self._enter_builds(plan)
            _refuse_builds(plan)
            if not build_only:
                # Only now are the sizes known, and a build that no device can hold would be for nothing.
                _refuse_misfits(plan)
        for build in plan.builds:
            if build.cached:
                job.say(cached(build))
        tried: set[tuple[str, tuple[Overrides, ...]]] = set()
        # Once, but for profiles whose recipe is searched: there each round tries the next one.
        while missing := [build for build in plan.missing_builds if build.model not in failed]:
            wanted = {(build.key, build.quality) for build in missing}
            if not tried.isdisjoint(wanted):
                raise ChangeRefused(f"{text.file}: the sources changed during the builds; apply again")
            tried |= wanted
            await self._make(missing, survey, job, failed)
            plan, survey = await self._planned(manifest, text, only, again=again, before=survey)
            _refuse_builds(plan)
        for search in plan_message.searches(plan):
            job.say(operator_pb2.ApplyEvent(search=search))
        if failed:
            raise ChangeRefused("\n".join(failed.values()))
        await self._publish(manifest, plan)
        keys = {key for key, _ in tried}
        made = {"builds_made": len(keys), "builds_cached": sum(build.key not in keys for build in plan.builds)}
        if build_only:
            return operator_pb2.ApplyResult(succeeded=True, summary=f"{len(plan.builds)} artifacts are signed", **made)
        _refuse_misfits(plan)
        _refuse_held(plan)
        _refuse_cordoned(plan, only)
        await self._applied(manifest, plan, text, by, why)
        if not plan.to_do:
            return operator_pb2.ApplyResult(succeeded=True, summary=_nothing_to_do(plan), **made)
        if again:
            await self._lift_holds(plan, everywhere=only == ALL)
        wish = Wish(
            releases={change.device: change.to_release or None for change in plan.to_do},
            policy=policy_of(manifest.rollout),
            by=by,
            about=f"apply of {text.file}",
            waves=tuple(wave.devices for wave in plan.waves),
            after=tuple(wave.after for wave in plan.waves),
            windows={device: (timing.windows, timing.zone) for device, timing in manifest.timings().items()},
            not_again=not again,
            why=why,
            supersede=supersede,
        )
        result = await self._roll_out(job, wish)
        result.builds_made, result.builds_cached = made["builds_made"], made["builds_cached"]
        return result

    async def _enter_builds(self, plan: Plan) -> None:
        """Which builds the models have, and what the limits of now say of those that were measured."""
        now_ms = self._now_ms()
        builds = {build.key: build for build in plan.builds if not build.provisional}
        wanted = {(build.model, build.key) for build in builds.values()}
        wanted |= {(change.model, change.build_key) for change in plan.changes if change.build_key in builds}

        def enter(connection: Connection) -> None:
            for model, key in sorted(wanted):
                recipe = builds[key].recipe
                document = canonical.encode(recipe.to_json()).decode("ascii")
                row = ModelBuildRow(model, key, recipe.runtime, recipe.quantization, document, now_ms)
                model_builds.put(connection, row)
            for build in plan.builds:
                if build.cached or build.refused:
                    model_builds.judged(connection, build.key, "\n".join(build.refused), now_ms)

        await self._ledger.write(enter)

    async def _make(self, missing: Sequence[Build], survey: Survey, job: Job, failed: Mapping[str, str]) -> None:
        sources = _sources(missing, survey)
        if lacking := [build.model for build in missing if build.key not in sources]:
            raise ChangeRefused(f"models.{lacking[0]}: its source went away meanwhile; apply again")
        with self._sources.holding(list(sources.values())):
            try:
                await self._compiling.make(missing, sources, job, self._clock())
            except ChangeRefused as error:
                raise ChangeRefused("\n".join([*failed.values(), str(error)])) from error

    async def _publish(self, manifest: Manifest, plan: Plan) -> None:
        """Sign what exists, then enter the releases that name it."""
        now_ms = self._now_ms()
        changes = [change for change in plan.changes if change.release is not None]

        def enter(connection: Connection) -> list[ImageTarget]:
            digests: dict[str, None] = {}  # each once, in order
            for change in changes:
                assert change.release is not None
                epoch = manifest.models[change.model].release_epoch
                digests[releases.put(connection, change.release, epoch, now_ms)] = None
            return [releases.get(connection, digest).target for digest in digests]

        targets = await self._ledger.write(enter)
        if targets:
            await asyncio.to_thread(self._image.publish, targets, self._clock())

    async def _applied(self, manifest: Manifest, plan: Plan, text: ManifestText, by: str, why: str) -> None:
        """From now on this manifest says what groups there are, and what a newcomer gets."""
        said = {"file": text.file, "folder": text.folder, "text": text.text, "reason": why}
        given = {change.device: change.to_release or None for change in plan.changes}
        now_ms = self._now_ms()

        def enter(connection: Connection) -> None:
            applied.put(connection, by=by, **said, now_ms=now_ms)
            assignments.put(connection, given, manifest.devices, now_ms)

        await self._ledger.write(enter)
        self._runner.look_for_newcomers()

    async def _lift_holds(self, plan: Plan, *, everywhere: bool) -> None:
        """What was rolled back is released again: here, and on the devices that hold it. An apply for a part of the
        fleet releases it only there; to the others it is refused as before."""
        now_ms = self._now_ms()
        kind = agent_pb2.DeviceRequest.KIND_RELEASE_HOLD

        def lift(connection: Connection) -> None:
            for change in plan.to_do:
                if change.to_release:
                    if everywhere:
                        releases.unmark_rolled_back(connection, change.to_release)
                    rolled_back_on.unmark(connection, change.device, change.to_release)
                if change.lifts_hold:
                    asked = uuid.uuid4().hex
                    requests.ask(connection, asked, change.device, kind, argument=change.to_release, now_ms=now_ms)

        await self._ledger.write(lift)

    async def _roll_out(self, job: Job, wish: Wish) -> operator_pb2.ApplyResult:
        ended = await self._runner.begin(wish, job)
        finish = await ended
        return rollout_views.result(finish.phase, finish.reason, finish.counts)

    async def _enter(self, by: str, action: str, detail: str, release: str = "") -> None:
        """Note in the audit log what an operator wants, before anything is done."""
        now_ms, actor = self._now_ms(), f"operator {by}"
        said = {"actor": actor, "action": action, "subject": self._fleet, "detail": detail}
        await self._ledger.write(lambda c: audit.append(c, **said, release=release, now_ms=now_ms))

    def _now_ms(self) -> int:
        return unix_ms(self._clock())


def _sources(builds: Sequence[Build], survey: Survey) -> dict[str, Source]:
    """The source of each build that is here, by build key."""
    seen = survey.seen
    found = {
        build.key: seen.prebuilt.get(build.source) if build.recipe.prebuilt else seen.sources.get(build.model)
        for build in builds
    }
    return {key: source for key, source in found.items() if source is not None}


def _refuse_builds(plan: Plan) -> None:
    """What was measured before on a build that is needed is outside the limits that the manifest sets now."""
    lines = [f"build {build.model} {build.recipe}: {line}" for build in plan.refused_builds for line in build.refused]
    if lines:
        raise ChangeRefused("\n".join(lines))


def _refuse_misfits(plan: Plan) -> None:
    if plan.misfits:
        raise ChangeRefused("\n".join(misfit.message for misfit in plan.misfits))


def _refuse_held(plan: Plan) -> None:
    held = [change for change in plan.changes if change.kind is Kind.HELD]
    if held:
        raise ChangeRefused("\n".join(f"{change.device}: {change.model}: {change.note}" for change in held))


def _refuse_cordoned(plan: Plan, only: Selection) -> None:
    """Whoever names a cordoned device must know that nothing reaches it; in a group or a fleet it is passed over."""
    cordoned = [change for change in plan.changes if change.kind is Kind.CORDONED and change.device in only.devices]
    if cordoned:
        raise ChangeRefused("\n".join(f"{change.device}: {change.note}" for change in cordoned))


def _nothing_to_do(plan: Plan) -> str:
    waiting = [change.device for change in plan.changes if change.kind is Kind.UNENROLLED]
    cordoned = [change.device for change in plan.changes if change.kind is Kind.CORDONED]
    left_out = [f"not enrolled yet: {', '.join(waiting)}"] * bool(waiting)
    left_out += [f"cordoned: {', '.join(cordoned)}"] * bool(cordoned)
    if left_out:
        return f"nothing to do; {'; '.join(left_out)}"
    return "nothing to do: every device has what the manifest says"


def _result(result: operator_pb2.ApplyResult) -> operator_pb2.ApplyEvent:
    return operator_pb2.ApplyEvent(result=result)
