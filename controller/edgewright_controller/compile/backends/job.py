"""What a backend is given, and what it promises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgewright_controller.compile.calibration import Calibration
from edgewright_controller.compile.intermediates import Intermediates
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.compile.source import ModelFacts, Source


class RunStage(Protocol):
    """Runs a script of children/ under the runtime's interpreter."""

    async def __call__(self, script: str, request: Mapping[str, Any], until: float) -> dict[str, Any]:
        """The stage's result. The build's progress moves up to `until`, of 1, while it runs. Raises StageFailed."""


@dataclass(frozen=True)
class Job:
    """One build under way.

    `staged` is a folder named `source` with the source's files and nothing else, so that a build reads only what
    its key names, and no path reaches its bytes. `out` does not exist yet: the backend makes it. `calibration` is there
    where the recipe reads it.
    """

    source: Source
    facts: ModelFacts
    recipe: Recipe
    versions: Mapping[str, str]
    staged: Path
    scratch: Path
    out: Path
    threads: int
    intermediates: Intermediates
    run: RunStage
    calibration: Calibration | None = None

    @property
    def measured(self) -> Path:
        """What the gate measures: the artifact, or where no CPU can compute it the graph that it was compiled from, if
        the backend left that here."""
        before = self.scratch / "uncompiled"
        return before if before.is_dir() else self.out


class Backend(Protocol):
    """Makes artifacts of one runtime."""

    def disk_bytes(self, source: Source, recipe: Recipe) -> int:
        """About how much disk a build takes at its peak, the artifact included, in bytes."""

    async def build(self, job: Job) -> None:
        """Make the folder `job.out` and leave nothing in it that is not the artifact. Raises StageFailed."""
