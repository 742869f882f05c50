"""Builds of a tiny model that are measured and judged: what is honest passes and is measured once; what a toolchain
gets wrong in silence is refused by the check that is there for it, and leaves nothing but its measures."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import pytest

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.compile import toolchain
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.builder import Builder, BuildRefused, Built, Progress
from edgewright_controller.compile.child import Say
from edgewright_controller.compile.executor import LocalExecutor, StageJob
from edgewright_controller.compile.recipe import Recipe, make
from edgewright_controller.compile.source import inspect
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.quality.limits import FIDELITY_KL, NO_OVERRIDES, Overrides
from edgewright_controller.quality.measures import Measures
from edgewright_controller.quality.precision import Precision
from tests.controller import service_rig

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]

Q8_0, Q4_K_M = make("gguf", "Q8_0"), make("gguf", "Q4_K_M")
Fault = Callable[[Mapping[str, Any]], None]


class Faulty:
    """Runs stages as usual, and then does something to what one made: a toolchain that goes wrong in silence."""

    def __init__(self, faults: Mapping[str, Fault]) -> None:
        self.ran: list[str] = []
        self._faults = faults
        self._honest = LocalExecutor(toolchain.default_interpreters(), 1)

    async def run(self, job: StageJob, scratch: Path, log: BinaryIO, say: Say) -> dict[str, Any]:
        self.ran.append(job.script)
        result = await self._honest.run(job, scratch, log, say)
        if job.script in self._faults:
            self._faults[job.script](job.request)
        return result


class Place:
    """A state folder and a builder in it."""

    def __init__(self, state: Path, model: Path, faults: Mapping[str, Fault] | None = None) -> None:
        self.state = state
        self.source = inspect(model)
        self.store = ArtifactStore(state / "store")
        self.stages = Faulty(faults or {})
        interpreters = toolchain.default_interpreters()
        self.builder = Builder(self.store, state, interpreters, threads=1, executor=self.stages, gated=True)
        self.said: list[Progress] = []

    def build(self, recipe: Recipe, quality: Overrides = NO_OVERRIDES) -> Built:
        key = build_key(self.source.digest, recipe, self.builder.versions(recipe.runtime))
        return asyncio.run(self.builder.build(self.source, recipe, key, self.said.append, [quality]))

    def refused(self, recipe: Recipe, quality: Overrides = NO_OVERRIDES) -> BuildRefused:
        before = {path.name for path in (self.state / "store" / "artifacts").iterdir()}
        with pytest.raises(BuildRefused) as caught:
            self.build(recipe, quality)
        after = {path.name for path in (self.state / "store" / "artifacts").iterdir()}
        assert after == before, "a refused artifact is not kept"
        assert not [path for path in (self.state / "builds").iterdir() if path.name.startswith(".")]
        return caught.value


@pytest.fixture(scope="module")
def model(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model that has learned a little, with a template that begins a chat as llama.cpp's server always does."""
    folder = tmp_path_factory.mktemp("model") / "trained"
    shutil.copytree(tiny_models / "trained", folder)
    template = folder / "chat_template.jinja"
    if "bos_token" not in template.read_text():
        template.write_text("{{ bos_token }}" + template.read_text())
    return folder


@pytest.fixture(scope="module")
def honest(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("gate"), model)


@pytest.fixture(scope="module")
def eight_bits(honest: Place) -> Measures:
    measures = honest.build(Q8_0).measures
    assert measures
    return measures


def test_an_honest_build_is_measured_by_every_check(honest: Place, eight_bits: Measures) -> None:
    assert eight_bits.precision is Precision.MEDIUM
    assert eight_bits.fidelity
    assert eight_bits.fidelity.kl < FIDELITY_KL / 100
    assert eight_bits.divergence
    assert 1e-7 < eight_bits.divergence.kl < 0.01
    assert eight_bits.divergence.tokens > 1000
    assert (eight_bits.hyperparameters, eight_bits.parity, eight_bits.missing, eight_bits.surplus) == ((), (), (), ())
    assert {one.type for one in eight_bits.tensors} == {"Q8_0", "F32"}
    checks = list(dict.fromkeys(one.stage for one in honest.said))
    assert checks == ["gguf_convert", "gguf_quantise", "tensors", "parity", "fidelity", "divergence", "store"]
    done = [one.done for one in honest.said]
    assert done == sorted(done)


def test_what_belongs_to_the_source_is_measured_once(honest: Place, eight_bits: Measures) -> None:
    before = honest.stages.ran.copy()
    second = honest.build(Q4_K_M).measures
    assert second
    assert honest.stages.ran[len(before) :] == ["gguf_quantise", "gguf_tensors", "gguf_parity", "gguf_logits"]
    assert second.fidelity == eight_bits.fidelity
    assert second.divergence
    assert eight_bits.divergence
    assert second.divergence.kl > eight_bits.divergence.kl
    assert second.precision is Precision.LOW


def test_a_limit_of_the_manifest_refuses_what_the_usual_one_takes(honest: Place) -> None:
    said = honest.refused(Q4_K_M, Overrides(kl=1e-6))
    assert "divergence: mean KL" in str(said)
    assert "at most 1e-06 for" in str(said)
    assert said.measures.divergence


def test_a_build_that_cannot_be_told_from_its_limit_is_measured_on_more_text(
    honest: Place, eight_bits: Measures
) -> None:
    assert eight_bits.divergence
    close = eight_bits.divergence.kl * 1.02
    try:
        measures = honest.build(Q8_0, Overrides(kl=close)).measures
    except BuildRefused as refused:
        measures = refused.measures
    assert measures
    assert measures.tokens > 3 * eight_bits.tokens


def _with_another_base(request: Mapping[str, Any]) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(request["out"], "r+")
    field = reader.get_field("llama.rope.freq_base")
    assert field
    field.parts[field.data[0]][0] = 10000.0


def _with_a_scale_doubled(request: Mapping[str, Any]) -> None:
    """One block of 32 weights of one tensor."""
    from gguf import GGUFReader

    reader = GGUFReader(request["out"], "r+")
    (tensor,) = (one for one in reader.tensors if one.name == "blk.1.ffn_up.weight")
    if tensor.tensor_type.name == "Q8_0":
        scale = tensor.data[7][:2].view("<f2")
        scale[0] *= 2


def _with_another_template(request: Mapping[str, Any]) -> None:
    from gguf import GGUFReader

    reader = GGUFReader(request["out"], "r+")
    field = reader.get_field("tokenizer.chat_template")
    assert field
    text = bytes(field.parts[field.data[0]])
    assert b"<|assistant|>" in text
    field.parts[field.data[0]][:] = list(text.replace(b"<|assistant|>", b"<|assistent|>"))


FAULTS: Final = [
    (_with_another_base, {"fidelity", "hyperparameters"}, "rope_base: the source has 100000.0"),
    (_with_a_scale_doubled, {"tensors"}, "blk.1.ffn_up.weight"),
    (_with_another_template, {"parity"}, "chat: one question"),
]


@pytest.mark.parametrize(("fault", "checks", "words"), FAULTS, ids=["rope", "scale", "template"])
def test_a_silent_fault_is_refused_by_its_check(
    honest: Place, eight_bits: Measures, tmp_path: Path, *, fault: Fault, checks: set[str], words: str
) -> None:
    # What the source itself says is not asked for again; of the toolchain, its fidelity is.
    kept = tmp_path / "state" / "intermediates"
    shutil.copytree(honest.state / "intermediates", kept)
    for file in filter(_is_fidelity, list(kept.iterdir())):
        file.unlink()
    place = Place(tmp_path / "state", honest.source.folder, {"gguf_quantise": fault})
    said = place.refused(Q8_0)
    assert {one.check for one in said.refusals} == checks
    assert words in str(said)


def _is_fidelity(file: Path) -> bool:
    return file.suffix == ".json" and "divergence" in json.loads(file.read_text())


MANIFEST: Final = """
[fleet]
name = "plant-7"
[models.tiny]
source = "{source}"
[profiles.jetson]
runtime = "gguf"
quantization = "Q8_0"
accelerator = "cpu"
memory = "8GB"
[profiles.jetson.quality]
kl = {kl}
[devices.jetson-01]
profile = "jetson"
model = "tiny"
"""


async def test_a_refusal_is_remembered_and_a_changed_limit_judged_by_what_was_measured(
    honest: Place, eight_bits: Measures, tmp_path: Path
) -> None:
    shutil.copytree(honest.state / "intermediates", tmp_path / "state" / "intermediates")
    async with service_rig.controller(tmp_path / "state") as fleet:

        async def apply(kl: float) -> tuple[list[str], operator_pb2.ApplyResult]:
            text = MANIFEST.format(source=honest.source.folder, kl=kl)
            asked = operator_pb2.ApplyRequest(manifest=text, file="fleet.toml", folder=str(tmp_path), build_only=True)
            events = [event async for event in fleet.operator.Apply(asked, timeout=600)]
            stages = [event.build.stage for event in events if event.HasField("build")]
            return list(dict.fromkeys(stages)), service_rig.result(events)

        stages, result = await apply(1e-7)
        assert not result.succeeded
        assert "divergence" in stages
        assert stages[-1] == "failed"
        assert "build tiny gguf Q8_0: refused: divergence: mean KL" in result.summary

        text = MANIFEST.format(source=honest.source.folder, kl=1e-7)
        asked = operator_pb2.PlanRequest(manifest=text, file="fleet.toml", folder=str(tmp_path))
        planned = await fleet.operator.Plan(asked, timeout=60)
        assert any("profiles.jetson: divergence: mean KL" in warning for warning in planned.warnings)
        with pytest.raises(Exception, match=r"profiles\.jetson: divergence: mean KL"):
            await apply(1e-7)

        stages, result = await apply(0.05)
        assert result.succeeded, result.summary
        assert (await apply(0.05))[0] == ["cached"]
        assert (await apply(0.04))[0] == ["cached"], "judged by what was measured"
        with pytest.raises(Exception, match=r"profiles\.jetson: divergence: mean KL .* at most 1e-06"):
            await apply(1e-6)
