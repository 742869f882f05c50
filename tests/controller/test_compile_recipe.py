"""Recipes have one spelling, and build keys name everything that decides the bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from edgewright_controller.compile import toolchain
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.recipe import QUANTIZATIONS, Recipe, make, recipe_of
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
        ("gguf", "IQ1_S", {}, "quantization"),
        ("gguf", "Q4_K_M", {"group_size": 64}, "recipe.group_size"),
        ("mlx", "4bit", {"group_size": 48}, "recipe.group_size"),
        ("mlx", "8bit", {"mode": "mxfp4", "group_size": 32}, "recipe.mode"),
        ("mlx", "4bit", {"mode": "mxfp4"}, "recipe.mode"),
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


def test_an_accelerator_with_its_own_compiler_takes_prebuilt_artifacts_only() -> None:
    assert recipe_of(Profile("onnx", "prebuilt", "qnn")).prebuilt
    with pytest.raises(RecipeError, match=r"accelerator: ONNX for qnn .*prebuilt"):
        recipe_of(Profile("onnx", "int4", "qnn"))


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
