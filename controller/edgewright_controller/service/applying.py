"""An apply, from its plan to its rollout's end: prepare, compile, sign, enter, roll out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from edgewright_contract import digest
from edgewright_contract.v1 import operator_pb2
from edgewright_controller.compile.source import Source
from edgewright_controller.compile.sources.sources import Sources
from edgewright_controller.ledger import Ledger
from edgewright_controller.manifest import Manifest
from edgewright_controller.plan import Build, Plan
from edgewright_controller.publish.image import ImageRepository
from edgewright_controller.quality.limits import Overrides
from edgewright_controller.service import apply_entries, plan_message, rollout_views
from edgewright_controller.service.change import ALL, ChangeRefused, ManifestText, Selection
from edgewright_controller.service.compiling import Compiling, cached
from edgewright_controller.service.conflicts import refuse_parts, with_warnings
from edgewright_controller.service.delivery_terms import DeliveryTerms
from edgewright_controller.service.deltas import Deltas
from edgewright_controller.service.job import Job
from edgewright_controller.service.looking import asked_of
from edgewright_controller.service.planning import Planning
from edgewright_controller.service.preparing import prepare
from edgewright_controller.service.refusing import (
    nothing_to_do,
    refuse_builds,
    refuse_cordoned,
    refuse_held,
    refuse_misfits,
)
from edgewright_controller.service.rollouts_runner import RolloutsRunner
from edgewright_controller.service.survey import Survey
from edgewright_controller.service.wish import Wish
from edgewright_controller.unix_time import unix_ms
from edgewright_controller.waves import policy_of


@dataclass(frozen=True)
class Order:
    """What an operator asks for. `again`: also what was held back. `supersede`: also where it takes but a part of what
    a rollout still has to do. `why`: in the operator's own words."""

    text: ManifestText
    by: str
    only: Selection = ALL
    again: bool = False
    build_only: bool = False
    supersede: bool = False
    why: str = ""

    def __str__(self) -> str:
        """For the audit log."""
        asked = {"again": self.again, "build only": self.build_only, "supersede": self.supersede}
        flags = "".join(f", {name}" for name, given in asked.items() if given)
        flags += f", only {self.only}" if self.only != ALL else ""
        return f"{self.text.file}, sha256 {digest.of_bytes(self.text.text.encode())}{flags}"


@dataclass(frozen=True)
class Looked:
    """An order's manifest, the plan for it, and what was seen for that."""

    order: Order
    manifest: Manifest
    plan: Plan
    survey: Survey


class Applying:
    """Carries out orders, for one fleet."""

    def __init__(
        self,
        ledger: Ledger,
        planning: Planning,
        compiling: Compiling,
        *,
        image: ImageRepository,
        runner: RolloutsRunner,
        sources: Sources,
        deltas: Deltas,
        terms: DeliveryTerms,
        clock: Callable[[], datetime],
    ) -> None:
        self._ledger, self._planning, self._compiling = ledger, planning, compiling
        self._image, self._runner, self._sources, self._clock = image, runner, sources, clock
        self._deltas, self._terms = deltas, terms

    async def look(self, order: Order) -> Looked:
        """What the order comes to, before anything is done. Raises BadInput, ChangeRefused, LedgerError."""
        manifest = await self._planning.read(order.text)
        plan, survey = await self._planning.plan(manifest, order.text, order.only, again=order.again)
        await self._enter_builds(plan)
        refuse_builds(plan)
        if not order.build_only:
            refuse_misfits(plan)
            refuse_held(plan)
            refuse_cordoned(plan, order.only)
            if not order.supersede:
                refuse_parts(plan, self._runner.running)
        return Looked(order, manifest, plan, survey)

    async def carry_out(
        self, looked: Looked, job: Job, entered: Callable[[], None] = lambda: None
    ) -> operator_pb2.ApplyResult:
        """To the end of its rollout; `entered` is called once that is in the ledger.

        Raises BadInput, ChangeRefused and what compiling and signing raise."""
        order, manifest = looked.order, looked.manifest
        told = with_warnings(looked.plan, self._runner.running, supersede=order.supersede)
        job.say(operator_pb2.ApplyEvent(plan=plan_message.message(told)))
        plan, keys = await self._built(looked, job)
        await self._publish(manifest, plan)
        made = {"builds_made": len(keys), "builds_cached": sum(build.key not in keys for build in plan.builds)}
        if order.build_only:
            return operator_pb2.ApplyResult(succeeded=True, summary=f"{len(plan.builds)} artifacts are signed", **made)
        refuse_misfits(plan)
        refuse_held(plan)
        refuse_cordoned(plan, order.only)
        now_ms = self._now_ms()
        await self._ledger.write(
            lambda connection: apply_entries.manifest_applied(
                connection, manifest, plan, order.text, by=order.by, why=order.why, now_ms=now_ms
            )
        )
        await self._terms.refresh()
        self._runner.look_for_newcomers()
        if not plan.to_do:
            return operator_pb2.ApplyResult(succeeded=True, summary=nothing_to_do(plan), **made)
        if order.again:
            await self._ledger.write(
                lambda connection: apply_entries.holds_lifted(
                    connection, plan, everywhere=order.only == ALL, now_ms=now_ms
                )
            )
        wish = _wish(order, manifest, plan)
        await self._deltas.ready(wish.releases, job)
        ended = await self._runner.begin(wish, job)
        entered()
        finish = await ended
        result = rollout_views.result(finish.phase, finish.reason, finish.counts)
        result.builds_made, result.builds_cached = made["builds_made"], made["builds_cached"]
        return result

    async def _built(self, looked: Looked, job: Job) -> tuple[Plan, set[str]]:
        """The plan with every build there, and the keys of those that were made for it."""
        order, manifest, plan, survey = looked.order, looked.manifest, looked.plan, looked.survey
        text, only, again = order.text, order.only, order.again
        failed: dict[str, str] = {}
        if plan.preparations:
            asked = {one.model: asked_of(manifest, one.model) for one in plan.preparations}
            failed = await prepare(self._sources, asked, survey.seen.resolved, job, text.file)
            plan, survey = await self._planning.plan(manifest, text, only, again=again, before=survey)
            await self._enter_builds(plan)
            refuse_builds(plan)
            if not order.build_only:
                # Only now are the sizes known, and a build that no device can hold would be for nothing.
                refuse_misfits(plan)
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
            plan, survey = await self._planning.plan(manifest, text, only, again=again, before=survey)
            refuse_builds(plan)
        for search in plan_message.searches(plan):
            job.say(operator_pb2.ApplyEvent(search=search))
        if failed:
            raise ChangeRefused("\n".join(failed.values()))
        return plan, {key for key, _ in tried}

    async def _enter_builds(self, plan: Plan) -> None:
        now_ms = self._now_ms()
        await self._ledger.write(lambda connection: apply_entries.builds(connection, plan, now_ms))

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
        targets = await self._ledger.write(
            lambda connection: apply_entries.planned_releases(connection, manifest, plan, now_ms)
        )
        if targets:
            await asyncio.to_thread(self._image.publish, targets, self._clock())

    def _now_ms(self) -> int:
        return unix_ms(self._clock())


def _wish(order: Order, manifest: Manifest, plan: Plan) -> Wish:
    terms = manifest.terms()
    return Wish(
        releases={change.device: change.to_release or None for change in plan.to_do},
        policy=policy_of(manifest.rollout),
        by=order.by,
        about=f"apply of {order.text.file}",
        waves=tuple(wave.devices for wave in plan.waves),
        after=tuple(wave.after for wave in plan.waves),
        windows={
            device: (timing.windows, timing.zone, terms[device].windows)
            for device, timing in manifest.timings().items()
        },
        not_again=not order.again,
        why=order.why,
        supersede=order.supersede,
    )


def _sources(builds: Sequence[Build], survey: Survey) -> dict[str, Source]:
    """The source of each build that is here, by build key."""
    seen = survey.seen
    found = {
        build.key: seen.prebuilt.get(build.source) if build.recipe.prebuilt else seen.sources.get(build.model)
        for build in builds
    }
    return {key: source for key, source in found.items() if source is not None}
