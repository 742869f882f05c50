"""ONNX for onnxruntime-genai: Olive's ModelBuilder, by a configuration of our own.

`olive optimize` is not used: for int4 it adds passes that fetch a calibration set. The fp32 graph is shared between
recipes: int8, and int4 on a CPU, are that graph with its weights rounded in blocks, as ModelBuilder itself does it.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from edgewright_contract import canonical, digest
from edgewright_controller.compile.backends.job import Job
from edgewright_controller.compile.intermediates import copy
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
ACCURACY: Final = 4  # MatMulNBits computes with activations of 8 bits
# Raised when the fp32 graph gets other bytes; the build key has its own number.
GRAPH: Final = 2

# A model beyond 2 GB does not fit in the graph's own file.
_WEIGHTS_BESIDE: Final = {
    "save_as_external_data": True,
    "all_tensors_to_one_file": True,
    "external_data_name": "model.onnx.data",
}
# Not part of a model: it holds paths of the machine that built it.
_LEFT_OUT: Final = ("model_config.json",)


def disk_bytes(source: Source, recipe: Recipe) -> int:
    """Olive writes every pass's result to its cache, then copies the last; the fp32 graph stays. The embedding may stay
    in fp32."""
    if source.facts is None:
        return source.bytes
    embedding = source.facts.vocab * source.facts.hidden * 4
    if shares_graph(recipe):
        graph = source.facts.parameters * 4 + embedding  # the output layer stands in it by itself
        return 2 * graph + source.facts.parameters * _BITS[recipe.quantization] // 8 + embedding
    return 3 * (source.facts.parameters * _BITS[recipe.quantization] // 8 + embedding)


def shares_graph(recipe: Recipe) -> bool:
    """Whether the recipe begins with the fp32 graph. On an accelerator int4 is rounded from fp16."""
    return recipe.quantization in ("fp32", "int8") or (
        recipe.quantization == "int4" and recipe.options["provider"] == "cpu"
    )


async def build(job: Job) -> None:
    """Build the graph, or round the shared one, then take out of it what is of this machine or of one device."""
    recipe = job.recipe
    if not shares_graph(recipe):
        await _olive(job, job.out, passes(recipe.quantization, recipe.options), 1.0)
    else:

        async def graph(path: Path) -> None:
            await _olive(job, path, passes("fp32", recipe.options), 0.7)

        async with job.intermediates.hold(_intermediate(job), graph) as whole:
            if recipe.quantization == "fp32":
                await asyncio.to_thread(copy, whole, job.out)
            else:
                await job.run("onnx_round", {"parent": str(whole), "out": str(job.out), **rounding(recipe)}, 1.0)
    for name in _LEFT_OUT:
        (job.out / name).unlink(missing_ok=True)
    config = job.out / "genai_config.json"
    said = neutral(json.loads(config.read_bytes()))
    config.write_text(json.dumps(said, indent=4, sort_keys=True))


async def _olive(job: Job, out: Path, olive_passes: dict[str, Any], until: float) -> None:
    device, provider = _PROVIDERS[str(job.recipe.options["provider"])]
    request = {
        "source": str(job.staged),
        "out": str(out),
        "cache": str(job.scratch / "olive"),
        "device": device,
        "provider": provider,
        "passes": olive_passes,
    }
    await job.run("onnx_build", request, until)


def rounding(recipe: Recipe) -> dict[str, Any]:
    """How the shared graph's weights are rounded: the rest of onnx_round's request."""
    if recipe.quantization == "int8":
        return {"bits": 8, "block": INT8_BLOCK, "symmetric": True, "embedding": True, "accuracy": ACCURACY}
    options = recipe.options
    rest = {"embedding": options["tie_embeddings"], "accuracy": ACCURACY}
    return {"bits": 4, "block": options["block_size"], "symmetric": True, **rest}


def _intermediate(job: Job) -> str:
    shaped_by = {
        "graph": GRAPH,
        "source": job.source.digest,
        "provider": job.recipe.options["provider"],
        "versions": dict(job.versions),
    }
    return f"{digest.of_bytes(canonical.encode(shaped_by))}-onnx"  # Olive takes a name that ends in .onnx for a file


def passes(quantization: str, options: dict[str, Option]) -> dict[str, Any]:
    """Olive's passes for what it makes from the checkpoint, in order."""
    # The builder trusts code in a checkpoint unless it is told not to.
    build: dict[str, Any] = {"type": "ModelBuilder", "extra_options": {"hf_remote": False, "hf_token": "false"}}
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
