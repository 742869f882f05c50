"""Silent faults in builds of the trained test model, made by the real builder and refused by its gate. These are a few;
`make bench BENCH=compile_gates` plants all of them in all formats."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from edgewright_controller.compile.recipe import Recipe, make
from edgewright_controller.compile.source import Source, inspect
from tests.planted.faults import FAULTS
from tests.planted.laboratory import Laboratory

pytestmark = [pytest.mark.toolchain, pytest.mark.timeout(1200)]

BY_NAME: Final = {fault.name: fault for fault in FAULTS}
GGUF: Final = make("gguf", "Q4_K_M")
MLX: Final = make("mlx", "4bit")
# At 4 bits, where a model's own divergence hides most of them; and the check that must see it.
PLANTED: Final = [
    (GGUF, "norm_epsilon", "hyperparameters"),
    (GGUF, "value_head_zeroed", "tensors"),
    (GGUF, "tensor_scaled", "tensors"),
    (GGUF, "template_altered", "parity"),
    (GGUF, "rows_permuted", "tensors"),
    (GGUF, "block_scales", "tensors"),
    (MLX, "rope_base", "hyperparameters"),
    (MLX, "stale_adapter", "tensors"),
]


@pytest.fixture(scope="module")
def laboratory(tmp_path_factory: pytest.TempPathFactory) -> Laboratory:
    return Laboratory(tmp_path_factory.mktemp("planted"))


@pytest.fixture(scope="module")
def source(tiny_models: Path) -> Source:
    return inspect(tiny_models / "trained")


@pytest.mark.parametrize("recipe", [GGUF, MLX], ids=str)
async def test_an_honest_build_is_stored(laboratory: Laboratory, source: Source, recipe: Recipe) -> None:
    answer = await laboratory.build(source, recipe)
    assert not answer.refused, answer.words
    assert answer.measures
    assert answer.measures.bits < 6


@pytest.mark.parametrize(("recipe", "name", "check"), PLANTED, ids=[f"{recipe} {name}" for recipe, name, _ in PLANTED])
async def test_a_planted_fault_is_refused_by_the_check_that_is_there_for_it(
    laboratory: Laboratory, source: Source, recipe: Recipe, name: str, check: str
) -> None:
    answer = await laboratory.build(source, recipe, BY_NAME[name])
    assert check in answer.checks, answer.words or "was stored"
