"""The course of a measuring, with stages that answer as told: what is asked, how often, and what comes of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from edgewright_controller.compile.backends.job import Job, RunStage
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.intermediates import Intermediates
from edgewright_controller.compile.recipe import make
from edgewright_controller.compile.source import Source, inspect
from edgewright_controller.quality import gate, mix, verdict
from edgewright_controller.quality.gate import Subject, Tell
from edgewright_controller.quality.limits import NO_OVERRIDES, Overrides, limits
from edgewright_controller.quality.measures import Measures
from tests.controller import checkpoints

TENSOR = {"name": "a", "type": "affine8g64", "weights": 1000, "error": 0.0, "gain": 1.0}
TENSORS = {"tensors": [TENSOR | {"worst_block": 0.0, "worst_row": 0.0}], "expected": ["a"], "surplus": []}
WORDS = {"ids": {"digits": [1, 2]}, "chats": {"hello": "<user>hello"}, "engine": "mlx-lm"}


@dataclass
class Stages:
    """Answers for every toolchain. `kl` is the mean of each chunk but the float32 build's; `spread` its deviation."""

    kl: float = 0.004
    spread: float = 0.0005
    answers: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    measured: list[int] = field(default_factory=list)
    under: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, toolchain: str, tell: Tell) -> RunStage:
        async def run(script: str, request: Mapping[str, Any], until: float) -> dict[str, Any]:
            self.asked[script] += 1
            self.under.add((script, toolchain))
            tell(until / 2, script)
            await asyncio.sleep(0)
            if script in self.answers:
                return self.answers[script]
            return await self._answer(script, request)

        return run

    async def _answer(self, script: str, request: Mapping[str, Any]) -> dict[str, Any]:
        match script:
            case "source_chunks":
                return {"chunks": {kind: [[n, n, n, n] for n in range(20)] for kind in request["texts"]}}
            case "reference_logits":
                Path(request["out"]).write_bytes(bytes(4 * 8 * sum(map(len, request["chunks"]))))
                return {"vocabulary": 8}
            case "mlx_tensors" | "openvino_tensors":
                return {**TENSORS, "bytes": 1062, "parameters": 1000}
            case "source_parity" | "mlx_parity" | "openvino_parity":
                return WORDS
            case "mlx_logits" | "openvino_logits":
                if not request["float32"]:
                    self.measured.append(request["count"])
                assert request["vocabulary"] == 8
                chunks = [self._chunk(number, float32=request["float32"]) for number in range(request["count"])]
                return {"chunks": chunks, "hyperparameters": {"layers": 1}, "rss_bytes": 1}
        raise AssertionError(script)

    def _chunk(self, number: int, *, float32: bool) -> dict[str, Any]:
        kl = 1e-12 if float32 else self.kl + (self.spread if number % 2 else -self.spread)
        return {"kl": [kl] * 3, "source_log_p": [-2.0] * 3, "artifact_log_p": [-2.0] * 3, "same_top": 3}


class Room:
    """A state folder, a source, and jobs of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source: Source = inspect(checkpoints.write(folder / "model"))
        self.intermediates = Intermediates(folder / "intermediates")
        self.built: list[str] = []

    def subject(self, stages: Stages, number: int = 0) -> Subject:
        scratch = self.folder / f"scratch-{number}"
        (scratch / "artifact").mkdir(parents=True)
        assert self.source.facts

        async def build(job: Job) -> None:
            self.built.append(str(job.recipe))
            job.out.mkdir()

        job = Job(
            source=self.source,
            facts=self.source.facts,
            recipe=make("mlx", "8bit"),
            versions={"mlx-lm": "1"},
            staged=scratch / "source",
            scratch=scratch,
            out=scratch / "artifact",
            threads=2,
            intermediates=self.intermediates,
            run=stages("mlx", lambda _done, _what: None),
        )
        return Subject(job, build, stages, "onnx", {"torch": "2"})

    async def measure(
        self, stages: Stages, number: int = 0, quality: Sequence[Overrides] = (NO_OVERRIDES,)
    ) -> tuple[Measures, list[str]]:
        checks: list[str] = []
        measures = await gate.measure(
            self.subject(stages, number), quality, lambda check, _done, _what: checks.append(check)
        )
        assert [path.name for path in (self.folder / f"scratch-{number}").iterdir() if "float32" in path.name] == []
        return measures, list(dict.fromkeys(checks))


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


async def test_a_clear_verdict_takes_the_first_part_of_the_text(room: Room) -> None:
    stages = Stages()
    measures, checks = await room.measure(stages)
    assert checks == ["tensors", "parity", "fidelity", "divergence"]
    assert stages.measured == [mix.PARTS[0]]
    assert stages.asked["reference_logits"] == 1
    assert not measures.whole
    assert measures.divergence
    assert measures.divergence.kl == pytest.approx(0.004)
    assert measures.fidelity
    assert measures.fidelity.tokens == 3 * len(mix.KINDS)
    assert room.built == ["mlx fp32"]


async def test_a_verdict_that_is_not_clear_takes_more_until_there_is_no_more(room: Room) -> None:
    stages = Stages(spread=0.003)
    near = Overrides(kl=0.0042)
    measures, _ = await room.measure(stages, quality=[near])
    assert stages.measured == [8, 24, 32]
    assert stages.asked["reference_logits"] == 3
    assert measures.whole
    assert verdict.is_settled(measures, limits("mlx", measures.precision, near))


async def test_so_many_tokens_are_measured_as_are_asked_for(room: Room) -> None:
    stages = Stages()
    await room.measure(stages, quality=[NO_OVERRIDES, Overrides(tokens=60)])
    assert stages.measured == [8, 24]


async def test_what_one_of_two_refuses_is_not_measured_further_for_the_other(room: Room) -> None:
    stages = Stages()
    await room.measure(stages, quality=[Overrides(kl=0.0042), Overrides(kl=1e-5)])
    assert stages.measured == [8]


async def test_builds_at_the_same_time_ask_the_source_and_the_toolchain_once(room: Room) -> None:
    stages = Stages()
    found = await asyncio.gather(*(room.measure(stages, number) for number in range(3)))
    assert len({measures.divergence for measures, _ in found}) == 1
    assert room.built == ["mlx fp32"]
    once = ("source_chunks", "source_parity", "reference_logits")
    assert {script: stages.asked[script] for script in once} == dict.fromkeys(once, 1)
    assert stages.asked["mlx_logits"] == 1 + 3
    # After a restart what is finished is there; what is not, is made again.
    room.intermediates = Intermediates(room.folder / "intermediates")
    await room.measure(stages, 4)
    assert room.built == ["mlx fp32"]
    assert stages.asked["reference_logits"] == 1


@pytest.mark.parametrize("garbage", [b'{"chunks": [[1, 2', b"[]", b"{}", b"\0\0\0\0"])
async def test_what_was_learned_and_is_broken_since_is_learned_again(room: Room, garbage: bytes) -> None:
    stages = Stages()
    before, _ = await room.measure(stages)
    kept = sorted((room.folder / "intermediates").glob("*.json"))
    assert len(kept) == 3  # the source's chunks, its words, and the toolchain's fidelity
    for number, document in enumerate(kept, 1):
        # Garbage of the very size that it had, as a disk leaves it; sizes alone would not tell.
        document.write_bytes(garbage.ljust(document.stat().st_size))
        after, _ = await room.measure(stages, number)
        assert after == before
    assert stages.asked["source_chunks"] == stages.asked["source_parity"] == 2
    assert room.built == ["mlx fp32"] * 2
    await room.measure(stages, 9)
    assert stages.asked["source_chunks"] == stages.asked["source_parity"] == 2


async def test_what_openvino_exports_is_measured_by_openvino_and_its_words_by_the_engine_of_devices(room: Room) -> None:
    stages = Stages()
    subject = room.subject(stages)
    recipe = make("onnx", "int8", {"provider": "openvino"})
    measures = await gate.measure(
        replace(subject, job=replace(subject.job, recipe=recipe)), [NO_OVERRIDES], lambda *_: None
    )
    assert stages.under >= {
        ("openvino_tensors", "openvino"),
        ("openvino_logits", "openvino"),
        ("openvino_parity", "onnx"),
        ("reference_logits", "onnx"),
    }
    assert room.built == ["onnx fp32 provider=openvino"]
    assert measures.runtime == "onnx"
    assert measures.unproven == recipe.unproven


async def test_another_toolchain_has_its_own_fidelity(room: Room) -> None:
    stages = Stages()
    await room.measure(stages)
    subject = room.subject(stages, 1)
    other = replace(subject, job=replace(subject.job, versions={"mlx-lm": "2"}))
    await gate.measure(other, [NO_OVERRIDES], lambda *_: None)
    assert len(room.built) == 2


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("mlx_tensors", {"tensors": []}),
        ("mlx_tensors", {**TENSORS, "bytes": 5, "parameters": 0}),
        ("mlx_logits", {"chunks": [], "hyperparameters": {}}),
        ("mlx_logits", {"chunks": [{"kl": [1.0]}], "hyperparameters": {}}),
        ("mlx_parity", {"ids": {}}),
    ],
)
async def test_figures_that_make_no_sense_are_a_failure_and_not_a_verdict(
    room: Room, script: str, answer: dict[str, Any]
) -> None:
    with pytest.raises(StageFailed, match="figures that make no sense"):
        await room.measure(Stages(answers={script: answer}))


async def test_each_difference_is_told_with_the_engine_that_has_it(room: Room) -> None:
    other = {**WORDS, "ids": {"digits": [3]}, "engine": "other"}
    stages = Stages(answers={"mlx_parity": {**WORDS, "chats": {}, "others": [other]}})
    measures, _ = await room.measure(stages)
    assert [one.text for one in measures.parity] == ["chat: hello (mlx-lm)", "digits (other)"]


async def test_hyperparameters_are_compared_with_what_the_runtime_computes_with(room: Room) -> None:
    stages = Stages(answers={"mlx_parity": {**WORDS, "hyperparameters": {"rope_base": 10000.0}}})
    measures, _ = await room.measure(stages)
    assert measures.hyperparameters == ("rope_base: the source has 100000.0, the runtime computes with 10000.0",)
