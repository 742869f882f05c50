"""What a recipe may add to Olive's passes: told apart by form here, and by what Olive has under its own interpreter."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.compile import child, olive_passes
from edgewright_controller.compile.backends import onnx
from edgewright_controller.compile.child import Stage
from edgewright_controller.compile.recipe import make
from edgewright_controller.compile.recipe_option import Option, RecipeError
from tests.controller import service_rig

SURGERY = {"surgeries": [{"surgeon": "RenameOutputs", "old_names": ["/lm_head/MatMul"], "new_names": ["logits"]}]}


def test_passes_keep_their_order_their_names_and_their_types() -> None:
    recipe = make(
        "onnx",
        "fp32",
        {"passes": {"second": {"type": "GraphSurgeries", **SURGERY}, "OnnxPeepholeOptimizer": {}}},
    )
    assert recipe.options["passes"] == [
        ["second", "GraphSurgeries", SURGERY],
        ["OnnxPeepholeOptimizer", "OnnxPeepholeOptimizer", {}],
    ]
    assert recipe != make("onnx", "fp32", {"passes": {"OnnxPeepholeOptimizer": {}}})
    assert make("onnx", "fp32", {"passes": {}}) == make("onnx", "fp32")


@pytest.mark.parametrize(
    ("passes", "key"),
    [
        (["GraphSurgeries"], "passes"),
        ({"GraphSurgeries": "all"}, "passes.GraphSurgeries"),
        ({"olive.passes.GraphSurgeries": {}}, "passes.olive.passes.GraphSurgeries"),
        ({"x": {"type": "../x"}}, "passes.x.type"),
        ({f"p{i}": {} for i in range(17)}, "passes"),
        ({"Gptq": {"data_config": {"user_script": "x.py"}}}, "passes.Gptq.data_config"),
        ({"OnnxConversion": {"script_dir": "here"}}, "passes.OnnxConversion.script_dir"),
        (
            {"ModelBuilder": {"extra_options": {"trust_remote_code": True}}},
            "passes.ModelBuilder.extra_options.trust",
        ),
        ({"ModelBuilder": {"extra_options": {"hf_token": "x"}}}, "passes.ModelBuilder.extra_options.hf_token"),
        ({"InsertBeamSearch": {"adapter_path": "x"}}, "passes.InsertBeamSearch.adapter_path"),
        ({"GraphSurgeries": {"note": "https://hub.example/x"}}, "passes.GraphSurgeries.note"),
        ({"GraphSurgeries": {"note": "../../etc/passwd"}}, "passes.GraphSurgeries.note"),
        ({"GraphSurgeries": {"note": "~/x"}}, "passes.GraphSurgeries.note"),
        ({"GraphSurgeries": {"note": "line\nbreak"}}, "passes.GraphSurgeries.note"),
        ({"GraphSurgeries": {"external_data_name": "/tmp/x"}}, "passes.GraphSurgeries.external_data_name"),
        ({"GraphSurgeries": {"surgeries": [[[[[[[[[1]]]]]]]]]}}, "passes.GraphSurgeries.surgeries"),
    ],
)
def test_what_reaches_outside_of_the_build_is_refused_by_its_key(passes: Any, key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make("onnx", "fp32", {"passes": passes})
    assert caught.value.key.startswith(f"recipe.{key}")


def test_passes_on_the_checkpoint_come_first_and_those_that_read_data_have_the_calibration_text() -> None:
    passes: dict[str, Option] = {"SelectiveMixedPrecision": {}, "first": {"type": "Gptq"}, "GraphSurgeries": SURGERY}
    recipe = make("onnx", "int4", {"passes": passes, "calibration_samples": 64})
    assert [name for name, *_ in olive_passes.on_checkpoint(recipe.options["passes"])] == [
        "SelectiveMixedPrecision",
        "first",
    ]
    assert [name for name, *_ in olive_passes.on_graph(recipe.options["passes"])] == ["GraphSurgeries"]
    assert recipe.calibrated
    assert recipe.toolchain == "onnx"
    assert make("onnx", "fp32", {"passes": {"OnnxStaticQuantization": {}}}).calibrated
    assert not make("onnx", "int4", {"passes": {"Rtn": {}, "GraphSurgeries": SURGERY}}).calibrated


@pytest.mark.parametrize(
    ("quantization", "passes", "refused"),
    [
        ("int4", {"GraphSurgeries": SURGERY, "Gptq": {}}, "passes.Gptq: works on the checkpoint, so it cannot follow"),
        ("int4", {"Gptq": {}, "b": {"type": "Rtn"}}, "passes.b: cannot follow Gptq, after which there is nothing left"),
        ("fp32", {"Gptq": {}}, "passes.Gptq: rounds the weights, which contradicts fp32; use int4"),
        ("int8", {"a": {"type": "Gptq"}}, "passes.a: rounds the weights, which contradicts int8; use int4"),
        ("int4", {"Gptq": {"bits": 8}}, "passes.Gptq.bits: 8 contradicts int4; take it away"),
        (
            "int4",
            {"Gptq": {"data_config": "wikitext"}},
            "passes.Gptq.data_config: is the model's calibration text, and",
        ),
    ],
)
def test_what_contradicts_itself_is_refused_by_its_key(quantization: str, passes: Any, refused: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make("onnx", quantization, {"passes": passes})
    assert str(caught.value).startswith(f"recipe.{refused}")


def test_without_a_pass_that_reads_data_there_is_nothing_to_calibrate() -> None:
    with pytest.raises(RecipeError, match=r"recipe.calibration_samples: only .* by a pass that reads data: Aimet"):
        make("onnx", "int4", {"passes": {"Rtn": {}}, "calibration_samples": 64})


@pytest.mark.toolchain
def test_olive_is_asked_which_passes_and_options_it_has(tmp_path: Path) -> None:
    asked = [
        ["good", "GraphSurgeries", SURGERY],
        ["OnnxPeepholeOptimizer", "OnnxPeepholeOptimizer", {"onnxscript_optimize": True}],
        ["GraphSurgery", "GraphSurgery", {}],
        ["graphsurgeries", "graphsurgeries", {}],
        ["Gptq", "Gptq", {"group_size": 64}],
        ["static", "OnnxStaticQuantization", {}],
        ["QuaRot", "QuaRot", {}],
        ["awq", "AutoAWQQuantizer", {}],
        ["d", "Gptq", {"group_size": 0}],
        ["a", "OnnxPeepholeOptimizer", {"onnxscript_optimise": True}],
        ["b", "GraphSurgeries", {"surgeries": 7}],
        ["c", "GraphSurgeries", {}],
    ]
    stage = Stage(child.CHILDREN / "olive_passes.py", sys.executable, 300.0)
    request = {"passes": asked, "device": "cpu", "provider": "CPUExecutionProvider", **onnx.known_passes()}
    with (tmp_path / "log").open("wb") as log:
        found = asyncio.run(child.run(stage, request, tmp_path, log, lambda _done, _say: None))["faults"]
    assert {name for name, *_ in found} == {"GraphSurgery", "graphsurgeries", "QuaRot", "awq", "a", "b", "c", "d"}
    words = {name: f"{option}: {text}" for name, option, text in found}
    assert words["GraphSurgery"] == ": Olive has no pass 'GraphSurgery'; did you mean 'GraphSurgeries'?"
    assert words["QuaRot"].startswith(": QuaRot gives no checkpoint whose weights could be compared with the source's")
    assert words["awq"].endswith(f"needs autoawq, which {sys.executable} has not; there, pip install autoawq")
    assert words["d"] == ": Gptq refuses these options for CPUExecutionProvider"
    assert words["a"].startswith("onnxscript_optimise: OnnxPeepholeOptimizer has no option 'onnxscript_optimise'; did")
    assert "surgeries: Input should be a valid list" in words["b"]


MANIFEST = """
[fleet]
name = "plant-7"
[models.tiny]
source = "{source}"
[profiles.counter]
runtime = "onnx"
quantization = "int4"
accelerator = "cpu"
memory = "8GB"
recipe = {{ passes = {{ {passes} }} }}
[devices.counter-01]
profile = "counter"
model = "tiny"
"""


@pytest.mark.toolchain
async def test_plan_names_the_profile_and_the_key_of_what_olive_does_not_have(
    tiny_models: Path, tmp_path: Path
) -> None:
    async with service_rig.controller(tmp_path / "state") as fleet:

        async def plan(passes: str) -> operator_pb2.PlanResponse:
            text = MANIFEST.format(source=tiny_models / "llama", passes=passes)
            asked = operator_pb2.PlanRequest(manifest=text, file="fleet.toml", folder=str(tmp_path))
            answer: operator_pb2.PlanResponse = await fleet.operator.Plan(asked, timeout=300)
            return answer

        kept = tmp_path / "state" / "toolchains"
        assert len((await plan("Gptq = {}")).builds) == 1
        assert len(list(kept.glob("passes-*.json"))) == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await plan("Gptq = {}, GraphSurgery = {}")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        where = "fleet.toml: profiles.counter.recipe.passes.GraphSurgery"
        assert caught.value.details() == f"{where}: Olive has no pass 'GraphSurgery'; did you mean 'GraphSurgeries'?"
        assert len(list(kept.glob("passes-*.json"))) == 1  # what is not there may be tomorrow
        assert not list(kept.glob(".asking-*"))
