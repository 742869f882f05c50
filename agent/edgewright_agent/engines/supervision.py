"""The acts of serving: start beside, prove, probe, switch, retire; and keep what serves alive.

The lifecycle decides which act comes when. A bad candidate is found before `switch`, so it never takes traffic.
Between acts one task watches the active engine by waiting for its end, and starts it anew when it dies.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final

from edgewright_agent import probe
from edgewright_agent.engines import accelerator as accelerators
from edgewright_agent.engines.catalogue import EngineMissing, EngineSettings
from edgewright_agent.engines.confinement import UNCONFINED, Confinement
from edgewright_agent.engines.process import EngineFailed, EngineProcess
from edgewright_agent.gateway.routes import Routes, Upstream
from edgewright_contract.engine import EngineInfo, EngineSpec
from edgewright_contract.release import Probe

LOAD_S: Final = 300.0  # a large model from a slow card
_KEPT_LOGS: Final = 6
_NOTICED_S: Final = 10.0


class AcceleratorWrong(Exception):
    """The engine does not run on the accelerator that the release was made for."""


class ProbeFailed(Exception):
    """The engine runs, but a probe is not satisfied. `results` has those asked so far."""

    def __init__(self, results: tuple[probe.ProbeResult, ...]) -> None:
        self.results = results
        super().__init__(results[-1].reason)


class EventKind(Enum):
    """What happened to the active engine."""

    STARTED = "started"
    EXITED = "exited"
    RESTARTED = "restarted"
    RESTART_FAILED = "restart failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class EngineEvent:
    """`failures` counts deaths and failed starts in a row; it falls to 0 when an engine was steady."""

    kind: EventKind
    spec: EngineSpec
    detail: str
    failures: int = 0


@dataclass(frozen=True)
class Backoff:
    """Seconds before a dead engine is started again: `first_s`, doubling to `longest_s`. An engine that lived for
    `steady_s` begins at `first_s` again."""

    first_s: float = 0.5
    longest_s: float = 30.0
    steady_s: float = 60.0

    def delay(self, failures: int) -> float:
        """Before the next start, after so many failures in a row (1 or more)."""
        return float(min(self.first_s * 2 ** min(failures - 1, 16), self.longest_s))


class Serving:
    """Holds the active engine and its route. All methods run on one event loop.

    `load_s` is what an engine may take to load, and for one token when it is suspected of hanging."""

    def __init__(
        self,
        settings: Mapping[str, EngineSettings],
        logs: Path,
        routes: Routes,
        on_event: Callable[[EngineEvent], None],
        *,
        confinement: Confinement = UNCONFINED,
        backoff: Backoff = Backoff(),
        load_s: float = LOAD_S,
    ) -> None:
        self.routes = routes
        self._settings = settings
        self._logs = logs
        self._on_event = on_event
        self._confinement = confinement
        self._backoff = backoff
        self._load_s = load_s
        self._active: EngineProcess | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._checks: set[asyncio.Task[None]] = set()
        self._checked: EngineProcess | None = None
        self.restarts = 0

    @property
    def active(self) -> EngineProcess | None:
        """The engine that answers requests; None when none does, also while it restarts."""
        return self._active if self._active is not None and self._active.running else None

    async def start_beside(self, spec: EngineSpec, deadline_s: float | None = None) -> EngineProcess:
        """A ready engine beside the active one, unknown to the routes. Raises EngineMissing, EngineFailed.

        The caller owns it until `switch`, and must `discard` it otherwise. Cancelling ends the child.
        """
        began = time.monotonic()
        deadline_s = self._load_s if deadline_s is None else deadline_s
        settings = self._settings.get(spec.runtime, EngineSettings())
        engine = await EngineProcess.start(
            spec, settings, self._log_of(spec), confinement=self._confinement, deadline_s=deadline_s
        )
        try:
            await engine.wait_ready(max(deadline_s - (time.monotonic() - began), 0.1))
        except BaseException:
            await engine.stop(0)
            raise
        return engine

    async def prove(self, engine: EngineProcess, accelerator: str) -> EngineInfo:
        """What the engine runs on, as the runtime says. Raises AcceleratorWrong, EngineFailed."""
        info = await engine.info()
        fault = accelerators.fault(info, engine.spec, accelerator)
        if fault:
            raise AcceleratorWrong(fault)
        return info

    async def probe_all(self, engine: EngineProcess, probes: Sequence[Probe]) -> tuple[probe.ProbeResult, ...]:
        """Every probe's result, in order. Raises ProbeFailed at the first that fails; EngineFailed when the engine
        died of it."""
        results: tuple[probe.ProbeResult, ...] = ()
        for question in probes:
            results = (*results, await probe.run(engine, question))
            if not results[-1].passed:
                if results[-1].cut_off and await engine.ends_within(_NOTICED_S):
                    raise EngineFailed(f"{engine.exit_reason()} at {results[-1].reason}", engine.log.last_lines())
                raise ProbeFailed(results)
        return results

    async def switch(self, engine: EngineProcess) -> EngineProcess | None:
        """From now on `engine` answers. Returns the one before, still running, for `retire`.

        Raises EngineFailed when `engine` died meanwhile; then nothing changed.
        """
        if not engine.running:
            raise EngineFailed(engine.exit_reason(), engine.log.last_lines())
        old, keeper = self._active, self._keeper
        # No await in here: requests see either the old engine or the new one.
        self.routes.switch(engine.model, engine)
        self._active = engine
        self._keeper = asyncio.ensure_future(self._keep(engine.spec, engine))
        await _end(keeper)
        self._on_event(EngineEvent(EventKind.STARTED, engine.spec, f"engine {engine.name} answers"))
        return old

    async def retire(self, old: EngineProcess | None, deadline_s: float) -> bool:
        """Let `old` finish its requests, at most `deadline_s` seconds, then end it. False: some were cut off."""
        if old is None:
            return True
        drained = await self.routes.drain(old, deadline_s) if old.running else True
        await old.stop()
        return drained

    async def discard(self, engine: EngineProcess) -> None:
        """End a candidate that was not switched to."""
        await engine.stop()

    async def resume(self, spec: EngineSpec, deadline_s: float | None = None) -> bool:
        """Make `spec` the active engine without questions: what already served before a restart of the agent.

        Returns whether the first start succeeded; if not, it is tried again with back-off, and requests wait.
        """
        await self.serve_nothing(0)
        self.routes.expect(spec.model, "its engine is starting")
        try:
            await self.switch(await self.start_beside(spec, deadline_s))
        except (EngineFailed, EngineMissing) as error:
            self._on_event(EngineEvent(EventKind.RESTART_FAILED, spec, str(error), 1))
            self.routes.expect(spec.model, str(error))
            self._keeper = asyncio.ensure_future(self._keep(spec, None))
            return False
        return True

    async def serve_nothing(self, deadline_s: float) -> None:
        """Stop serving: new requests are refused, those in hand get `deadline_s` seconds."""
        old, keeper = self._active, self._keeper
        self._active = self._keeper = None
        for model in self.routes.models:
            self.routes.remove(model)
        await _end(keeper)
        if old is not None:
            await self.retire(old, deadline_s)
            self._on_event(EngineEvent(EventKind.STOPPED, old.spec, f"engine {old.name} stopped"))

    async def stop(self, deadline_s: float = 5.0) -> None:
        """End everything."""
        for check in list(self._checks):
            await _end(check)
        await self.serve_nothing(deadline_s)

    def suspect(self, upstream: Upstream) -> None:
        """A request saw no byte for long. Have a token generated; an engine that cannot is killed, and so restarted.

        Only the active engine is asked, and only once at a time.
        """
        engine = self._active
        if engine is upstream and engine is not None and self._checked is not engine:
            self._checked = engine
            check = asyncio.ensure_future(self._check(engine))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)

    async def _check(self, engine: EngineProcess) -> None:
        try:
            await engine.answers(self._load_s)
        except EngineFailed as error:
            engine.log.write(f"edgewright: killed, because: {error.reason}\n".encode())
            engine.kill()  # the keeper sees it end, and starts it again
        finally:
            self._checked = None

    async def _keep(self, spec: EngineSpec, engine: EngineProcess | None) -> None:
        """Start `spec` again whenever it ends, until cancelled. `engine` None: it did not start the first time."""
        failures = 1 if engine is None else 0
        while True:
            if engine is not None:
                failures = await self._watch(engine, failures)
            await asyncio.sleep(self._backoff.delay(failures))
            try:
                engine = await self.start_beside(spec)
            except (EngineFailed, EngineMissing) as error:
                engine, failures = None, failures + 1
                self.routes.explain(spec.model, str(error))
                self._on_event(EngineEvent(EventKind.RESTART_FAILED, spec, str(error), failures))
                continue
            self._active = engine
            self.restarts += 1
            self.routes.switch(spec.model, engine)
            detail = f"engine {engine.name} answers again"
            self._on_event(EngineEvent(EventKind.RESTARTED, spec, detail, failures))

    async def _watch(self, engine: EngineProcess, failures: int) -> int:
        """Wait for the engine's end and clear it away; the failures in a row, with this one."""
        await engine.wait()
        reason = str(EngineFailed(engine.exit_reason(), engine.log.last_lines()))
        self.routes.down(engine, reason)
        lived = time.monotonic() - engine.started_at
        failures = 1 if lived >= self._backoff.steady_s else failures + 1
        self._on_event(EngineEvent(EventKind.EXITED, engine.spec, reason, failures))
        await engine.stop(0)
        return failures

    def _log_of(self, spec: EngineSpec) -> Path:
        with suppress(OSError):  # a folder of logs in disorder is no reason not to serve
            logs = sorted(self._logs.glob("*.log"), key=lambda path: path.stat().st_mtime)
            for old in logs[:-_KEPT_LOGS]:
                old.unlink(missing_ok=True)
                old.with_name(old.name + ".1").unlink(missing_ok=True)
        return self._logs / f"{spec.runtime}-{Path(spec.artifact).name[:16]}.log"


async def _end(task: asyncio.Task[None] | None) -> None:
    """Cancel and wait, so that nothing of the task is running afterwards."""
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
