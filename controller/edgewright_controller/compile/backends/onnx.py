"""ONNX for onnxruntime-genai: Olive's ModelBuilder, by a configuration of our own.

`olive optimize` is not used: for int4 it adds passes that fetch a calibration set. int8 is not a precision of the
builder; it is the fp32 graph with its weights rounded in blocks by a second pass.
"""

from __future__ import annotations

import json
from typing import Any, Final

from edgewright_controller.compile.backends.job import Job
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.compile.recipe_option import Option
from edgewright_controller.compile.source import Source

_PROVIDERS: Final = {
    "cpu": ("cpu", "CPUExecutionProvider"),
    "cuda": ("gpu", "CUDAExecutionProvider"),
    "dml": ("gpu", "DmlExecutionProvider"),
}
_BITS: Final = {"int4": 5, "int8": 9, "fp16": 16, "fp32": 32}
INT8_BLOCK: Final = 32

# A model beyond 2 GB does not fit in the graph's own file.
_WEIGHTS_BESIDE: Final = {
    "save_as_external_data": True,
    "all_tensors_to_one_file": True,
    "external_data_name": "model.onnx.data",
}
# Not part of a model: it holds paths of the machine that built it.
_LEFT_OUT: Final = ("model_config.json",)


def disk_bytes(source: Source, recipe: Recipe) -> int:
    """Olive writes every pass's result to its cache, then copies the last. The embedding may stay in fp32."""
    if source.facts is None:
        return source.bytes
    embedding = source.facts.vocab * source.facts.hidden * 4
    artifact = source.facts.parameters * _BITS[recipe.quantization] // 8 + embedding
    graph = source.facts.parameters * 4 if recipe.quantization == "int8" else 0
    return 3 * artifact + graph


async def build(job: Job) -> None:
    """Build the graph, then take out of it what is of this machine or of one device."""
    options = job.recipe.options
    device, provider = _PROVIDERS[str(options["provider"])]
    request = {
        "source": str(job.staged),
        "out": str(job.out),
        "cache": str(job.scratch / "olive"),
        "device": device,
        "provider": provider,
        "passes": passes(job.recipe.quantization, options),
    }
    await job.run("onnx_build", request, 1.0)
    for name in _LEFT_OUT:
        (job.out / name).unlink(missing_ok=True)
    config = job.out / "genai_config.json"
    config.write_text(json.dumps(neutral(json.loads(config.read_bytes())), indent=4, sort_keys=True))


def passes(quantization: str, options: dict[str, Option]) -> dict[str, Any]:
    """Olive's passes, in order."""
    # The builder trusts code in a checkpoint unless it is told not to.
    build: dict[str, Any] = {"type": "ModelBuilder", "extra_options": {"hf_remote": False, "hf_token": "false"}}
    if quantization == "int8":
        bits = 8
        rounding = {"type": "OnnxBlockWiseRtnQuantization", "bits": bits, "block_size": INT8_BLOCK, "accuracy_level": 4}
        # The rounding pass renames the output that the runtime asks for.
        rename = {"surgeon": "RenameOutputs", "old_names": [f"logits_Q{bits}"], "new_names": ["logits"]}
        return {
            "build": build | {"precision": "fp32"},
            "round": rounding | _WEIGHTS_BESIDE,
            "rename": {"type": "GraphSurgeries", "surgeries": [rename]} | _WEIGHTS_BESIDE,
        }
    build["precision"] = quantization
    if quantization != "int4":
        return {"build": build}
    build["int4_block_size"] = options["block_size"]
    if not options["tie_embeddings"]:
        return {"build": build}
    build["int4_op_types_to_quantize"] = ["MatMul", "Gather"]
    tie = {"type": "GraphSurgeries", "surgeries": [{"surgeon": "TieWordEmbeddings"}]} | _WEIGHTS_BESIDE
    return {"build": build, "tie": tie}


def neutral(genai_config: dict[str, Any]) -> dict[str, Any]:
    """The config without a choice of device: the engine on the device says on what it runs."""
    for part in genai_config.get("model", {}).values():
        if isinstance(part, dict) and "session_options" in part:
            part["session_options"]["provider_options"] = []
    return genai_config
