"""ONNX for onnxruntime-genai: Olive's ModelBuilder, by a configuration of our own.

`olive optimize` is not used: for int4 it adds passes that fetch a calibration set. The float graph is shared between
recipes: int8 and int4 are that graph with its weights rounded in blocks. Further passes of a recipe come last.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

from edgewright_contract import canonical, digest
from edgewright_controller.compile.backends import onnx_qnn
from edgewright_controller.compile.backends.job import Job
from edgewright_controller.compile.intermediates import copy
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.compile.source import Source

_PROVIDERS: Final = {
    "cpu": ("cpu", "CPUExecutionProvider"),
    "cuda": ("gpu", "CUDAExecutionProvider"),
    "dml": ("gpu", "DmlExecutionProvider"),
    "webgpu": ("gpu", "WebGpuExecutionProvider"),
}
_BITS: Final = {"int4": 5, "int8": 9, "fp16": 16, "fp32": 32}
INT8_BLOCK: Final = 32
# MatMulNBits computes with activations of 8 bits; kernels of other providers do as they do.
ACCURACY: Final = {"cpu": 4, "webgpu": 4}
# Raised when the float graph gets other bytes; the build key has its own number.
GRAPH: Final = 2

# Not part of a model: it holds paths of the machine that built it.
_LEFT_OUT: Final = ("model_config.json",)


def disk_bytes(source: Source, recipe: Recipe) -> int:
    """Olive writes what it makes to its cache, then copies it; the float graph stays. The embedding may stay a float,
    and every run of further passes writes the artifact twice more."""
    if source.facts is None:
        return source.bytes
    embedding = source.facts.vocab * source.facts.hidden * 4
    graph = source.facts.parameters * 4 + embedding  # the output layer stands in it by itself
    artifact = source.facts.parameters * _BITS[recipe.quantization] // 8 + embedding
    return 2 * graph + artifact * (3 if recipe.options["passes"] else 1)


def graph_precision(recipe: Recipe) -> str:
    """Of the float graph from which the recipe begins. On an accelerator int4 computes in float16."""
    accelerated = recipe.options["provider"] != "cpu"
    return "fp16" if accelerated and recipe.quantization in ("int4", "fp16") else "fp32"


async def build(job: Job) -> None:
    """Build the float graph, or take the shared one; round it, run what the recipe adds, then take out of it what is
    of this machine or of one device."""
    recipe = job.recipe
    if recipe.options["provider"] == "qnn":
        await onnx_qnn.build(job)
        _without_machine(job.out)
        return
    further = recipe.options["passes"]
    made = job.scratch / "plain" if further else job.out

    async def graph(path: Path) -> None:
        await _olive(job, path, passes(graph_precision(recipe)), 0.7)

    async with job.intermediates.hold(_intermediate(job), graph) as whole:
        if recipe.quantization in ("fp16", "fp32"):
            await asyncio.to_thread(copy, whole, made)
        else:
            await job.run("onnx_round", {"parent": str(whole), "out": str(made), **rounding(recipe)}, 0.9)
    if further:
        request = {"parent": str(made), "out": str(job.out), "passes": further, **_machine(job)}
        await job.run("onnx_passes", request, 1.0)
    _without_machine(job.out)
    config = job.out / "genai_config.json"
    said = neutral(json.loads(config.read_bytes()))
    config.write_text(json.dumps(said, indent=4, sort_keys=True))


def _without_machine(out: Path) -> None:
    for name in _LEFT_OUT:
        (out / name).unlink(missing_ok=True)


async def _olive(job: Job, out: Path, olive_passes: dict[str, Any], until: float) -> None:
    request = {"source": str(job.staged), "out": str(out), "passes": olive_passes, **_machine(job)}
    await job.run("onnx_build", request, until)


def _machine(job: Job) -> dict[str, str]:
    device, provider = _PROVIDERS[job.recipe.options["provider"]]
    return {"cache": str(job.scratch / "olive"), "device": device, "provider": provider}


def rounding(recipe: Recipe) -> dict[str, Any]:
    """How the graph's weights are rounded: the rest of onnx_round's request."""
    options = recipe.options
    accuracy = ACCURACY.get(options["provider"], 0)
    if recipe.quantization == "int8":
        return {"bits": 8, "block": INT8_BLOCK, "symmetric": True, "embedding": True, "accuracy": accuracy}
    rest = {"symmetric": options["symmetric"], "embedding": options["tie_embeddings"], "accuracy": accuracy}
    return {"bits": 4, "block": options["block_size"], **rest}


def _intermediate(job: Job) -> str:
    shaped_by = {
        "graph": GRAPH,
        "source": job.source.digest,
        "precision": graph_precision(job.recipe),
        "provider": job.recipe.options["provider"],
        "versions": dict(job.versions),
    }
    return f"{digest.of_bytes(canonical.encode(shaped_by))}-onnx"  # Olive takes a name that ends in .onnx for a file


def passes(precision: str) -> dict[str, Any]:
    """Olive's passes for what it makes from the checkpoint."""
    # The builder trusts code in a checkpoint unless it is told not to.
    options = {"hf_remote": False, "hf_token": "false"}
    return {"build": {"type": "ModelBuilder", "precision": precision, "extra_options": options}}


def neutral(genai_config: dict[str, Any]) -> dict[str, Any]:
    """The config without a choice of device: the engine on the device says on what it runs."""
    for part in genai_config.get("model", {}).values():
        if isinstance(part, dict) and "session_options" in part:
            part["session_options"]["provider_options"] = []
    return genai_config
