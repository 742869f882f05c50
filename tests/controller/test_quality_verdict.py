"""Judging an artifact by what was measured: now, after the measures were kept, and by other limits than then."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from edgewright_controller.quality import tensors, verdict, wording
from edgewright_controller.quality.divergence import Divergence, MeasureError
from edgewright_controller.quality.limits import (
    DIVERGENCE,
    FIDELITY_KL,
    FIDELITY_KL_BY_TABLE,
    PARITY_TEXTS,
    Limits,
    Overrides,
    limits,
)
from edgewright_controller.quality.measures import GATE, Measures
from edgewright_controller.quality.parity import Difference
from edgewright_controller.quality.precision import Precision
from edgewright_controller.quality.tensors import TensorMeasure

TENSOR = TensorMeasure("blk.0.ffn_down.weight", "Q8_0", 1000, 0.0055, 1.0004, 0.02, 0.01)
FAITHFUL = Divergence(640, 2e-11, 1e-12, 2e-10, 1.0, 13.0, 1.0, 1e-7)
CLOSE = Divergence(1016, 0.004, 0.0003, 0.03, 0.96, 13.1, 1.002, 0.01)
HONEST = Measures(
    runtime="gguf",
    parameters=1000,
    weight_bytes=1062,
    types={"Q8_0": 1000},
    tensors=(TENSOR,),
    divergence=CLOSE,
    fidelity=FAITHFUL,
    texts="a" * 64,
)
LIMITS = limits("gguf", HONEST.precision)


def test_a_runtime_that_takes_gelu_from_a_table_may_be_a_little_further_from_its_source() -> None:
    by_table = dataclasses.replace(HONEST, fidelity=dataclasses.replace(FAITHFUL, kl=FIDELITY_KL_BY_TABLE / 10))
    assert verdict.judge(dataclasses.replace(by_table, activation="gelu_pytorch_tanh"), LIMITS) == ()
    for other in (
        dataclasses.replace(by_table, activation="silu"),
        dataclasses.replace(by_table, activation="gelu_pytorch_tanh", runtime="mlx"),
        dataclasses.replace(HONEST, activation="gelu", fidelity=dataclasses.replace(FAITHFUL, kl=1e-4)),
    ):
        assert "fidelity" in [refusal.check for refusal in verdict.judge(other, LIMITS)]


def test_an_honest_artifact_is_refused_by_nothing() -> None:
    assert HONEST.precision is Precision.MEDIUM
    assert verdict.judge(HONEST, LIMITS) == ()
    assert verdict.is_settled(HONEST, LIMITS)


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"fidelity": dataclasses.replace(FAITHFUL, kl=0.12)}, "fidelity: unquantised, in float32: mean KL 0.12 nats"),
    ({"fidelity": None}, "fidelity: was not measured"),
    ({"hyperparameters": ("rope_base: the source has 1, the runtime computes with 2",)}, "hyperparameters: rope_base"),
    ({"tensors": (dataclasses.replace(TENSOR, gain=1.05),)}, "tensors: blk.0.ffn_down.weight: gain 1.05"),
    ({"tensors": (dataclasses.replace(TENSOR, error=math.nan),)}, "tensors: blk.0.ffn_down.weight: relative error nan"),
    ({"missing": ("blk.1.attn_q.weight",)}, "tensors: blk.1.attn_q.weight: is missing"),
    ({"surplus": ("blk.9.attn_q.weight",)}, "tensors: blk.9.attn_q.weight: is in the artifact, and nothing"),
    ({"tensors": ()}, "tensors: was not measured"),
    ({"divergence": dataclasses.replace(CLOSE, kl=0.9)}, "8.50 bits a weight (medium), over 1,016 tokens"),
    ({"divergence": dataclasses.replace(CLOSE, kl=math.nan)}, "divergence: mean KL nan nats"),
    ({"divergence": None}, "divergence: was not measured"),
    ({"parity": (Difference("digits", "at token 2: [1] became [2]"),)}, "parity: digits: at token 2"),
    ({"divergence": None, "unproven": ("only the NPU can run it",)}, "unproven: only the NPU can run it"),
]


@pytest.mark.parametrize(("fault", "words"), FAULTS, ids=[words for _, words in FAULTS])
def test_each_fault_is_refused_by_its_check_with_the_numbers_and_the_place(fault: dict[str, Any], words: str) -> None:
    found = verdict.judge(dataclasses.replace(HONEST, **fault), LIMITS)
    assert len(found) == 1
    assert words in str(found[0])
    assert found[0].check in verdict.ADVICE


@pytest.mark.parametrize("measures", [HONEST, *(dataclasses.replace(HONEST, **fault) for fault, _ in FAULTS)])
def test_what_was_kept_is_judged_as_it_was_when_it_was_measured(measures: Measures) -> None:
    kept = json.loads(json.dumps(measures.to_json(), allow_nan=False))
    again = Measures.from_json(kept)
    assert list(map(str, verdict.judge(again, LIMITS))) == list(map(str, verdict.judge(measures, LIMITS)))
    assert again.to_json() == measures.to_json()


@pytest.mark.parametrize(
    "document", [{}, {"tensors": 3}, HONEST.to_json() | {"more": 1}, HONEST.to_json() | {"parity": [{}]}]
)
def test_what_is_not_an_artifacts_measures_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(MeasureError, match="not the measures of an artifact"):
        Measures.from_json(document)


def test_a_manifest_says_otherwise_by_key() -> None:
    usual = DIVERGENCE[Precision.LOW]
    assert limits("gguf", Precision.LOW).divergence == usual
    given = limits("gguf", Precision.LOW, Overrides(kl=0.1, same_top=0.9, parity_differences=2, allow_unproven=True))
    assert given.divergence == dataclasses.replace(usual, kl=0.1, same_top=0.9)
    assert given.fidelity_kl == FIDELITY_KL
    odd = dataclasses.replace(HONEST, parity=(Difference("a", "x"), Difference("b", "y")), unproven=("z",))
    assert [one.check for one in verdict.judge(odd, LIMITS)] == ["parity", "parity", "unproven"]
    assert verdict.judge(odd, dataclasses.replace(LIMITS, parity_differences=2, allow_unproven=True)) == ()


def test_what_an_engine_does_to_raw_texts_whatever_is_built_is_no_refusal_but_a_chat_is() -> None:
    texts = (Difference("a NUL (onnxruntime-genai)", "x"), Difference("digits with spaces (onnxruntime-genai)", "y"))
    usual, none = limits("onnx", Precision.MEDIUM), limits("onnx", Precision.MEDIUM, Overrides(parity_differences=0))
    onnx = dataclasses.replace(HONEST, runtime="onnx", tensors=(dataclasses.replace(TENSOR, type="int8b32"),))
    assert verdict.judge(dataclasses.replace(onnx, parity=texts), usual) == ()
    for differing, limit in (
        ((*texts, Difference("more (onnxruntime-genai)", "z")), usual),
        ((Difference("spaces behind (onnxruntime-genai)", "x"),), usual),
        ((Difference("chat: hello (onnxruntime-genai)", "x"),), usual),
        (texts, none),
    ):
        assert {one.check for one in verdict.judge(dataclasses.replace(onnx, parity=differing), limit)} == {"parity"}
    assert {one.check for one in verdict.judge(dataclasses.replace(HONEST, parity=texts), LIMITS)} == {"parity"}


def test_texts_that_may_differ_are_texts_that_are_compared() -> None:
    assert frozenset().union(*PARITY_TEXTS.values()) <= wording.texts().keys()


def test_every_class_of_precision_may_cost_more_than_the_one_above() -> None:
    chain = [DIVERGENCE[one] for one in (Precision.FULL, Precision.MEDIUM, Precision.LOW, Precision.ULTRA_LOW)]
    assert [limit.kl for limit in chain] == sorted(limit.kl for limit in chain)
    assert all(one.kl_p99 and one.perplexity_ratio and one.same_top for one in chain)


def _with(limit: Limits, **divergence: float) -> Limits:
    return dataclasses.replace(limit, divergence=dataclasses.replace(limit.divergence, **divergence))


def test_measures_are_taken_again_when_they_cannot_tell() -> None:
    assert not verdict.is_settled(dataclasses.replace(HONEST, gate=GATE - 1), LIMITS)
    near = _with(LIMITS, kl=CLOSE.kl + CLOSE.kl_error)
    assert not verdict.is_settled(HONEST, near)
    assert verdict.is_settled(dataclasses.replace(HONEST, whole=True), near)
    assert not verdict.is_settled(HONEST, dataclasses.replace(LIMITS, tokens=4096))
    # Far outside: more tokens would not save it.
    strict = dataclasses.replace(_with(LIMITS, kl=1e-4), tokens=4096)
    assert verdict.is_settled(HONEST, strict)
    assert verdict.judge(HONEST, strict)


def test_of_thousands_of_tensors_those_are_kept_that_a_limit_would_refuse_first() -> None:
    plain = [dataclasses.replace(TENSOR, name=f"t{i}", error=0.001 + i * 1e-6, gain=1.0) for i in range(3000)]
    odd = [
        dataclasses.replace(TENSOR, name="gain", gain=0.98, error=0.001),
        dataclasses.replace(TENSOR, name="block", worst_block=0.9),
        dataclasses.replace(TENSOR, name="row", worst_row=0.9),
        dataclasses.replace(TENSOR, name="nan", error=math.nan),
        dataclasses.replace(TENSOR, name="other", type="F32"),
    ]
    every = [*plain, *odd]
    kept = tensors.worst(every)
    assert {one.name for one in kept} == {one.name for one in odd}
    assert tensors.weights_by_type(every) == {"Q8_0": 3004 * 1000, "F32": 1000}
