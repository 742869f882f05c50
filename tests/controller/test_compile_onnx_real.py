"""ONNX graphs for other providers than a CPU, and what a recipe adds to them, on a tiny model: made for an accelerator,
they still compute on onnxruntime's CPU provider what the source computes, so the gate can measure them."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from edgewright_controller.compile import child, toolchain
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.builder import Builder
from edgewright_controller.compile.child import Stage
from edgewright_controller.compile.recipe import Recipe, make
from edgewright_controller.compile.source import inspect
from edgewright_controller.compile.store import ArtifactStore

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]

CHUNKS: Final = 3
TOKENS: Final = 48


class Lab:
    """A tiny model, its logits, and a builder that measures nothing: what is measured is said by the tests."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model, self.source = folder, model, inspect(model)
        self.store = ArtifactStore(folder / "store")
        self.builder = Builder(self.store, folder, toolchain.default_interpreters(), threads=1, gated=False)
        assert self.source.facts
        self.vocabulary = self.source.facts.vocab
        self.chunks = [[(17 * i + 91 * n) % self.vocabulary for i in range(TOKENS)] for n in range(CHUNKS)]
        self.reference = folder / "reference.f32"
        asked = {"source": str(model), "chunks": self.chunks, "out": str(self.reference), "threads": 1}
        self.stage("reference_logits", asked)

    def stage(self, script: str, request: dict[str, Any]) -> dict[str, Any]:
        one = Stage(child.CHILDREN / f"{script}.py", sys.executable, 600.0)
        with (self.folder / f"{script}.log").open("wb") as log:
            return asyncio.run(child.run(one, request, self.folder, log, lambda _done, _say: None))

    def build(self, recipe: Recipe) -> Path:
        text = self.source.calibration.digest
        key = build_key(self.source.digest, recipe, self.builder.versions("onnx"), text)
        return self.store.path(asyncio.run(self.builder.build(self.source, recipe, key)).bundle)

    def divergence(self, artifact: Path) -> float:
        """Mean KL of the source from the artifact, in nats."""
        asked = {"artifact": str(artifact), "reference": str(self.reference), "vocabulary": self.vocabulary}
        asked |= {"chunks": self.chunks, "first": 0, "count": CHUNKS, "threads": 1, "float32": False}
        found = [value for chunk in self.stage("onnx_logits", asked)["chunks"] for value in chunk["kl"]]
        return float(sum(found) / len(found))

    def bits(self, artifact: Path) -> tuple[float, set[str]]:
        """Bits of a weight as they are measured, and the types of its tensors."""
        asked = {"artifact": str(artifact), "source": str(self.model), "block": 32, "quiet": 0.1, "moved": False}
        found = self.stage("onnx_tensors", asked)
        assert not set(found["expected"]) - {one["name"] for one in found["tensors"]}
        return 8 * found["bytes"] / found["parameters"], {one["type"] for one in found["tensors"]}


@pytest.fixture(scope="module")
def lab(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    return Lab(tmp_path_factory.mktemp("onnx"), tiny_models / "llama")


def test_a_graph_for_webgpu_computes_on_a_cpu_what_its_source_does_in_float16_and_in_four_bits(lab: Lab) -> None:
    half = lab.build(make("onnx", "fp16", {"provider": "webgpu"}))
    four = lab.build(make("onnx", "int4", {"provider": "webgpu"}))
    assert lab.bits(half)[1] >= {"fp16"}
    assert "int4b32z" in lab.bits(four)[1]
    assert lab.divergence(half) < 1e-3 < lab.divergence(four)


def test_further_passes_run_over_the_finished_graph_and_keep_what_it_computes(lab: Lab) -> None:
    plain = lab.build(make("onnx", "fp32"))
    passed = lab.build(make("onnx", "fp32", {"passes": {"OnnxPeepholeOptimizer": {}}}))
    assert lab.divergence(plain) < 1e-8
    assert lab.divergence(passed) < 1e-8
    assert {file.name for file in plain.iterdir()} <= {file.name for file in passed.iterdir()}


def test_gptq_rounds_by_the_calibration_text_into_the_same_blocks(
    lab: Lab, tiny_models: Path, tmp_path: Path, soak: int
) -> None:
    plain, gptq = make("onnx", "int4"), make("onnx", "int4", {"passes": {"Gptq": {}}, "calibration_samples": 16})
    rounded, learned = lab.build(plain), lab.build(gptq)
    bits, types = lab.bits(learned)
    assert types == {"int4b32z", "fp32"}
    assert bits == pytest.approx(lab.bits(rounded)[0], rel=0.02)
    # Weights without any sense, and tokens that no text has: here it is another rounding, and no better one.
    divergence, of_plain = lab.divergence(learned), lab.divergence(rounded)
    assert divergence != of_plain
    assert 1e-3 < divergence < 1.3 * of_plain
    if soak > 1:
        # Of a model that has learned something, through the whole gate.
        source = inspect(tiny_models / "trained")
        builder = Builder(ArtifactStore(tmp_path / "store"), tmp_path, toolchain.default_interpreters(), gated=True)
        found = []
        for recipe in (gptq, plain):
            key = build_key(source.digest, recipe, builder.versions("onnx"), source.calibration.digest)
            measures = asyncio.run(builder.build(source, recipe, key)).measures
            assert measures
            assert measures.fidelity
            assert measures.divergence
            found.append(measures.divergence.kl)
        assert found[0] < found[1]
