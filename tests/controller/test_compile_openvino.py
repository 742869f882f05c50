"""Recipes for OpenVINO: an interpreter of its own that must be named, what is left unproven, and what Olive is told.

OpenVINO itself is not among the packages of the tests: its exporter needs an older transformers. So everything up to
the stages that need it is tried here; docs/models.md says how those were tried by hand.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.compile import child, toolchain
from edgewright_controller.compile.backends import onnx_openvino
from edgewright_controller.compile.child import Stage, StageFailed
from edgewright_controller.compile.recipe import Recipe, check_model, make
from edgewright_controller.compile.recipe_option import Option, RecipeError
from edgewright_controller.config import load
from edgewright_controller.quality.limits import limits
from edgewright_controller.quality.precision import Precision
from tests.controller import service_rig
from tests.controller.small_fleet import SMOLLM2


def _made(quantization: str = "int4", more: Mapping[str, Option] | None = None) -> Recipe:
    return make("onnx", quantization, {"provider": "openvino", **(more or {})})


@pytest.mark.parametrize("quantization", ["int4", "int8", "fp16", "fp32"])
def test_every_precision_is_built_under_its_own_interpreter_and_says_what_is_unproven(quantization: str) -> None:
    recipe = _made(quantization)
    assert recipe.toolchain == toolchain.home(recipe.toolchain) == toolchain.OPENVINO
    assert not recipe.calibrated
    (words,) = recipe.unproven
    assert words.startswith("onnxruntime's OpenVINO provider, and Intel's GPUs and NPUs")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"passes": {"OnnxPeepholeOptimizer": {}}}, "recipe.passes"),
        ({"soc": 60}, "recipe.soc"),
        ({"calibration_samples": 64}, "recipe.calibration_samples"),
    ],
)
def test_what_cannot_be_exported_is_refused_by_its_key(options: dict[str, Option], key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        _made("int4", options)
    assert caught.value.key == key


def test_olive_is_told_in_full_how_weights_are_rounded() -> None:
    assert onnx_openvino.rounding(_made()) == {
        "weight_format": "int4",
        "group_size": 32,
        "sym": False,
        "ratio": 1.0,
        "all_layers": True,
    }
    npu = onnx_openvino.rounding(_made("int4", {"block_size": 128, "symmetric": True, "tie_embeddings": False}))
    assert (npu["group_size"], npu["sym"], npu["all_layers"]) == (128, True, False)
    assert onnx_openvino.rounding(_made("int8")) == {"weight_format": "int8", "sym": False}
    assert onnx_openvino.rounding(_made("fp32")) == {"weight_format": "fp32"}
    passes = onnx_openvino.passes(_made())
    assert [one["type"] for one in passes.values()] == ["OpenVINOOptimumConversion", "OpenVINOEncapsulation"]
    # Nothing passes unjudged: what the tensor stage calls a row with one scale has a limit.
    assert {"int8browz", "int4b32z", "fp32"} <= limits("onnx", Precision.MEDIUM).tensors.keys()


def test_a_block_that_does_not_divide_the_rows_is_refused_by_the_plan_with_one_that_does() -> None:
    check_model(_made(), SMOLLM2)
    check_model(_made("int8"), SMOLLM2)
    with pytest.raises(RecipeError, match=r"recipe.block_size: 128 does not divide rows of 576 .*block_size = 64"):
        check_model(_made("int4", {"block_size": 128}), SMOLLM2)


def test_the_interpreter_must_be_named(tmp_path: Path) -> None:
    file = tmp_path / "controller.toml"
    file.write_text(f'[toolchains]\nopenvino = "{sys.executable}"')
    assert load(file, {}, tmp_path).interpreters[toolchain.OPENVINO] == sys.executable
    file.write_text("")
    unnamed = load(file, {}, tmp_path).interpreters
    with pytest.raises(toolchain.ToolchainMissing, match=r"openvino: not configured: set \[toolchains\] openvino = "):
        toolchain.interpreter_of(toolchain.OPENVINO, unnamed)
    assert toolchain.interpreter_of(toolchain.QNN, unnamed) == unnamed["onnx"]


@pytest.mark.toolchain
def test_an_interpreter_without_openvino_says_what_to_install(tmp_path: Path) -> None:
    """The interpreter of the tests has none."""
    with pytest.raises(toolchain.ToolchainMissing, match=r"has no .*openvino.*pip install 'edgewright\[openvino\]'"):
        toolchain.versions(toolchain.OPENVINO, sys.executable, tmp_path)
    with pytest.raises(StageFailed, match=r"cannot load OpenVINO's exporter .* pip install 'edgewright\[openvino\]'"):
        _stage("openvino_build", {"source": "x", "out": "y", "cache": "z", "passes": {}}, tmp_path)


MANIFEST = """
[fleet]
name = "plant-7"
[models.tiny]
source = "{source}"
[profiles.lobby]
runtime = "onnx"
quantization = "{quantization}"
accelerator = "openvino"
memory = "8GB"
quality = {{ allow_unproven = true }}
[devices.lobby-01]
profile = "lobby"
model = "tiny"
"""


@pytest.mark.toolchain
@pytest.mark.parametrize("quantization", ["int4", "auto"])
async def test_plan_says_that_the_interpreter_is_not_configured(
    tiny_models: Path, tmp_path: Path, quantization: str
) -> None:
    async with service_rig.controller(tmp_path / "state") as fleet:
        text = MANIFEST.format(source=tiny_models / "llama", quantization=quantization)
        asked = operator_pb2.PlanRequest(manifest=text, file="fleet.toml", folder=str(tmp_path))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await fleet.operator.Plan(asked, timeout=120)
        assert (caught.value.details() or "").startswith("openvino: not configured: set [toolchains] openvino = ")


@pytest.mark.toolchain
def test_ids_and_chats_are_those_of_the_devices_engine_although_it_cannot_load_the_graph(
    tiny_models: Path, tmp_path: Path
) -> None:
    source, artifact = tiny_models / "llama", tmp_path / "artifact"
    artifact.mkdir()
    for name in ("chat_template.jinja", "config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, artifact / name)
    # As Olive writes it; the graph that it names needs OpenVINO and is not even there.
    names = ("input_ids", "attention_mask", "position_ids")
    decoder = {"filename": "openvino_model.onnx", "head_size": 16, "hidden_size": 64, "num_attention_heads": 4}
    decoder |= {"num_hidden_layers": 2, "num_key_value_heads": 2, "session_options": {"provider_options": []}}
    decoder |= {"inputs": {name: name for name in names}, "outputs": {"logits": "logits"}}
    model = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "context_length": 2048, "vocab_size": 1024}
    settings = {"model": {**model, "type": "llama", "decoder": decoder}, "search": {"max_length": 2048}}
    (artifact / "genai_config.json").write_text(json.dumps(settings))
    words = {"texts": {"a": "Hello, world"}, "chats": {"b": [{"role": "user", "content": "Hi"}]}}
    wanted = _stage("source_parity", {"source": str(source), **words}, tmp_path)
    found = _stage("openvino_parity", {"artifact": str(artifact), **words}, tmp_path)
    assert found["ids"] == wanted["ids"]
    assert found["chats"] == wanted["chats"]
    assert len(found["ids"]) == 2
    assert not (artifact / "openvino_model.onnx").exists()


def _stage(script: str, request: dict[str, Any], folder: Path) -> dict[str, Any]:
    one = Stage(child.CHILDREN / f"{script}.py", sys.executable, 300.0)
    with (folder / f"{script}.log").open("wb") as log:
        return asyncio.run(child.run(one, request, folder, log, lambda _done, _say: None))
