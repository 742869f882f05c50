"""The stages of one build: each runs within its bounds, takes the build on, and says plainly why it failed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from edgewright_controller.compile import stage_bounds
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.executor import Executor, StageJob
from edgewright_controller.compile.source import ModelFacts

# With so little left, what a stage says of its failure comes from a full disk.
FULL_BYTES: Final = 32 << 20
_NO_SPACE: Final = "No space left on device"
_PLACES: Final = ("source", "out", "cache")
_MAX_SHOWN: Final = 200  # signs of one value in the log; texts to measure with are long


@dataclass(frozen=True)
class BuildLimits:
    """What the operator allows builds, in place of what is worked out: bytes of memory for all stages that run at once
    and for one stage, seconds for one stage."""

    memory_bytes: int | None = None
    stage_memory_bytes: int | None = None
    stage_deadline_s: float | None = None


class Stages:
    """Runs a build's stages one after the other (backends.job.RunStage)."""

    def __init__(
        self,
        executor: Executor,
        runtime: str,
        model: ModelFacts,
        limits: BuildLimits,
        *,
        threads: int,
        scratch: Path,
        words: BinaryIO,
        say: Callable[[str, float, str], None],
    ) -> None:
        """`words`: the build's log. `say`: told the stage, how far the whole build is (0 to 1), and what happens."""
        self._executor, self._runtime, self._model, self._limits = executor, runtime, model, limits
        self._threads, self._scratch, self._words, self._say = threads, scratch, words, say
        self._reached = 0.0

    async def __call__(self, script: str, request: Mapping[str, Any], until: float) -> dict[str, Any]:
        """The stage's result; the build's progress moves up to `until` while it runs. Raises StageFailed."""
        start, self._reached = self._reached, until
        self._words.write(f"== {script} {described(request)}\n".encode())
        bounds = stage_bounds.of(
            script,
            self._model,
            most_bytes=self._limits.stage_memory_bytes,
            deadline_s=self._limits.stage_deadline_s,
        )
        job = StageJob(script, self._runtime, request, bounds, self._threads)

        def say(done: float, what: str) -> None:
            self._say(script, start + (until - start) * done, what)

        try:
            return await self._executor.run(job, self._scratch, self._words, say)
        except StageFailed as error:
            if why := self._full(error):
                raise StageFailed(error.stage, why, error.exit, error.last_lines) from error
            raise

    def _full(self, error: StageFailed) -> str:
        """What to say when the disk is full, whichever way the toolchain took it."""
        free = shutil.disk_usage(self._scratch).free
        said = any(_NO_SPACE in line for line in (error.reason, *error.last_lines))
        if not said and free > FULL_BYTES:
            return ""
        where = self._scratch.parent
        return f"{where}: the disk is full; make room, or serve with --state on a larger disk, and apply again"


def described(request: Mapping[str, Any]) -> str:
    """A stage's request in a line of the log, without paths, and nothing at length. Pure."""
    shown = {key: str(value) for key, value in request.items() if key not in _PLACES}
    return ", ".join(
        f"{key}={value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + '…'}" for key, value in shown.items()
    )
