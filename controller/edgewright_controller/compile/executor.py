"""Where the stages of builds run: here as children, elsewhere one day.

A stage is plain values: a script of children/, the runtime whose toolchain runs it, a request and a result in JSON,
bounds. Every path in the request is below the build's scratch folder or below the folders of sources, intermediates
and reference texts, and the bytes behind it are named by a digest in the build's key; so whoever runs stages on other
machines knows what must be there, and nothing of this process is assumed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

import psutil

from edgewright_controller.compile import child
from edgewright_controller.compile.child import Say, Stage
from edgewright_controller.compile.room import Room
from edgewright_controller.compile.stage_bounds import Bounds

WAITS: Final = "waiting for memory or a processor"


@dataclass(frozen=True)
class StageJob:
    """One stage to run. `script` is the name of a file in children/ without its suffix."""

    script: str
    runtime: str
    request: Mapping[str, Any]
    bounds: Bounds
    threads: int


class Executor(Protocol):
    """Runs stages."""

    async def run(self, job: StageJob, scratch: Path, log: BinaryIO, say: Say) -> dict[str, Any]:
        """The stage's result. Its words go to `log`, its progress to `say`, what it leaves lies in `scratch`.

        Raises StageFailed. When cancelled, nothing of the stage runs on once this has ended.
        """


class LocalExecutor:
    """Children of this process, as many at once as its memory and processors allow."""

    def __init__(self, interpreters: Mapping[str, str], places: int, memory_bytes: int | None = None) -> None:
        """`interpreters`: a Python for each runtime. `memory_bytes`: for all stages together; without it, what the
        machine has available."""
        self._interpreters = dict(interpreters)
        self._held: dict[int, int] = {}
        self._room = Room(_fixed(memory_bytes) if memory_bytes else self._available, places)

    async def run(self, job: StageJob, scratch: Path, log: BinaryIO, say: Say) -> dict[str, Any]:
        """See Executor."""
        stage = Stage(
            child.CHILDREN / f"{job.script}.py",
            self._interpreters[job.runtime],
            job.bounds.deadline_s,
            job.threads,
            job.bounds.most_bytes,
        )
        async with self._room.take(job.bounds.expected_bytes, lambda: say(0.0, WAITS)):
            number = max(self._held, default=0) + 1

            def holds(held_bytes: int) -> None:
                self._held[number] = held_bytes

            try:
                return await child.run(stage, job.request, scratch, log, say, holds=holds)
            finally:
                self._held.pop(number, None)

    def _available(self) -> int:
        """What is available, and what the stages hold already, which is not available any more."""
        return psutil.virtual_memory().available + sum(self._held.values())


def _fixed(memory_bytes: int) -> Callable[[], int]:
    return lambda: memory_bytes
