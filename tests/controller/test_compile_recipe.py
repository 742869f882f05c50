"""Recipes have one spelling, and build keys name everything that decides the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from edgewright_controller.compile import toolchain
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.recipe import QUANTIZATIONS, Recipe, make, recipe_of
from edgewright_controller.compile.recipe_gguf import IMATRIX_NEEDED
from edgewright_controller.compile.recipe_mlx import check_rows
from edgewright_controller.compile.recipe_option import Choice, Option, RecipeError

SOURCE = "1" * 64
VERSIONS = {"mlx": "0.32.4", "platform": "linux-x86_64"}


@dataclass(frozen=True)
class Profile:
    """The part of a manifest's profile that a recipe reads."""

    runtime: str
    quantization: str
    accelerator: str = "cpu"
    recipe_options: Mapping[str, Option] = field(default_factory=dict)


def test_defaults_are_written_out_so_that_two_spellings_share_a_build() -> None:
    assert make("mlx", "4bit") == make("mlx", "4bit", {"mode": "affine", "group_size": 64})
    assert make("mlx", "4bit") != make("mlx", "4bit", {"group_size": 32})
    assert str(make("mlx", "4bit", {"group_size": 32})) == "mlx 4bit group_size=32"


def test_a_recipe_with_a_list_in_it_is_a_value_and_reads_as_it_was_meant() -> None:
    spelled = (("overrides", '[["attn_v","Q8_0"]]'), ("pure", "true"))
    recipe = Recipe("gguf", "Q4_K_M", spelled)
    assert {recipe, Recipe("gguf", "Q4_K_M", spelled)} == {recipe}
    assert recipe.to_json()["options"] == {"overrides": [["attn_v", "Q8_0"]], "pure": True}


def test_a_value_without_a_list_of_what_it_may_be_is_spelled_by_its_check() -> None:
    choice = Choice([], (), ("int4",), lambda _key, value: sorted(value))
    assert choice.one_spelling("recipe.some", ["b", "a"]) == ["a", "b"]


def test_options_that_cannot_apply_are_left_out_when_they_are_the_default_and_refused_when_not() -> None:
    assert make("mlx", "bf16", {"group_size": 64}) == make("mlx", "bf16")
    with pytest.raises(RecipeError, match=r"recipe\.group_size: cannot be used with bf16"):
        make("mlx", "bf16", {"group_size": 32})


@pytest.mark.parametrize(
    ("runtime", "quantization", "options", "key"),
    [
        ("tflite", "int8", {}, "runtime"),
        ("gguf", "4bit", {}, "quantization"),
        ("gguf", "IQ2_XS", {"imatrix": False}, "recipe.imatrix"),
        ("gguf", "IQ2_XS", {"pure": True}, "recipe.pure"),
        ("gguf", "Q4_0", {"overrides": {"attn": "Q9"}}, "recipe.overrides.'attn'"),
        ("gguf", "Q4_0", {"overrides": {"attn(": "Q8_0"}}, "recipe.overrides.'attn('"),
        ("gguf", "Q4_0", {"overrides": {"attn": "IQ2_S"}}, "recipe.overrides.'attn'"),
        ("gguf", "Q4_0", {"overrides": {"x" * 201: "Q8_0"}}, f"recipe.overrides.{'x' * 200!r}"),
        ("gguf", "Q4_0", {"overrides": {str(n): "Q8_0" for n in range(65)}}, "recipe.overrides"),
        ("gguf", "F16", {"overrides": {"attn": "Q8_0"}}, "recipe.overrides"),
        ("gguf", "Q4_0", {"output_tensor_type": "Q2_K"}, "recipe.output_tensor_type"),
        ("gguf", "Q2_K", {"token_embedding_type": "IQ1_S"}, "recipe.token_embedding_type"),
        ("gguf", "Q4_0", {"split": 5}, "recipe.split"),
        ("gguf", "Q4_K_M", {"group_size": 64}, "recipe.group_size"),
        ("mlx", "4bit", {"group_size": 48}, "recipe.group_size"),
        ("mlx", "8bit", {"mode": "mxfp4", "group_size": 32}, "recipe.mode"),
        ("mlx", "4bit", {"mode": "mxfp4"}, "recipe.mode"),
        ("mlx", "4bit", {"mode": "nvfp4", "group_size": 32}, "recipe.mode"),
        ("mlx", "4bit", {"group_size": 16}, "recipe.group_size"),
        ("mlx", "mixed_4_6", {"mode": "mxfp4", "group_size": 32}, "recipe.mode"),
        ("mlx", "mixed_4_6", {"learned": "awq"}, "recipe.learned"),
        ("mlx", "3bit", {"learned": "gptq"}, "recipe.learned"),
        ("mlx", "8bit", {"learned": "dynamic"}, "recipe.learned"),
        ("mlx", "4bit", {"mode": "nvfp4", "group_size": 16, "learned": "awq"}, "recipe.learned"),
        ("onnx", "int4", {"tie_embeddings": 1}, "recipe.tie_embeddings"),
        ("onnx", "fp16", {}, "quantization"),
        ("onnx", "prebuilt", {"block_size": 32}, "recipe"),
        ("onnx", "int8", {"symmetric": True}, "recipe.symmetric"),
        ("onnx", "fp32", {"passes": ["OnnxPeepholeOptimizer"]}, "recipe.passes"),
    ],
)
def test_what_cannot_be_built_is_refused_by_its_key(
    runtime: str, quantization: str, options: dict[str, Option], key: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        make(runtime, quantization, options)
    assert caught.value.key == key


def test_below_3_bits_an_importance_matrix_needs_no_saying() -> None:
    assert make("gguf", "IQ2_XS") == make("gguf", "IQ2_XS", {"imatrix": True})
    assert str(make("gguf", "IQ2_XS")) == "gguf IQ2_XS"
    assert str(make("gguf", "IQ4_XS", {"imatrix": True})) == "gguf IQ4_XS imatrix=true"
    assert [q for q in QUANTIZATIONS["gguf"] if make("gguf", q).calibrated] == list(IMATRIX_NEEDED)


def test_overrides_keep_their_order_which_decides() -> None:
    one, other = {"attn_v": "Q8_0", "attn": "Q6_K"}, {"attn": "Q6_K", "attn_v": "Q8_0"}
    recipe = make("gguf", "Q4_K_M", {"overrides": one})
    assert recipe != make("gguf", "Q4_K_M", {"overrides": other})
    assert recipe.options["overrides"] == [["attn_v", "Q8_0"], ["attn", "Q6_K"]]
    assert make("gguf", "Q4_K_M", recipe.options) == recipe


def test_the_calibration_text_is_in_the_key_of_what_reads_it_and_of_nothing_else() -> None:
    for quantization, differs in (("IQ2_XS", True), ("Q4_0", False)):
        one, other = (build_key(SOURCE, make("gguf", quantization), VERSIONS, text * 64) for text in "ab")
        assert (one != other) == differs


def test_a_group_that_does_not_divide_the_rows_is_refused_with_one_that_does() -> None:
    check_rows(64, {"hidden_size": 576, "intermediate_size": 1536})
    with pytest.raises(RecipeError, match=r"group_size: 128 does not divide rows of 576 \(hidden_size\); .* = 64"):
        check_rows(128, {"hidden_size": 576, "intermediate_size": 1536})
    with pytest.raises(RecipeError, match=r"rows of 100 \(hidden_size\); this model cannot be quantised for MLX"):
        check_rows(32, {"hidden_size": 100})


def test_learned_recipes_read_the_calibration_text() -> None:
    assert make("mlx", "4bit", {"learned": "dwq"}).calibrated
    assert not make("mlx", "4bit").calibrated


def test_the_accelerator_shapes_an_onnx_graph_but_no_gguf_and_no_mlx_folder() -> None:
    assert recipe_of(Profile("gguf", "Q4_K_M", "cuda")) == recipe_of(Profile("gguf", "Q4_K_M", "metal"))
    assert recipe_of(Profile("mlx", "4bit", "metal")) == recipe_of(Profile("mlx", "4bit", "cpu"))
    assert recipe_of(Profile("onnx", "int4", "cuda")) != recipe_of(Profile("onnx", "int4", "cpu"))
    assert recipe_of(Profile("onnx", "fp16", "cuda")).quantization == "fp16"


def test_what_a_graph_for_an_accelerator_cannot_be_measured_on_is_said_before_it_is_built() -> None:
    assert not make("onnx", "int4").unproven
    assert not make("gguf", "Q4_K_M").unproven
    assert not make("onnx", "prebuilt").unproven
    for accelerator, name in (("cuda", "CUDA"), ("dml", "DirectML"), ("webgpu", "WebGPU")):
        (words,) = recipe_of(Profile("onnx", "int4", accelerator)).unproven
        assert words.startswith(f"{name}'s own kernels")


def test_an_accelerator_that_nobody_here_builds_for_takes_prebuilt_artifacts_only() -> None:
    assert recipe_of(Profile("onnx", "prebuilt", "vitisai")).prebuilt
    with pytest.raises(RecipeError, match=r"accelerator: ONNX for vitisai .*prebuilt"):
        recipe_of(Profile("onnx", "int4", "vitisai"))


def test_a_build_key_changes_with_everything_that_decides_the_bytes() -> None:
    recipe = make("mlx", "4bit")
    key = build_key(SOURCE, recipe, VERSIONS)
    assert key == build_key(SOURCE, make("mlx", "4bit"), dict(reversed(list(VERSIONS.items()))))
    others = {
        build_key("2" * 64, recipe, VERSIONS),
        build_key(SOURCE, make("mlx", "8bit"), VERSIONS),
        build_key(SOURCE, make("mlx", "4bit", {"group_size": 32}), VERSIONS),
        build_key(SOURCE, recipe, VERSIONS | {"mlx": "0.33.0"}),
        build_key(SOURCE, recipe, VERSIONS | {"platform": "darwin-arm64"}),
    }
    assert len(others | {key}) == 6


def test_a_prebuilt_artifact_is_named_by_its_bytes_alone() -> None:
    recipe = make("gguf", "prebuilt")
    assert build_key(SOURCE, recipe, VERSIONS) == build_key(SOURCE, recipe, {})
    assert build_key(SOURCE, recipe, {}) != build_key("2" * 64, recipe, {})


def test_every_runtime_with_recipes_has_a_toolchain() -> None:
    assert set(QUANTIZATIONS) == set(toolchain.PACKAGES)
