"""One builder with its gate, and what it says of builds with and without a fault in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_controller.compile import toolchain
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.builder import Builder, BuildFailed, BuildRefused
from edgewright_controller.compile.executor import Executor, LocalExecutor
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.compile.source import Source
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.quality.measures import Measures
from tests.planted.faults import Fault
from tests.planted.planting import PlantingExecutor

# Stages that read an artifact: one that cannot, because it is cut off, has seen the fault.
_READERS: Final = ("check", "_tensors", "_parity", "_logits")


@dataclass(frozen=True)
class Answer:
    """Whether a build was refused, by which checks, and in which words; "" when it was stored. `measures` are None
    when a stage could not read the artifact."""

    refused: bool
    checks: frozenset[str]
    words: str
    measures: Measures | None


class _LaboratoryBuilder(Builder):
    """A builder whose toolchains may have one more package: what is kept of honest ones is not theirs."""

    more: Mapping[str, str] = {}

    def versions(self, runtime: str) -> Mapping[str, str]:
        return {**super().versions(runtime), **self.more}


class Laboratory:
    """A builder whose references and fidelity are kept in `state`, so that each further build is quick."""

    def __init__(self, state: Path, around: Callable[[Executor], Executor] = lambda executor: executor) -> None:
        """`around` may put another executor around that which runs the stages."""
        interpreters = toolchain.default_interpreters()
        self._executor = PlantingExecutor(around(LocalExecutor(interpreters, 2)))
        self._store = ArtifactStore(state / "store")
        self._builder = _LaboratoryBuilder(
            self._store, state, interpreters, threads=1, executor=self._executor, gated=True
        )

    async def artifact(self, source: Source, recipe: Recipe) -> Path:
        """The folder of an honest build, made if it is not there. Raises BuildFailed."""
        built = await self._builder.build(source, recipe, self._key(source, recipe))
        return self._store.path(built.bundle)

    def _key(self, source: Source, recipe: Recipe) -> str:
        return build_key(source.digest, recipe, self._builder.versions(recipe.runtime))

    async def build(
        self, source: Source, recipe: Recipe, fault: Fault | None = None, *, everywhere: bool = False
    ) -> Answer:
        """What becomes of this build. `everywhere`: the fault is the toolchain's, and in all that it makes.

        Raises BuildFailed where the fault should not make a stage fail.
        """
        self._builder.more = {"fault": fault.name} if fault and everywhere else {}
        key = self._key(source, recipe)
        self._executor.fault, self._executor.everywhere, before = fault, everywhere, self._executor.planted
        try:
            built = await self._builder.build(source, recipe, key)
            answer = Answer(False, frozenset(), "", built.measures)
        except BuildRefused as refused:
            checks = frozenset(one.check for one in refused.refusals)
            answer = Answer(True, checks, str(refused), refused.measures)
        except BuildFailed as failed:
            if fault is None or not fault.crashes or not failed.stage.endswith(_READERS):
                raise
            answer = Answer(True, frozenset({failed.stage}), str(failed), None)
        assert (self._executor.planted > before) == (fault is not None), "the fault was not planted"
        return answer
