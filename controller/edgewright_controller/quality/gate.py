"""Measuring an artifact: four checks through stages under the toolchain's own interpreter. What is judged where it is
judged again, quality/verdict.py, needs nothing but the numbers that come out of here.

    tensors      each one dequantised against the source's                       every artifact
    parity       token ids and rendered chats against the source's               every artifact
    fidelity     the unquantised float32 build against the source's logits       once for each source and toolchain
    divergence   the artifact's logits against the source's, as few as tell      every artifact
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from edgewright_controller.compile import toolchain
from edgewright_controller.compile.backends import gguf
from edgewright_controller.compile.backends.job import Job, RunStage
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.recipe import Recipe, make
from edgewright_controller.compile.source import ModelFacts
from edgewright_controller.compile.staging import link
from edgewright_controller.quality import divergence, hyperparameters, kept, mix, parity, tensors, wording
from edgewright_controller.quality.divergence import Chunk, Divergence, Verdict
from edgewright_controller.quality.limits import Limits, Overrides, limits
from edgewright_controller.quality.measures import MAX_LISTED, Measures
from edgewright_controller.quality.precision import bits_per_weight, precision
from edgewright_controller.quality.reference import Reference
from edgewright_controller.quality.tensors import TensorMeasure

# Raised when fidelity is measured in another way.
FIDELITY: Final = 2
# Chunks, of the first ones of the mix: one of each kind of text.
FIDELITY_CHUNKS: Final = len(mix.KINDS)

# The unquantised float32 build of each runtime, by whose toolchain measures it.
FLOAT32: Final[Mapping[str, Recipe]] = {
    "gguf": make("gguf", "F32"),
    "mlx": make("mlx", "fp32"),
    "onnx": make("onnx", "fp32"),
    toolchain.OPENVINO: make("onnx", "fp32", {"provider": "openvino"}),
}
# Whose interpreter has the engine that serves on devices, where it is not the one that measures.
_ENGINES: Final = {toolchain.OPENVINO: "onnx"}
Tell = Callable[[float, str], None]
"""Told how far a check is, 0 to 1, and what happens."""


class Runs(Protocol):
    """Gives runners of stages."""

    def __call__(self, toolchain: str, tell: Tell) -> RunStage:
        """A runner under this toolchain's interpreter, whose progress goes to `tell`."""


@dataclass(frozen=True)
class Subject:
    """A build whose artifact is in `job.out`, and what it takes to measure it. `build` makes another artifact of a
    job. `reference` is the toolchain that computes the source's logits, `reference_versions` what with."""

    job: Job
    build: Callable[[Job], Awaitable[None]]
    runs: Runs
    reference: str
    reference_versions: Mapping[str, str]


def disk_bytes(model: ModelFacts) -> int:
    """About how much disk measuring takes besides the artifact: the float32 build, and logits of the first texts."""
    return 4 * (model.parameters + mix.PARTS[0] * mix.CHUNK_TOKENS * model.vocab)


async def measure(subject: Subject, quality: Sequence[Overrides], say: Callable[[str, float, str], None]) -> Measures:
    """Everything that is measured on the subject's artifact, until it is clear for each of the limits of `quality`.

    `say` is told the check, how far the whole is (0 to 1), and what happens. Raises StageFailed.
    """
    try:
        return await _Measuring(subject, say).measure(quality)
    except (ValueError, KeyError, TypeError) as error:
        raise StageFailed("gate", f"a stage gave figures that make no sense: {error}", None, ()) from error


class _Measuring:
    """One artifact being measured."""

    def __init__(self, subject: Subject, say: Callable[[str, float, str], None]) -> None:
        job = subject.job
        self._subject = subject
        self._reached = 0.0
        self._job, self._build, self._runs, self._say = job, subject.build, subject.runs, say
        self._runtime = job.recipe.runtime
        self._by = toolchain.home(job.recipe.toolchain)
        # Other builds are measured at the same time.
        self._threads = max(1, job.threads // 2)
        # Not the folder that the build used: a backend may have put its own config into it.
        staged = link(job.source, job.scratch / "reference" / "source")
        self._config = json.loads((staged / "config.json").read_bytes())
        self._reference = Reference(
            job.source.digest, staged, subject.reference_versions, job.intermediates, self._threads
        )

    async def measure(self, quality: Sequence[Overrides]) -> Measures:
        found = await self._tensors(self._check("tensors", 0.0, 0.15))
        differences = await self._parity(self._check("parity", 0.15, 0.3))
        chunks = await self._reference.chunks(self._source_runs(self._check("fidelity", 0.3, 0.3)))
        fidelity, of_toolchain = await self._fidelity(chunks, self._check("fidelity", 0.3, 0.6))
        measured = [TensorMeasure(**one) for one in found["tensors"]]
        missing = sorted(set(found["expected"]) - {one.name for one in measured})
        bits = bits_per_weight(found["bytes"], found["parameters"])
        allowed = [limits(self._runtime, precision(bits), overrides) for overrides in quality]
        diverged, whole, of_artifact = await self._divergence(chunks, allowed, self._check("divergence", 0.6, 1.0))
        differing = tuple(dict.fromkeys((*of_toolchain, *of_artifact, *differences.hyperparameters)))
        # No difference to texts that are shorter than the window, and so for the operator to decide.
        windows = tuple(words for words in differing if words.startswith("sliding_window"))
        return Measures(
            runtime=self._runtime,
            parameters=found["parameters"],
            weight_bytes=found["bytes"],
            types=tensors.weights_by_type(measured),
            tensors=tensors.worst(measured),
            missing=tuple(missing[:MAX_LISTED]),
            surplus=tuple(found.get("surplus", ())[:MAX_LISTED]),
            divergence=diverged,
            whole=whole,
            fidelity=fidelity,
            activation=str(hyperparameters.of_config(self._config).get("activation", "")),
            hyperparameters=tuple(words for words in differing if words not in windows),
            unproven=(
                *self._job.recipe.unproven,
                *(f"{words}, which shows in texts longer than the window" for words in windows),
            ),
            parity=differences.words,
            texts=mix.texts_digest(),
        )

    def _source_runs(self, tell: Tell) -> RunStage:
        return self._runs(self._subject.reference, tell)

    def _check(self, name: str, start: float, end: float) -> Tell:
        def tell(done: float, what: str) -> None:
            # A check may have several stages, and each begins at nothing.
            self._reached = max(self._reached, start + (end - start) * done)
            self._say(name, self._reached, what)

        return tell

    async def _tensors(self, tell: Tell) -> dict[str, Any]:
        request = {
            "artifact": str(_artifact(self._runtime, self._job.measured)),
            "source": str(self._reference.staged),
            "block": tensors.BLOCK,
            "quiet": tensors.QUIET,
            "moved": self._job.recipe.moves,
        }
        run = self._runs(self._by, tell)
        if self._runtime != "gguf":
            return await run(f"{self._by}_tensors", request, 1.0)
        async with gguf.unquantised(self._job) as parent:
            return await run("gguf_tensors", {**request, "parent": str(parent)}, 1.0)

    async def _parity(self, tell: Tell) -> _Differences:
        wanted = await self._reference.words(self._source_runs(tell))
        request = {
            "artifact": str(_artifact(self._runtime, self._job.measured)),
            "texts": dict(wording.texts()),
            "chats": dict(wording.chats()),
        }
        first = await self._runs(_ENGINES.get(self._by, self._by), tell)(f"{self._by}_parity", request, 1.0)
        words: list[parity.Difference] = []
        for got in (first, *first.get("others", ())):
            same = {name for name in wanted["chats"] if _is_same(wanted["ids"], got["ids"], f"{parity.CHAT}{name}")}
            of_chats = parity.of_chats(wanted["chats"], got["chats"], same)
            # Chats first: their text tells a person more than ids do.
            differing = (
                *(replace(one, text=f"{parity.CHAT}{one.text}") for one in of_chats),
                *parity.of_ids(wanted["ids"], got["ids"]),
            )
            words += [replace(one, text=f"{one.text} ({got['engine']})") for one in differing]
        return _Differences(tuple(words), self._differing(first.get("hyperparameters", {})))

    async def _fidelity(self, chunks: list[list[int]], tell: Tell) -> tuple[Divergence, tuple[str, ...]]:
        """Of the runtime's unquantised build, and the hyperparameters that it computes with otherwise."""

        async def make() -> dict[str, Any]:
            async with self._float32(tell) as artifact:
                found = await self._logits(artifact, chunks, mix.parts(len(chunks))[0], tell, float32=True)
            summed = asdict(divergence.summary(_chunks(found)))
            return {"divergence": summed, "hyperparameters": found["hyperparameters"]}

        shaped_by = {
            "fidelity": FIDELITY,
            "runtime": self._by,
            "toolchain": dict(self._job.versions),
            "chunks": chunks[:FIDELITY_CHUNKS],
            **self._reference.shaped_by,
        }
        keys = ("divergence", "hyperparameters")
        found = await kept.document(self._job.intermediates, kept.name("json", shaped_by), make, keys)
        return Divergence(**found["divergence"]), self._differing(found["hyperparameters"])

    @contextlib.asynccontextmanager
    async def _float32(self, tell: Tell) -> AsyncIterator[Path]:
        """The unquantised float32 build, removed when the block ends: it is as large as the source twice."""
        recipe = FLOAT32[self._by]
        if self._job.recipe == recipe:
            yield _artifact(self._runtime, self._job.measured)
            return
        place = self._job.scratch / "float32"
        job = replace(
            self._job,
            recipe=recipe,
            staged=link(self._job.source, place / "source"),
            scratch=place,
            out=place / "artifact",
            run=self._runs(self._by, tell),
        )
        try:
            await self._build(job)
            yield _artifact(self._runtime, job.out)
        finally:
            await asyncio.to_thread(shutil.rmtree, place)

    async def _divergence(
        self, chunks: list[list[int]], allowed: Sequence[Limits], tell: Tell
    ) -> tuple[Divergence, bool, tuple[str, ...]]:
        """Of the artifact, whether over all that there is, and the hyperparameters that it computes with otherwise."""
        measured: list[Chunk] = []
        artifact = _artifact(self._runtime, self._job.measured)
        found: dict[str, Any] = {}
        for part in mix.parts(len(chunks)):
            found = await self._logits(artifact, chunks, part, tell, float32=False)
            measured += _chunks(found)
            if part.stop == len(chunks) or _is_clear(measured, allowed):
                break
        whole = len(measured) == len(chunks)
        return divergence.summary(measured), whole, self._differing(found["hyperparameters"])

    async def _logits(
        self, artifact: Path, chunks: list[list[int]], part: range, tell: Tell, *, float32: bool
    ) -> dict[str, Any]:
        """What the runtime's stage says of these chunks; of the first few only when it is about fidelity."""
        of_part = [chunks[number] for number in part]
        async with self._reference.logits(of_part, self._source_runs(tell)) as reference:
            request = {
                "artifact": str(artifact),
                "reference": str(reference.path),
                "vocabulary": reference.vocabulary,
                "chunks": of_part,
                "first": 0,
                "count": min(FIDELITY_CHUNKS, len(of_part)) if float32 else len(of_part),
                "float32": float32,
                "threads": self._threads,
            }
            return await self._runs(self._by, tell)(f"{self._by}_logits", request, 1.0)

    def _differing(self, held: Mapping[str, Any]) -> tuple[str, ...]:
        return hyperparameters.differences(hyperparameters.of_config(self._config), held)


@dataclass(frozen=True)
class _Differences:
    """In which texts and chats an artifact differs, and in which hyperparameters, in words."""

    words: tuple[parity.Difference, ...]
    hyperparameters: tuple[str, ...]


def _is_same(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    return name in one and one[name] == other.get(name)


def _artifact(runtime: str, folder: Path) -> Path:
    """What a stage is given: the folder, or for GGUF the file, of several the first."""
    return min(folder.glob("*.gguf")) if runtime == "gguf" else folder


def _chunks(found: Mapping[str, Any]) -> list[Chunk]:
    return [
        Chunk(tuple(one["kl"]), tuple(one["source_log_p"]), tuple(one["artifact_log_p"]), one["same_top"])
        for one in found["chunks"]
    ]


def _is_clear(measured: Sequence[Chunk], allowed: Sequence[Limits]) -> bool:
    """Whether no more chunks are needed: the artifact is refused by one of the limits, or passes all."""
    tokens = sum(len(chunk.kl) for chunk in measured)
    verdicts = []
    for one in allowed:
        verdict, _ = divergence.judge(measured, one.divergence, last=False)
        verdicts.append(Verdict.MORE if verdict is Verdict.PASS and tokens < one.tokens else verdict)
    return Verdict.REFUSE in verdicts or Verdict.MORE not in verdicts
