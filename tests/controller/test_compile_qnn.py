"""Recipes for a Qualcomm NPU: which SoC, what calibrates, what is left unproven, and the chain of passes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from edgewright_controller.compile import child, toolchain
from edgewright_controller.compile.backends import onnx_qnn
from edgewright_controller.compile.build_key import build_key
from edgewright_controller.compile.child import Stage, StageFailed
from edgewright_controller.compile.recipe import Recipe, make
from edgewright_controller.compile.recipe_option import Option, RecipeError

SNAPDRAGON: dict[str, Option] = {"provider": "qnn", "soc": "SC8380XP"}


def _made(**more: Option) -> Recipe:
    return make("onnx", "int4", SNAPDRAGON | more)


def test_a_soc_is_one_whether_by_name_or_by_number_and_knows_its_processor() -> None:
    assert _made() == _made(soc=60)
    assert _made() != _made(soc="sm8650")
    provider = onnx_qnn.compiling(_made())["compile"]["provider_options"]
    assert (provider["soc_model"], provider["htp_arch"]) == ("60", "73")
    provider = onnx_qnn.compiling(_made(soc=69, htp_arch="v79"))["compile"]["provider_options"]
    assert (provider["soc_model"], provider["htp_arch"]) == ("69", "79")
    assert onnx_qnn.form(_made(), {"opset": 21}) == {"provider": "qnn", "soc_model": 60, "htp_arch": 73, "opset": 21}


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"provider": "qnn"}, "recipe.soc"),
        ({"provider": "qnn", "soc": "snapdragon"}, "recipe.soc"),
        ({"provider": "qnn", "soc": 0}, "recipe.soc"),
        ({"provider": "qnn", "soc": True}, "recipe.soc"),
        ({"provider": "qnn", "soc": 69}, "recipe.htp_arch"),
        ({"provider": "qnn", "soc": 60, "htp_arch": 75}, "recipe.htp_arch"),
        ({"provider": "qnn", "soc": 60, "htp_arch": "v1"}, "recipe.htp_arch"),
        ({"provider": "qnn", "soc": 60, "calibration_samples": 3}, "recipe.calibration_samples"),
        ({"provider": "qnn", "soc": 60, "calibration_length": 8}, "recipe.calibration_length"),
        ({"provider": "qnn", "soc": 60, "passes": {"OnnxPeepholeOptimizer": {}}}, "recipe.passes"),
        ({"provider": "qnn", "soc": 60, "symmetric": True}, "recipe.symmetric"),
        ({"provider": "cpu", "soc": 60}, "recipe.soc"),
        ({"provider": "cpu", "calibration_samples": 64}, "recipe.calibration_samples"),
    ],
)
def test_what_cannot_be_compiled_for_an_npu_is_refused_by_its_key(options: dict[str, Option], key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        make("onnx", "int4", options)
    assert caught.value.key == key


def test_other_precisions_than_int4_are_refused() -> None:
    for quantization in ("int8", "fp16", "fp32"):
        with pytest.raises(RecipeError, match=r"quantization: .* cannot be made for qnn; it takes int4"):
            make("onnx", quantization, {"provider": "qnn"})


def test_the_calibration_text_decides_the_bytes_and_the_compiled_graph_is_unproven() -> None:
    recipe, versions = _made(), {"onnxruntime-qnn": "2.7.0"}
    assert recipe.toolchain == toolchain.QNN
    assert recipe.calibrated
    assert build_key("1" * 64, recipe, versions, "2" * 64) != build_key("1" * 64, recipe, versions, "3" * 64)
    (words,) = recipe.unproven
    assert "SC8380XP (SoC 60) only" in words
    assert not make("onnx", "int4").calibrated


PIECES = """
import json, sys
sys.path.insert(0, sys.argv[1])
import olive_calibration
from stage import StageError
try:
    print(json.dumps(olive_calibration.pieces(sys.argv[3], sys.argv[2], 4, 8)))
except StageError as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.toolchain
def test_the_text_is_cut_into_pieces_from_all_over_it_and_too_little_is_refused(tiny_models: Path) -> None:
    def cut(text: str) -> Any:
        import json
        import subprocess

        command = [sys.executable, "-c", PIECES, str(child.CHILDREN), str(tiny_models / "llama"), text]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return json.loads(done.stdout.strip().splitlines()[-1])

    found = cut(" ".join(str(number) for number in range(400)))
    assert [len(piece) for piece in found] == [8, 8, 8, 8]
    assert len({tuple(piece) for piece in found}) == 4
    assert "the recipe wants 4: name a longer text as `calibration` of the model" in cut("few words")


@pytest.mark.toolchain
def test_without_qualcomms_compiler_the_toolchain_says_what_to_install(tmp_path: Path) -> None:
    """The interpreter of the tests has none."""
    with pytest.raises(
        toolchain.ToolchainMissing, match=r"has no onnxruntime-qnn; there, pip install 'edgewright\[qnn\]'"
    ):
        toolchain.versions(toolchain.QNN, sys.executable, tmp_path)
    stage = Stage(child.CHILDREN / "onnx_qnn.py", sys.executable, 300.0)
    with (tmp_path / "log").open("wb") as log, pytest.raises(StageFailed, match=r"pip install 'edgewright\[qnn\]'"):
        asyncio.run(child.run(stage, {"source": "x"}, tmp_path, log, lambda _done, _say: None))
