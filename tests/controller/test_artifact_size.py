"""Predicted sizes against artifacts that were really built.

The numbers were measured once, from the demo's checkpoint: llama.cpp's quantiser (llama-cpp-python 0.3.36) on its bf16
GGUF, mlx_lm.convert 0.32.2, and Olive 0.13.0's ModelBuilder. Bytes of all files of the artifact.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgewright_controller.artifact_size import gguf_types, predicted_bytes, tensors_of
from edgewright_controller.compile import recipe
from edgewright_controller.compile.recipe_option import Option
from tests.controller.small_fleet import SMOLLM2, SOURCE

BESIDE = SOURCE.bytes - SMOLLM2.bytes
GGUF = {
    **{"F32": 539_845_472, "F16": 270_885_728, "BF16": 270_885_728, "Q8_0": 144_810_848, "Q6_K": 138_382_688},
    **{"Q5_K_M": 112_103_264, "Q5_K_S": 109_974_368, "Q5_1": 111_633_248, "Q5_0": 104_997_728},
    **{"Q4_K_M": 105_453_920, "Q4_K_S": 102_039_392, "Q4_1": 98_362_208, "Q4_0": 91_726_688},
    **{"IQ4_NL": 92_058_464, "IQ4_XS": 91_311_968, "Q3_K_L": 97_532_768, "Q3_K_M": 93_509_984},
    **{"Q3_K_S": 88_201_568, "Q2_K": 88_201_568},
    # By llama.cpp's dry run, which gives the sizes above to the byte.
    **{"Q2_K_S": 86_127_968, "IQ3_M": 90_212_960, "IQ3_S": 88_201_568, "IQ3_XS": 88_201_568, "IQ3_XXS": 86_957_408},
    **{"IQ2_M": 85_588_832, "IQ2_S": 84_842_336, "IQ2_XS": 84_572_768, "IQ2_XXS": 83_826_272},
    **{"IQ1_M": 82_893_152, "IQ1_S": 82_333_280, "TQ2_0": 83_639_648, "TQ1_0": 82_395_488},
}
GGUF_PURE = {
    **{"Q8_0": 144_810_848, "Q6_K": 138_382_688, "Q5_K_M": 101_127_008, "Q5_1": 102_785_888, "Q5_0": 94_380_896},
    **{"Q4_K_M": 91_063_136, "Q4_1": 85_975_904, "Q4_0": 77_570_912, "IQ4_XS": 76_741_472, "Q3_K_M": 74_045_792},
    "Q2_K": 71_350_112,
}
MLX: list[tuple[str, dict[str, Option], int]] = [
    ("bf16", {}, 272_604_768),
    ("8bit", {}, 146_605_292),
    ("4bit", {}, 79_363_352),
    ("4bit", {"group_size": 32}, 87_769_901),
    ("4bit", {"group_size": 32, "mode": "mxfp4"}, 75_124_144),
    ("3bit", {"group_size": 128}, 230_314_067),  # rows of 576 do not divide by 128 and stay as they are
]

ONNX: list[tuple[str, dict[str, Option], int]] = [
    ("int4", {}, 83_815_192),
    ("int4", {"tie_embeddings": False}, 197_061_685),
    ("int4", {"block_size": 64, "symmetric": True}, 77_471_562),
    ("int8", {}, 148_914_151),
    ("fp32", {}, 657_099_046),
]


def _predicted(runtime: str, quantization: str, options: dict[str, Option] | None = None) -> int:
    return predicted_bytes(recipe.make(runtime, quantization, options), SMOLLM2, BESIDE)


def test_the_tensors_are_all_of_the_model() -> None:
    parts = {part.role: part for part in tensors_of(SMOLLM2)}
    assert sum(part.count for part in parts.values()) == SMOLLM2.parameters
    assert parts["down"].row == 1536
    assert parts["v"].count == 30 * 576 * 3 * 64


def test_every_type_of_llama_cpp_was_measured() -> None:
    assert set(GGUF) == set(recipe.QUANTIZATIONS["gguf"])


@pytest.mark.parametrize(("quantization", "measured"), GGUF.items())
def test_gguf_is_predicted_within_two_percent(quantization: str, measured: int) -> None:
    assert _predicted("gguf", quantization) == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(("quantization", "measured"), GGUF_PURE.items())
def test_pure_gguf_is_predicted_within_two_percent(quantization: str, measured: int) -> None:
    assert _predicted("gguf", quantization, {"pure": True}) == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(("quantization", "options", "measured"), MLX)
def test_mlx_is_predicted_within_two_percent(quantization: str, options: dict[str, Option], measured: int) -> None:
    assert _predicted("mlx", quantization, options) == pytest.approx(measured, rel=0.02)


@pytest.mark.parametrize(("quantization", "options", "measured"), ONNX)
def test_onnx_is_predicted_within_two_percent(quantization: str, options: dict[str, Option], measured: int) -> None:
    assert _predicted("onnx", quantization, options) == pytest.approx(measured, rel=0.02)


def test_the_matrices_are_counted_by_type() -> None:
    matrices = SMOLLM2.parameters - SMOLLM2.vocab * SMOLLM2.hidden - 61 * SMOLLM2.hidden
    assert gguf_types(recipe.make("gguf", "Q4_0"), SMOLLM2) == {"Q4_0": matrices}
    # Rows of 576 do not divide by 256, those of `down` do.
    mixed = gguf_types(recipe.make("gguf", "Q4_K_M"), SMOLLM2)
    assert sum(mixed.values()) == matrices
    assert mixed.keys() == {"Q5_0", "Q8_0", "Q4_K", "Q6_K"}


def test_types_of_single_tensors_are_predicted_too() -> None:
    plain = _predicted("gguf", "Q4_0")
    embedding = SMOLLM2.vocab * SMOLLM2.hidden
    larger = _predicted("gguf", "Q4_0", {"output_tensor_type": "F16"})
    assert larger - plain == pytest.approx(embedding * (16 - 8.5) / 8, rel=0.001)
    down = 30 * 576 * 1536
    assert _predicted("gguf", "Q4_0", {"overrides": {"ffn_down": "Q8_0"}}) - plain == pytest.approx(
        down * 4 / 8, rel=0.001
    )
    half = _predicted("gguf", "Q4_0", {"overrides": {r"blk\.\d\.ffn_down": "Q8_0"}})
    assert half - plain == pytest.approx(down * 4 / 8 / 3, rel=0.001)


def test_options_that_save_bytes_are_predicted_to() -> None:
    assert _predicted("onnx", "int4") < 0.45 * _predicted("onnx", "int4", {"tie_embeddings": False})
    assert _predicted("onnx", "int4", {"block_size": 128}) < _predicted("onnx", "int4", {"block_size": 32})
    assert _predicted("onnx", "fp16", {"provider": "cuda"}) < 0.6 * _predicted("onnx", "fp32")


def test_a_large_model_is_predicted_as_its_publishers_measured_it() -> None:
    # Llama 3.1 8B: llama.cpp's quantize README gives 4.58 GiB for Q4_K_M and 14.96 GiB for F16.
    llama = replace(
        SMOLLM2, parameters=8_030_261_248, hidden=4096, layers=32, heads=32, kv_heads=8, head_dim=128, vocab=128_256
    )
    published = [
        ("IQ1_S", 1.87),
        ("IQ1_M", 2.01),
        ("IQ2_XXS", 2.23),
        ("IQ2_XS", 2.42),
        ("IQ2_S", 2.56),
        ("IQ2_M", 2.74),
    ]
    published += [("IQ3_XXS", 3.04), ("IQ3_XS", 3.27), ("IQ3_S", 3.42), ("IQ3_M", 3.52), ("IQ4_XS", 4.17)]
    published += [
        ("IQ4_NL", 4.38),
        ("Q2_K_S", 2.78),
        ("Q2_K", 2.95),
        ("Q3_K_M", 3.74),
        ("Q4_K_M", 4.58),
        ("F16", 14.96),
    ]
    for quantization, gib in published:
        predicted = predicted_bytes(recipe.make("gguf", quantization), llama, 0)
        assert predicted / 2**30 == pytest.approx(gib, rel=0.02)
