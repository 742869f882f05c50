"""The acts of an update: each in a few lines, over the parts that do the work.

Errors of those parts become a fault out of the closed set here, and nowhere else.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import psutil

from edgewright_agent.backoff import Backoff
from edgewright_agent.cancellation import Cancellation, in_thread
from edgewright_agent.database import StateDamaged
from edgewright_agent.download import pull
from edgewright_agent.engines import catalogue
from edgewright_agent.engines.catalogue import EngineMissing, EngineSettings
from edgewright_agent.engines.process import EngineFailed, EngineProcess
from edgewright_agent.engines.supervision import AcceleratorWrong, ProbeFailed, Serving
from edgewright_agent.fetch_plan import ArtifactCorrupt, DiskFull, FetchPlan, prepare
from edgewright_agent.front import spec_of
from edgewright_agent.holdings import Holdings
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.lifecycle_state import Act, Fault, Lifecycle
from edgewright_agent.link import BadAnswer, BlockSource, LinkDown, Refused
from edgewright_agent.pace import Pace
from edgewright_agent.slots import ArtifactDamaged, Slots
from edgewright_agent.state_store import KnownRelease, StateStore
from edgewright_agent.update import ActFailed
from edgewright_contract.engine import EngineInfo
from edgewright_contract.model_files import ArtifactUnsafe, chat_template, rules
from edgewright_contract.release import Release
from edgewright_contract.targets import ImageTarget

DRAIN_S: Final = 120.0
_LAST_LINES: Final = 5

_CHANGES_ARTIFACTS: Final = frozenset({Act.PLAN, Act.DOWNLOAD, Act.VERIFY, Act.DRAIN, Act.FALL_BACK})

_log = logging.getLogger(__name__)


async def _nobody_in_the_way() -> None:
    """Nothing else changes artifacts."""


@dataclass
class Download:
    """How far the download is, in bytes, and how fast. Shown in the status, decided upon by nobody."""

    done: int = 0
    total: int = 0
    pace: Pace = field(default_factory=Pace)
    trouble: str = ""

    def note(self, done: int, total: int, now: float) -> None:
        """So much is safe at `now`, in monotonic seconds. Called from the thread that fetches."""
        self.done, self.total, self.pace = done, total, self.pace.after(done, now)


class DeviceActs:
    """Performs the lifecycle's acts on this device. Keeps the candidate engine and the old one between acts."""

    def __init__(
        self,
        store: StateStore,
        slots: Slots,
        journal: DownloadJournal,
        *,
        source: BlockSource,
        serving: Serving,
        settings: Mapping[str, EngineSettings],
        holdings: Holdings,
        reserve: int,
        on_progress: Callable[[], None],
        on_wait: Callable[[float, str], None],
        on_trouble: Callable[[], None] = lambda: None,
        on_activated: Callable[[ImageTarget], None],
        make_way: Callable[[], Awaitable[None]] = _nobody_in_the_way,
        on_serving: Callable[[Release | None], None] = lambda _release: None,
    ) -> None:
        """`on_progress` is called on the event loop when new bytes are safe; `download` has the numbers. So is
        `on_wait`, when the source said to come back after so many seconds, and why, and `on_trouble`, when what is
        wrong with it, `download.trouble`, is something else than before. `on_activated` is called in a thread when an
        artifact took traffic; `on_serving` before that, and with None when nothing serves any more. `make_way` is
        awaited before an act that changes what artifacts there are."""
        self.download = Download()
        self.info: EngineInfo | None = None
        self._store, self._slots, self._journal, self._source = store, slots, journal, source
        self._serving, self._settings = serving, settings
        self._on_progress, self._on_trouble = on_progress, on_trouble
        self._holdings, self._reserve = holdings, reserve
        self._on_wait, self._on_activated, self._make_way = on_wait, on_activated, make_way
        self._on_serving = on_serving
        self._plan: FetchPlan | None = None
        self._candidate: EngineProcess | None = None
        self._candidate_info: EngineInfo | None = None
        self._old: EngineProcess | None = None

    async def perform(self, act: Act, state: Lifecycle) -> None:
        """See update.Acts."""
        acts = {
            Act.PLAN: self._make_plan,
            Act.DOWNLOAD: self._fetch,
            Act.VERIFY: self._verify,
            Act.START: self._start,
            Act.PROVE: self._prove,
            Act.PROBE: self._probe,
            Act.SWITCH: self._switch,
            Act.DRAIN: self._drain,
            Act.REVERT: self._revert,
            Act.FALL_BACK: self._fall_back,
        }
        try:
            if act in _CHANGES_ARTIFACTS:
                await self._make_way()
            await acts[act](state)
        except EngineFailed as error:
            raise ActFailed(Fault.ENGINE_FAILED, told(error)) from error
        except EngineMissing as error:
            raise ActFailed(Fault.ENGINE_MISSING, str(error)) from error
        except ArtifactUnsafe as error:
            raise ActFailed(Fault.ARTIFACT_UNSAFE, str(error)) from error
        except (ArtifactCorrupt, BadAnswer) as error:
            raise ActFailed(Fault.ARTIFACT_CORRUPT, str(error)) from error
        except DiskFull as error:
            raise ActFailed(Fault.DISK_FULL, str(error)) from error
        except (Refused, LinkDown) as error:
            raise ActFailed(Fault.DOWNLOAD_FAILED, str(error)) from error
        except StateDamaged as error:
            # No fault of the release: what cannot be written now, mostly for want of room, can be later.
            raise ActFailed(Fault.DISK_FULL, str(error)) from error
        except OSError as error:
            fault = Fault.DISK_FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else Fault.INTERNAL
            raise ActFailed(fault, str(error)) from error

    async def start_active(self, state: Lifecycle) -> None:
        """Serve what served before the restart, at once and from this disk alone. Raises ActFailed."""
        known = self._known(state.active)
        name, spec = known.release.served_name, spec_of(known.release, self._slots)
        if self._serving.active is not None and self._serving.active.spec == spec:
            await self._note_activated(state)  # it stood by for this, see front.py
            await self.learn_engine()
            return
        self._serving.routes.expect(name, "the agent has just started and checks the model's files")
        try:
            await self._verified(known)
        except ActFailed as error:
            self._serving.routes.expect(name, error.reason)
            raise
        await self._serving.resume(spec)
        await self._note_activated(state)
        await self.learn_engine()

    async def learn_engine(self) -> None:
        """Ask the active engine what it is, for the status."""
        engine = self._serving.active
        if engine is None:
            return
        try:
            self.info = await engine.info()
        except EngineFailed as error:
            _log.warning("the engine does not say what it is: %s", error)

    async def _make_plan(self, state: Lifecycle) -> None:
        known = self._known(state.release)
        await self._collect(state)
        await asyncio.to_thread(self._check_engine, known)
        available = psutil.virtual_memory().available
        if known.release.memory_bytes > available:
            raise ActFailed(
                Fault.MEMORY_SHORT,
                f"{known.release.model} needs {known.release.memory_bytes:,} bytes of memory beside what runs; "
                f"{available:,} are free, {known.release.memory_bytes - available:,} are missing",
            )

        def fetch_documents(cancellation: Cancellation) -> FetchPlan:
            backoff = Backoff()
            while True:
                try:
                    return prepare(
                        known.target,
                        self._source,
                        self._slots,
                        reuse=self._holdings.to_reuse(state),
                        reserve=self._reserve,
                        cancellation=cancellation,
                    )
                except DiskFull:
                    if not self._holdings.make_room(state):
                        raise
                except LinkDown as error:
                    # The step's deadline ends this.
                    cancellation.wait(backoff.pause() if error.again_s is None else error.again_s)

        self.download = Download()
        self._plan = None
        if self._slots.has(known.release.artifact):
            return  # what it became since it was fetched is found out when it is verified
        self._plan = await in_thread(fetch_documents)
        self.download = Download(0, self._plan.total_bytes)

    async def _verified(self, known: KnownRelease) -> None:
        """Hash the artifact again. A damaged one is set aside, so that what is damaged comes anew. Raises ActFailed."""
        artifact = known.release.artifact
        try:
            await in_thread(lambda cancellation: self._slots.verify(artifact, cancellation.check))
        except ArtifactDamaged as error:
            await asyncio.to_thread(self._slots.set_aside, artifact)
            raise ActFailed(Fault.ARTIFACT_CORRUPT, str(error)) from error

    async def _note_activated(self, state: Lifecycle) -> None:
        """It took traffic, and that is not undone by a disk that is too full to note it."""
        try:
            known = self._known(state.active)
            await asyncio.to_thread(self._on_serving, known.release)
            await asyncio.to_thread(self._on_activated, known.target)
        except (StateDamaged, OSError) as error:
            _log.error("that release %s took traffic is noted at the next start: %s", state.active[:12], error)

    def _check_engine(self, known: KnownRelease) -> None:
        runtime = known.release.runtime
        settings = self._settings.get(runtime)
        if settings is None:
            raise EngineMissing(f"engines.{runtime} is not enabled on this device")
        catalogue.find(runtime, settings)

    async def _fetch(self, state: Lifecycle) -> None:
        plan, loop = self._plan, asyncio.get_running_loop()
        if plan is None:
            return
        if state.paused and plan.total_bytes and not self._slots.has(plan.target.bundle):
            await asyncio.Event().wait()  # ended by DownloadsResumed, a newer generation or the agent's end

        def report(done: int, total: int) -> None:
            self.download.note(done, total, time.monotonic())
            loop.call_soon_threadsafe(self._on_progress)

        def waits(seconds: float, reason: str) -> None:
            loop.call_soon_threadsafe(self._on_wait, seconds, reason)

        def complain(text: str) -> None:
            if text != self.download.trouble:
                self.download.trouble = text
                loop.call_soon_threadsafe(self._on_trouble)

        await in_thread(
            lambda cancellation: pull(
                plan,
                self._source,
                self._slots,
                self._journal,
                progress=report,
                waits=waits,
                trouble=complain,
                cancellation=cancellation,
            )
        )

    async def _verify(self, state: Lifecycle) -> None:
        known = self._known(state.release)
        await self._verified(known)
        await asyncio.to_thread(self._check_files, known)

    def _check_files(self, known: KnownRelease) -> None:
        """By the rules of this version: what is here already may have come to an older one, with fewer of them.

        Not when the agent starts: what served yesterday goes on serving. Raises ArtifactUnsafe, OSError.
        """
        files = self._slots.files(known.release.artifact)
        rules.check_names(files, known.release.runtime)
        rules.check_contents(files)
        pinned = known.release.chat_template
        if pinned and chat_template.of(files) != pinned:
            raise ArtifactUnsafe(f"its chat template is not the one that release {known.release.digest[:12]} names")

    async def _start(self, state: Lifecycle) -> None:
        self._candidate = await self._serving.start_beside(spec_of(self._known(state.release).release, self._slots))

    async def _prove(self, state: Lifecycle) -> None:
        assert self._candidate is not None
        try:
            accelerator = self._known(state.release).release.accelerator
            self._candidate_info = await self._serving.prove(self._candidate, accelerator)
        except AcceleratorWrong as error:
            raise ActFailed(Fault.ACCELERATOR_WRONG, str(error)) from error

    async def _probe(self, state: Lifecycle) -> None:
        assert self._candidate is not None
        try:
            await self._serving.probe_all(self._candidate, self._known(state.release).release.probes)
        except ProbeFailed as error:
            raise ActFailed(Fault.PROBE_FAILED, str(error)) from error

    async def _switch(self, state: Lifecycle) -> None:
        if not state.release:
            return  # serving nothing has no candidate; draining ends what serves
        assert self._candidate is not None
        self._old = await self._serving.switch(self._candidate)
        self._candidate, self.info = None, self._candidate_info

    async def _drain(self, state: Lifecycle) -> None:
        if state.release:
            await self._note_activated(state)
            old, self._old = self._old, None
            await self._serving.retire(old, DRAIN_S)
        else:
            await self._serving.serve_nothing(DRAIN_S)
            self.info = None
            await asyncio.to_thread(self._on_serving, None)
        await self._collect(state)

    async def _revert(self, state: Lifecycle) -> None:
        candidate, self._candidate = self._candidate, None
        if candidate is not None:
            await self._serving.discard(candidate)

    async def _fall_back(self, state: Lifecycle) -> None:
        known = self._known(state.previous)
        await self._verified(known)
        self._candidate = await self._serving.start_beside(spec_of(known.release, self._slots))
        broken = await self._serving.switch(self._candidate)
        self._candidate = None
        await self._serving.retire(broken, 0)
        await self._note_activated(replace(state, active=state.previous))
        await self.learn_engine()

    async def _collect(self, state: Lifecycle) -> None:
        """Remove artifacts and releases that are neither active, previous nor aimed at, as far as the quota says."""
        await in_thread(lambda cancellation: self._holdings.collect(state, cancellation.check))

    def _known(self, release: str) -> KnownRelease:
        known = self._store.known(release)
        if known is None:
            raise ActFailed(Fault.INTERNAL, f"release {release[:12]} is not known here; enrol the device again")
        return known


def told(error: EngineFailed) -> str:
    """What happened to an engine and the last of what it said, for a status."""
    return " | ".join([error.reason, *error.last_lines[-_LAST_LINES:]])
