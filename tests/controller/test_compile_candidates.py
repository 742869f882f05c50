"""Which recipes `quantization = "auto"` chooses from."""

from __future__ import annotations

import pytest

from edgewright_controller.compile.candidates import candidates
from edgewright_controller.compile.recipe_option import RecipeError


def test_each_precision_of_the_runtime_is_a_candidate_once() -> None:
    found = candidates("gguf", {})
    assert len(found) == len(set(found))
    assert {"Q2_K", "Q4_K_M", "Q8_0", "BF16"} <= {one.quantization for one in found}


def test_group_sizes_are_varied_where_the_profile_names_none() -> None:
    groups = {(one.quantization, one.options.get("group_size")) for one in candidates("mlx", {})}
    assert {("4bit", 32), ("4bit", 64), ("4bit", 128), ("bf16", None)} <= groups


def test_what_the_profile_says_holds_for_every_candidate() -> None:
    assert {one.options["group_size"] for one in candidates("mlx", {"group_size": 32})} == {32}
    assert {one.options["provider"] for one in candidates("onnx", {"provider": "cuda"})} == {"cuda"}


def test_options_that_no_recipe_can_have_are_refused_by_their_key() -> None:
    with pytest.raises(RecipeError, match=r"recipe\.group_size: unknown"):
        candidates("gguf", {"group_size": 64})
    with pytest.raises(RecipeError, match=r"recipe\.group_size: 48 is not one of 16, 32, 64, 128"):
        candidates("mlx", {"group_size": 48})
