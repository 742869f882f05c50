"""Making the builds that a plan lacks, all under way at once: their stages wait for memory and processors."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from edgewright_contract import canonical
from edgewright_contract.v1 import operator_pb2
from edgewright_controller.compile import build_estimate
from edgewright_controller.compile.build_records import BUILT, FAILED, STOPPED, BuildRecord, StageClock
from edgewright_controller.compile.builder import Builder, BuildFailed, BuildRefused, Built, Progress
from edgewright_controller.compile.executor import WAITS
from edgewright_controller.compile.source import Source
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.compile.toolchain import ToolchainMissing
from edgewright_controller.ledger import Ledger, artifacts, build_cards, model_builds
from edgewright_controller.ledger.build_cards import BuildCardRow
from edgewright_controller.plan import Build
from edgewright_controller.quality import provenance
from edgewright_controller.quality.measures import Measures
from edgewright_controller.quality.provenance import File, Provenance
from edgewright_controller.quality.report_card import ReportCard
from edgewright_controller.service.change import ChangeRefused
from edgewright_controller.service.job import Job
from edgewright_controller.unix_time import unix_ms


class Compiling:
    """Runs builds. A key that is being built is not built twice; whoever asks later waits for the same build."""

    def __init__(
        self, fleet: str, ledger: Ledger, store: ArtifactStore, builder: Builder, clock: Callable[[], datetime]
    ) -> None:
        self._fleet, self._ledger, self._store, self._builder, self._clock = fleet, ledger, store, builder, clock
        self._running: dict[str, asyncio.Task[tuple[Built, str]]] = {}

    async def make(self, builds: Sequence[Build], sources: Mapping[str, Source], job: Job, now: datetime) -> None:
        """Make all `builds`; `sources` has one for each build key. They are in the ledger when this returns.

        What can be built is built and kept, also when another build fails. A build that is only tried may be refused;
        it is in the ledger too. Raises ChangeRefused that tells every failure.
        """
        outcomes = await asyncio.gather(
            *(self._one(build, sources[build.key], job, now) for build in builds), return_exceptions=True
        )
        failures = []
        for build, outcome in zip(builds, outcomes, strict=True):
            if isinstance(outcome, BuildRefused) and build.tried:
                job.say(_event(build, "refused", 0.0, outcome.reason))
            elif isinstance(outcome, BuildFailed | ToolchainMissing):
                failures.append(f"build {build.model} {build.recipe}: {outcome}")
                job.say(_event(build, "failed", 0.0, str(outcome).splitlines()[0]))
            elif isinstance(outcome, BaseException):
                raise outcome
        if failures:
            raise ChangeRefused("\n".join(failures))

    async def close(self) -> None:
        """End what runs; the children are gone when this returns."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _one(self, build: Build, source: Source, job: Job, now: datetime) -> None:
        def progress(progress: Progress) -> None:
            job.say(_event(build, progress.stage, progress.done, progress.say))

        task = self._running.get(build.key)
        if task is None:
            task = asyncio.create_task(self._made(build, source, progress))
            self._running[build.key] = task
            task.add_done_callback(lambda _: self._running.pop(build.key, None))
        made_ms = unix_ms(now)
        try:
            built, statement = await asyncio.shield(task)
        except BuildRefused as refused:
            # So that the next apply says so at once, and a changed limit is judged by what was measured.
            card = _card(build.key, refused.artifact, refused.measures, made_ms, passed=False)
            reason = refused.reason + "".join(f"\n{line}" for line in refused.last_lines)

            def keep(connection: Connection) -> None:
                build_cards.put(connection, card)
                model_builds.judged(connection, build.key, reason, made_ms)

            await self._ledger.write(keep)
            raise
        artifact = built.artifact
        row = artifacts.ArtifactRow(
            artifact.bundle, artifact.size, artifact.bundle_length, artifact.block_index, artifact.block_index_length
        )
        recipe = canonical.encode(build.recipe.to_json()).decode("ascii")
        made = artifacts.BuildRow(build.key, artifact.bundle, artifact.size, build.recipe.runtime, made_ms, recipe)

        def enter(connection: Connection) -> None:
            artifacts.put(connection, row)
            artifacts.put_build(connection, made)
            model_builds.judged(connection, build.key, "", made_ms)
            if built.measures is not None or built.card is not None:
                card = _card(build.key, artifact.bundle, built.measures, made_ms, passed=True)
                build_cards.put(connection, card)
            if built.card is not None:
                build_cards.put_card(connection, build.key, built.card.encode().decode("ascii"), statement)

        await self._ledger.write(enter)
        done = _event(build, "done", 1.0, built.card.headline if built.card else "")
        done.build.artifact, done.build.artifact_bytes = artifact.bundle, artifact.size
        job.say(done)

    async def _made(self, build: Build, source: Source, progress: Callable[[Progress], None]) -> tuple[Built, str]:
        """What was built, and the digest of the statement of how; the statement is in the store, as the card is."""
        started = self._clock()
        built = await self._recorded(build, source, progress, started)
        if built.card is None:
            return built, ""
        card, statement = built.card.encode(), _statement(self._fleet, source, built.card, started, self._clock())
        await asyncio.to_thread(self._store.put_object, card)
        return built, await asyncio.to_thread(self._store.put_object, statement)

    async def _recorded(
        self, build: Build, source: Source, progress: Callable[[Progress], None], started: datetime
    ) -> Built:
        """Build, keep what became of it, and say how long it will take yet where earlier builds tell."""
        records, recipe, stages = self._builder.records, build.recipe, StageClock()
        past = records.past()

        def heard(report: Progress) -> None:
            elapsed = stages.heard(report.stage, waits=report.say == WAITS)
            kind = (past, recipe.runtime, recipe.quantization, source.bytes)
            left = build_estimate.words(build_estimate.seconds_left(*kind, stage=report.stage, elapsed_s=elapsed))
            progress(replace(report, say=", ".join(part for part in (report.say, left) if part)))

        record = BuildRecord(
            build.key, build.model, recipe.runtime, recipe.quantization, str(recipe), source.bytes, unix_ms(started)
        )
        await asyncio.to_thread(records.begin, record)
        start = time.monotonic()
        ended: dict[str, Any] = {"state": STOPPED}
        try:
            built = await self._builder.build(source, recipe, build.key, heard, build.quality)
            ended = {"state": BUILT, "artifact": built.bundle}
        except (BuildFailed, ToolchainMissing) as error:
            ended = {"state": FAILED, "reason": str(error)}
            raise
        finally:
            # Not in a thread: a cancelled build ends here too.
            ended_ms = record.began_ms + round(1000 * (time.monotonic() - start))
            records.end(build.key, ended_ms=ended_ms, stages=stages.stages(), **ended)
        return built


def _statement(fleet: str, source: Source, card: ReportCard, started: datetime, finished: datetime) -> bytes:
    return provenance.statement(
        Provenance(
            artifact=card.artifact,
            build_key=card.build_key,
            fleet=fleet,
            recipe=card.recipe,
            source=card.origin.digest,
            files=tuple(File(file.path, file.sha256) for file in source.files),
            toolchain=card.toolchain,
            edgewright=card.edgewright,
            started=started,
            finished=finished,
            origin=card.origin.where,
            requantised=card.origin.requantised,
            calibration=card.origin.calibration,
            card=card.digest,
            invocation=uuid.uuid4().hex,
        )
    )


def _card(key: str, artifact: str, measures: Measures | None, made_ms: int, *, passed: bool) -> BuildCardRow:
    document = canonical.encode(measures.to_json()).decode("ascii") if measures is not None else ""
    return BuildCardRow(key, artifact, document, passed=passed, made_ms=made_ms)


def cached(build: Build) -> operator_pb2.ApplyEvent:
    """What is told of a build that is there already."""
    event = _event(build, "cached", 1.0, "")
    event.build.artifact, event.build.artifact_bytes = build.artifact, build.size_bytes
    return event


def _event(build: Build, stage: str, done: float, detail: str) -> operator_pb2.ApplyEvent:
    return operator_pb2.ApplyEvent(
        build=operator_pb2.BuildProgress(
            build_key=build.key,
            model=build.model,
            runtime=build.recipe.runtime,
            quantization=build.recipe.quantization,
            stage=stage,
            fraction=min(1.0, max(0.0, done)),
            detail=detail,
        )
    )
