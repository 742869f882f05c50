"""What a recipe may add to Olive's passes: told apart by form here, and by what Olive has under its own interpreter."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from edgewright_controller.compile import child
from edgewright_controller.compile.child import Stage
from edgewright_controller.compile.recipe import make
from edgewright_controller.compile.recipe_option import RecipeError

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


@pytest.mark.toolchain
def test_olive_is_asked_which_passes_and_options_it_has(tmp_path: Path) -> None:
    asked = [
        ["good", "GraphSurgeries", SURGERY],
        ["OnnxPeepholeOptimizer", "OnnxPeepholeOptimizer", {"onnxscript_optimize": True}],
        ["GraphSurgery", "GraphSurgery", {}],
        ["graphsurgeries", "graphsurgeries", {}],
        ["Gptq", "Gptq", {}],
        ["a", "OnnxPeepholeOptimizer", {"onnxscript_optimise": True}],
        ["b", "GraphSurgeries", {"surgeries": 7}],
        ["c", "GraphSurgeries", {}],
    ]
    stage = Stage(child.CHILDREN / "olive_passes.py", sys.executable, 300.0)
    request = {"passes": asked, "device": "cpu", "provider": "CPUExecutionProvider"}
    with (tmp_path / "log").open("wb") as log:
        found = asyncio.run(child.run(stage, request, tmp_path, log, lambda _done, _say: None))["faults"]
    assert {name for name, *_ in found} == {"GraphSurgery", "graphsurgeries", "Gptq", "a", "b", "c"}
    words = {name: f"{option}: {text}" for name, option, text in found}
    assert words["GraphSurgery"] == ": Olive has no pass 'GraphSurgery'; did you mean 'GraphSurgeries'?"
    assert "works on a checkpoint" in words["Gptq"]
    assert words["a"].startswith("onnxscript_optimise: OnnxPeepholeOptimizer has no option 'onnxscript_optimise'; did")
    assert "surgeries: Input should be a valid list" in words["b"]
