"""Tensors, hyperparameters, tokens and templates, and classes of precision: an honest artifact, then faults."""

from __future__ import annotations

import dataclasses
import math

import pytest

from edgewright_controller.quality import hyperparameters, parity, tensors
from edgewright_controller.quality.precision import Precision, bits_per_weight, precision
from edgewright_controller.quality.tensors import TensorMeasure, TypeLimit

LIMITS = {"Q8_0": TypeLimit(error=0.01, gain=0.01, worst_block=0.5, worst_row=0.5)}
CLEAN = TensorMeasure("model.layers.0.mlp.down_proj.weight", "Q8_0", 1000, 0.0055, 1.0004, 0.02, 0.01)


def test_a_clean_tensor_passes() -> None:
    assert tensors.judge([CLEAN], LIMITS, [CLEAN.name]) == ()


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ({"gain": 1.05, "error": 0.0505}, "relative error"),
        ({"gain": 1.05}, "gain 1.05"),
        ({"gain": 0.0}, "gain 0"),
        ({"worst_block": 1.0}, "block of 32"),
        ({"worst_row": 2.05}, "row"),
        ({"error": math.nan}, "relative error"),
        ({"type": "Q9_Z"}, "no limit"),
        ({"rounding": 1.375}, "0.0055, 1.375 times the 0.004 of the source rounded anew, at most 1.01 times"),
        ({"rounding": 1.375}, "another checkpoint or adapter"),
        ({"rounding": math.nan}, "rounded anew"),
        ({"coherence": 7.0}, "0.0055, of which one direction has 7 times as much as it would of rounding"),
        ({"coherence": math.inf}, "another checkpoint or adapter"),
    ],
)
def test_a_faulty_tensor_is_found_with_its_name_and_numbers(fault: dict[str, float], word: str) -> None:
    (found,) = tensors.judge([dataclasses.replace(CLEAN, **fault)], LIMITS, [CLEAN.name])  # type: ignore[arg-type]
    assert found.tensor == CLEAN.name
    assert word in found.why


def test_what_rounding_costs_is_no_finding_and_what_is_beyond_it_is_kept_as_the_worst() -> None:
    honest = dataclasses.replace(CLEAN, rounding=1.0007)
    other = dataclasses.replace(CLEAN, name="other", rounding=1.0006, error=0.004, worst_block=0.01, worst_row=0.005)
    assert tensors.judge([honest, other], LIMITS, [CLEAN.name, "other"]) == ()
    assert tensors.worst([honest, other]) == (honest,)
    beyond = dataclasses.replace(other, rounding=1.1)
    assert tensors.worst([honest, beyond]) == (honest, beyond)


def test_a_missing_tensor_is_found_and_the_worst_comes_first() -> None:
    bad = dataclasses.replace(CLEAN, name="a", gain=1.02)
    worse = dataclasses.replace(CLEAN, name="b", gain=0.0)
    found = tensors.judge([bad, worse, CLEAN], LIMITS, ["a", "b", CLEAN.name, "lost"])
    assert [one.tensor for one in found] == ["lost", "b", "a"]


def test_tensors_of_another_type_are_counted_for_the_report() -> None:
    other = dataclasses.replace(CLEAN, name="o", type="Q5_0", weights=7)
    assert tensors.fallbacks([CLEAN, other], "Q8_0") == {"Q5_0": 7}


LLAMA = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"},
    "hidden_act": "silu",
    "tie_word_embeddings": True,
}


def test_a_runtime_that_holds_the_sources_hyperparameters_differs_in_nothing() -> None:
    source = hyperparameters.of_config(LLAMA)
    assert source["rope_base"] == 100000.0
    assert source["head_dim"] == 64
    assert hyperparameters.differences(source, source) == ()
    as_float32 = source | {"norm_epsilon": 9.999999747378752e-06}
    assert hyperparameters.differences(source, as_float32) == ()
    assert (
        hyperparameters.of_config({k: v for k, v in LLAMA.items() if k != "rope_parameters"} | {"rope_theta": 7.0})[
            "rope_base"
        ]
        == 7.0
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [("rope_base", 10000.0), ("norm_epsilon", 1e-3), ("activation", "gelu"), ("tied_embedding", False)],
)
def test_what_a_runtime_read_otherwise_is_told(name: str, value: hyperparameters.Value) -> None:
    source = hyperparameters.of_config(LLAMA)
    (found,) = hyperparameters.differences(source, source | {name: value})
    assert found.startswith(f"{name}: the source has {source[name]}")


def test_equal_ids_and_chats_differ_in_nothing() -> None:
    assert parity.of_ids({"digits": [1, 2]}, {"digits": [1, 2]}) == ()
    assert parity.of_chats({"one": "<|im_start|>user"}, {"one": "<|im_start|>user"}) == ()


def test_a_second_bos_a_lost_text_and_another_template_are_told_with_their_place() -> None:
    (bos,) = parity.of_ids({"digits": [5, 6]}, {"digits": [1, 5, 6]})
    assert bos.text == "digits"
    assert "at token 0" in bos.what
    assert parity.of_ids({"digits": [5]}, {})
    (template,) = parity.of_chats({"one": "<|user|>hello"}, {"one": "<|user|>\nhello"})
    assert "at character 8" in template.what
    (lost,) = parity.of_chats({"one": "x"}, {})
    assert "chat template" in lost.what


@pytest.mark.parametrize(
    ("bits", "wanted"),
    [
        (2.99, Precision.ULTRA_LOW),
        (3.0, Precision.LOW),
        (4.99, Precision.LOW),
        (5.0, Precision.MEDIUM),
        (9.0, Precision.MEDIUM),
        (9.01, Precision.FULL),
        (32.0, Precision.FULL),
    ],
)
def test_the_class_goes_by_measured_bits(bits: float, wanted: Precision) -> None:
    assert precision(bits) is wanted
    assert bits_per_weight(9, 8) == 9


@pytest.mark.parametrize("bits", [0.0, -1.0, math.nan])
def test_bits_that_are_none_are_refused(bits: float) -> None:
    with pytest.raises(ValueError, match="bits per weight"):
        precision(bits)
    with pytest.raises(ValueError, match="parameters"):
        bits_per_weight(1, 0)


WINDOW = {"sliding_window": 4096, "max_position_embeddings": 32768}


def test_a_window_counts_where_a_layer_looks_back_no_further() -> None:
    assert hyperparameters.of_config(WINDOW)["sliding_window"] == 4096
    kinds = ["sliding_attention", "full_attention"]
    assert hyperparameters.of_config(WINDOW | {"layer_types": kinds})["sliding_window"] == 4096
    for without in (
        {"sliding_window": None},
        {"use_sliding_window": False},
        {"layer_types": ["full_attention"]},
        {"max_position_embeddings": 4096},
    ):
        assert "sliding_window" not in hyperparameters.of_config(WINDOW | without), without


def test_a_window_that_the_runtime_does_not_have_is_a_difference() -> None:
    wanted = hyperparameters.of_config(WINDOW)
    assert hyperparameters.differences(wanted, {"sliding_window": 4096}) == ()
    (words,) = hyperparameters.differences(wanted, {"sliding_window": 0})
    assert words == "sliding_window: the source has 4096, the runtime computes with 0"


def test_a_chat_that_reaches_the_model_as_the_same_tokens_is_the_same() -> None:
    source, artifact = {"hello": "<s>Hello", "bye": "<s>Bye"}, {"hello": "Hello"}
    assert [one.text for one in parity.of_chats(source, artifact)] == ["hello", "bye"]
    assert [one.text for one in parity.of_chats(source, artifact, {"hello", "bye"})] == ["bye"]
