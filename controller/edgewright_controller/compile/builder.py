"""Building an artifact: stage the source, run the backend's stages in children, put the result into the store.

The controller never reads a model here: it links files, watches children and renames folders. Whatever goes wrong,
also cancelling, nothing stays of a build but its log.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, Final, TypeVar, cast

from edgewright_contract import bundle
from edgewright_contract.block_index import BlockIndexError
from edgewright_contract.bundle import BundleError
from edgewright_contract.model_files import ArtifactUnsafe, rules
from edgewright_controller.compile import carding, parents, pass_faults, toolchain
from edgewright_controller.compile.backends import gguf, mlx, onnx
from edgewright_controller.compile.backends.job import Backend, Job, RunStage
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.build_records import BuildRecords
from edgewright_controller.compile.calibration import Calibration
from edgewright_controller.compile.carding import Carding
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.executor import Executor, LocalExecutor
from edgewright_controller.compile.intermediates import Intermediates
from edgewright_controller.compile.quiet import Quiet
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.compile.room import Room
from edgewright_controller.compile.source import ModelFacts, Source, SourceFile
from edgewright_controller.compile.stages import BuildLimits, Stages
from edgewright_controller.compile.staging import link
from edgewright_controller.compile.store import ArtifactStore, Stored
from edgewright_controller.delivery.cutting import CutterMissing
from edgewright_controller.quality import gate, verdict
from edgewright_controller.quality.gate import Subject, Tell
from edgewright_controller.quality.limits import NO_OVERRIDES, Overrides, limits
from edgewright_controller.quality.measures import Measures
from edgewright_controller.quality.report_card import Origin, ReportCard
from edgewright_controller.quality.verdict import Refusal

_MODULES: Final[Mapping[str, ModuleType]] = {"gguf": gguf, "mlx": mlx, "onnx": onnx}
BACKENDS: Final = cast(Mapping[str, Backend], _MODULES)

# Left free for everything else that the machine does.
RESERVE_BYTES: Final = 256 << 20
_SCRATCH: Final = ".building-"
_OUT: Final = "artifact"
# Of the progress of a build that is measured afterwards.
_BUILD_SHARE: Final = 0.4
# Builds that are under way, most of them waiting for a stage's turn.
_BUILDS: Final = 64

T = TypeVar("T")
_Say = Callable[[str, float, str], None]


class BuildFailed(Exception):
    """A build gave no artifact: in which stage, its exit status if it had one, its last lines, and its log."""

    def __init__(
        self, stage: str, reason: str, *, exit_status: int | None, last_lines: tuple[str, ...], log: Path
    ) -> None:
        where = f" (log: {log})" if last_lines else ""
        super().__init__("\n".join([f"{stage}: {reason}{where}", *(f"    {line}" for line in last_lines)]))
        self.stage = stage
        self.reason = reason
        self.exit = exit_status
        self.last_lines = last_lines
        self.log = log


class BuildRefused(BuildFailed):
    """A build gave an artifact that is not what its source is. It was not stored; its digest is `artifact`."""

    def __init__(self, measures: Measures, refusals: Sequence[Refusal], artifact: str, log: Path) -> None:
        first, *others = verdict.words(refusals)
        super().__init__("refused", first, exit_status=None, last_lines=tuple(others), log=log)
        self.measures = measures
        self.refusals = tuple(refusals)
        self.artifact = artifact


@dataclass(frozen=True)
class Progress:
    """How far the build with this key is: `done` from 0 to 1, and what happens now."""

    key: str
    stage: str
    done: float
    say: str


@dataclass(frozen=True)
class Built:
    """A finished build: the artifact as the store has it, the build's log, what was measured, and the report card where
    one is made. Of a prebuilt artifact neither is there."""

    artifact: Stored
    log: Path
    measures: Measures | None = None
    card: ReportCard | None = None

    @property
    def bundle(self) -> str:
        """The artifact's identity."""
        return self.artifact.bundle


class Builder:
    """Builds below STATE: `builds/<key>.log`, `intermediates/`, `toolchains/`; artifacts go to `store`.

    `interpreters` has a Python for each runtime's toolchain. The store must be on the same file system.
    """

    def __init__(
        self,
        store: ArtifactStore,
        state: Path,
        interpreters: Mapping[str, str],
        *,
        threads: int | None = None,
        limits: BuildLimits | None = None,
        executor: Executor | None = None,
        gated: bool = False,
        carded: bool = False,
    ) -> None:
        """Open the folders, made if absent, and remove what a crash left. Without an `executor`, stages run here.

        Not `gated`, nothing is measured and so nothing refused: for figures of what a build alone costs. `carded`: what
        is built is served here for a while, and gets a report card.
        """
        state = state.absolute()  # children run in folders of their own
        self._store = store
        self._toolchains = state / "toolchains"
        self._builds = state / "builds"
        self._interpreters = dict(interpreters)
        self._threads = threads or os.cpu_count() or 1
        self._limits = limits or BuildLimits()
        self._executor = executor or LocalExecutor(interpreters, os.cpu_count() or 1, self._limits.memory_bytes)
        self._disk = Room(lambda: shutil.disk_usage(self._builds).free - RESERVE_BYTES, _BUILDS)
        self.intermediates = Intermediates(state / "intermediates")
        self._storing = asyncio.Lock()
        self.gated = gated
        self._quiet = Quiet()
        self._carding = Carding(state / "measured", interpreters, self._quiet) if carded else None
        self.records = BuildRecords(self._builds)
        for leftover in self._builds.glob(f"{_SCRATCH}*"):
            shutil.rmtree(leftover)

    def versions(self, runtime: str) -> Mapping[str, str]:
        """The runtime's toolchain, as a build key wants it. Starts a child only when the environment changed.

        Raises toolchain.ToolchainMissing, OSError.
        """
        interpreter = toolchain.interpreter_of(runtime, self._interpreters)
        return toolchain.versions(runtime, interpreter, self._toolchains)

    async def fault(self, recipe: Recipe) -> str:
        """What the recipe's toolchain cannot do of it, by the key in the profile; empty when nothing. Starts a child
        only for what was not asked before. Raises toolchain.ToolchainMissing, StageFailed, OSError."""
        if recipe.prebuilt:
            return ""
        versions = await asyncio.to_thread(self.versions, recipe.toolchain)
        return await pass_faults.find(recipe, versions, self._executor, self._toolchains)

    async def build(
        self,
        source: Source,
        recipe: Recipe,
        key: str,
        progress: Callable[[Progress], None] = lambda _: None,
        quality: Sequence[Overrides] = (NO_OVERRIDES,),
    ) -> Built:
        """Build `recipe` from `source`; `key` is their build key, computed with `versions`. `quality` is what those who
        want the artifact say of its limits: it must be within all of them.

        A prebuilt recipe takes a source from `inspect_prebuilt`. Raises BuildFailed, BuildRefused,
        toolchain.ToolchainMissing; when cancelled, the children are gone before the cancellation goes on.
        """
        async with self._quiet.busy():
            built = await self._built(source, recipe, key, progress, quality)
        if self._carding is None or recipe.prebuilt:
            return built
        progress(Progress(key, "measure", 1.0, "measuring speed and memory, once nothing is built"))
        card = await self._card(self._carding, source, recipe, key, built)
        return replace(built, card=card)

    async def _card(self, carder: Carding, source: Source, recipe: Recipe, key: str, built: Built) -> ReportCard:
        """The report card of what was built. What cannot be measured is on it, and never fails a build."""
        versions = await asyncio.to_thread(self.versions, recipe.toolchain)
        facts = source.facts
        assert facts is not None
        is_parent = parents.recipe(recipe.runtime, facts) == recipe
        async with self._scratch() as scratch:
            with built.log.open("ab", buffering=0) as words:

                @contextlib.asynccontextmanager
                async def parent() -> AsyncIterator[Path]:
                    run = self._runs(facts, scratch, words)(toolchain.home(recipe.toolchain), lambda *_: None)
                    job = self._job(source, recipe, versions, scratch, run)
                    async with parents.unquantised(job, BACKENDS[recipe.runtime].build) as folder:
                        yield folder

                measured_by = source.calibration.digest if recipe.calibrated else ""
                subject = carding.Subject(
                    key=key,
                    recipe=recipe,
                    origin=Origin(source.digest, source.origin, source.requantised, calibration=measured_by),
                    toolchain=versions,
                    artifact=self._store.path(built.bundle),
                    bundle=built.bundle,
                    size_bytes=built.artifact.size,
                    measures=built.measures,
                    parent=None if is_parent else parent,
                    no_parent="it is unquantised itself" if is_parent else "",
                )
                return await carder.card(subject, scratch, words)

    async def _built(
        self,
        source: Source,
        recipe: Recipe,
        key: str,
        progress: Callable[[Progress], None],
        quality: Sequence[Overrides],
    ) -> Built:
        log = self._builds / f"{key}.log"

        def say(stage: str, done: float, what: str) -> None:
            progress(Progress(key, stage, done, what))

        try:
            versions = {} if recipe.prebuilt else await asyncio.to_thread(self.versions, recipe.toolchain)
            if build_key(source.digest, recipe, versions, source.calibration.digest) != key:
                raise StageFailed("prepare", "the toolchain changed since this build was planned; plan again", None, ())
            needed = self._disk_bytes(source, recipe)
            async with (
                self._disk.take(needed, lambda: say("prepare", 0.0, "waiting for disk")),
                self._scratch() as scratch,
            ):
                self._check_disk(needed)
                out = scratch / _OUT
                with log.open("wb", buffering=0) as words:
                    if recipe.prebuilt:
                        say("copy", 0.0, "copying")
                        # As below: what is being written to cannot be removed.
                        await _finish(asyncio.to_thread(_copy, source, out))
                        _check_unchanged(source)
                        await _finish(asyncio.to_thread(_check_artifact, out, recipe.runtime))
                        measures = None
                    else:
                        measures = await self._made(
                            source, recipe, versions, scratch, talk=(words, say), quality=quality
                        )
                if measures is not None:
                    await self._judge(measures, quality, out, log)
                say("store", 1.0, "storing")
                async with self._storing:
                    # Shielded: a thread cannot be cancelled, and the scratch folder must outlive it.
                    stored = await _finish(asyncio.to_thread(self._store.add, out))
            return Built(stored, log, measures)
        except StageFailed as error:
            raise BuildFailed(
                error.stage, error.reason, exit_status=error.exit, last_lines=error.last_lines, log=log
            ) from error
        except (OSError, BundleError, BlockIndexError, CutterMissing) as error:
            raise BuildFailed("store", str(error), exit_status=None, last_lines=(), log=log) from error

    async def _made(
        self,
        source: Source,
        recipe: Recipe,
        versions: Mapping[str, str],
        scratch: Path,
        *,
        talk: tuple[BinaryIO, _Say],
        quality: Sequence[Overrides],
    ) -> Measures | None:
        """Make the artifact, check its files, and measure it where this builder does."""
        words, say = talk
        if source.facts is None:
            raise StageFailed("prepare", f"{source.folder}: a prebuilt artifact cannot be compiled", None, ())
        backend, share = BACKENDS[recipe.runtime], _BUILD_SHARE if self.gated else 1.0
        reference, with_versions = "", {}
        if self.gated:
            # Before the build, which would be for nothing without it.
            found = await asyncio.to_thread(toolchain.reference, self._interpreters, self._toolchains)
            reference, with_versions = found[0], dict(found[1])
        runs = self._runs(source.facts, scratch, words)
        job = self._job(
            source, recipe, versions, scratch, runs(toolchain.home(recipe.toolchain), _scaled(say, 0.0, share))
        )
        await backend.build(job)
        _check_unchanged(source)
        await _finish(asyncio.to_thread(_check_artifact, job.out, recipe.runtime))
        if not self.gated:
            return None
        subject = Subject(
            job, backend.build, lambda toolchain, tell: runs(toolchain, _telling(tell)), reference, with_versions
        )
        measures = await gate.measure(subject, quality, _scaled(say, share, 1.0))
        _check_unchanged(source)
        return measures

    async def _judge(self, measures: Measures, quality: Sequence[Overrides], out: Path, log: Path) -> None:
        allowed = [limits(measures.runtime, measures.precision, one) for one in quality]
        refusals = dict.fromkeys(refusal for limit in allowed for refusal in verdict.judge(measures, limit))
        if refusals:
            artifact = await _finish(asyncio.to_thread(bundle.from_folder, out))
            raise BuildRefused(measures, tuple(refusals), artifact.digest, log)

    def _runs(self, model: ModelFacts, scratch: Path, words: BinaryIO) -> Callable[[str, _Say], RunStage]:
        def runs(toolchain: str, say: _Say) -> RunStage:
            return Stages(
                self._executor,
                toolchain,
                model,
                self._limits,
                threads=self._threads,
                scratch=scratch,
                words=words,
                say=say,
            )

        return runs

    def _job(self, source: Source, recipe: Recipe, versions: Mapping[str, str], scratch: Path, run: RunStage) -> Job:
        assert source.facts is not None
        return Job(
            source=source,
            facts=source.facts,
            recipe=recipe,
            versions=versions,
            staged=link(source, scratch / "source"),
            scratch=scratch,
            out=scratch / _OUT,
            threads=self._threads,
            intermediates=self.intermediates,
            run=run,
            calibration=_calibration(source, scratch) if recipe.calibrated else None,
        )

    @contextlib.asynccontextmanager
    async def _scratch(self) -> AsyncIterator[Path]:
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=self._builds))
        try:
            yield scratch
        finally:
            await _finish(asyncio.to_thread(shutil.rmtree, scratch))

    def _disk_bytes(self, source: Source, recipe: Recipe) -> int:
        if recipe.prebuilt or source.facts is None:
            return source.bytes
        measuring = gate.disk_bytes(source.facts) if self.gated else 0
        return BACKENDS[recipe.runtime].disk_bytes(source, recipe) + measuring

    def _check_disk(self, build_bytes: int) -> None:
        needed = RESERVE_BYTES + build_bytes
        free = shutil.disk_usage(self._builds).free
        if free < needed:
            reason = f"{self._builds}: the build needs about {needed:,} bytes of disk, {free:,} are free; "
            reason += "make room, or serve with --state on a larger disk"
            raise StageFailed("prepare", reason, None, ())


async def _finish(work: Coroutine[Any, Any, T]) -> T:
    """Wait for a thread's work to its end, also when cancelled meanwhile; then the cancellation goes on."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise


def _scaled(say: _Say, start: float, end: float) -> _Say:
    return lambda stage, done, what: say(stage, start + (end - start) * done, what)


def _telling(tell: Tell) -> _Say:
    """Progress of a stage as that of a check, which has a name of its own."""
    return lambda _stage, done, what: tell(done, what)


def _calibration(source: Source, scratch: Path) -> Calibration:
    """A copy of the text, which nobody changes while it is read."""
    text = source.calibration
    copy = scratch / "calibration.txt"
    shutil.copyfile(text.path, copy)
    if hashlib.sha256(copy.read_bytes()).hexdigest() != text.digest:
        raise StageFailed("prepare", f"{text.path}: changed since this build was planned; apply again", None, ())
    return Calibration(copy, text.digest)


def _copy(source: Source, folder: Path) -> None:
    """The source's files as they are. Copies, not hard links: the store makes its files read-only."""
    for file in source.files:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.place, target)


def _check_unchanged(source: Source) -> None:
    changed: list[SourceFile] = [file for file in source.files if not file.unchanged]
    if changed:
        raise StageFailed("prepare", f"{changed[0].place}: changed while it was built from; apply again", None, ())


def _check_artifact(folder: Path, runtime: str) -> None:
    """What every device would refuse must not be signed first, wherever it comes from."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}
    try:
        rules.check_names(files, runtime)
        rules.check_contents(files)
    except ArtifactUnsafe as error:
        raise StageFailed("check", str(error), None, ()) from error
