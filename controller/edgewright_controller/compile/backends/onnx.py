"""ONNX for onnxruntime-genai: Olive's ModelBuilder, by a configuration of our own.

`olive optimize` is not used: for int4 it adds passes that fetch a calibration set. The float graph is shared between
recipes: int8 and int4 are that graph with its weights rounded in blocks. Further passes of a recipe come last, but for
those that work on the checkpoint: these come first, and their graph is nobody else's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from edgewright_contract import canonical, digest
from edgewright_controller.compile import olive_passes
from edgewright_controller.compile.backends import onnx_openvino, onnx_qnn
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

# Of the calibration text, where the recipe does not say: pieces, and tokens of each.
_TEXT: Final = {"samples": 32, "length": 128}

# Not part of a model: they hold paths of the machine that built it.
_LEFT_OUT: Final = ("model_config.json", "openvino_config.json")


def disk_bytes(source: Source, recipe: Recipe) -> int:
    """Olive writes what it makes to its cache, then copies it; the float graph stays. The embedding may stay a float,
    and every run of further passes writes the artifact twice more, or the checkpoint."""
    if source.facts is None:
        return source.bytes
    embedding = source.facts.vocab * source.facts.hidden * 4
    graph = source.facts.parameters * 4 + embedding  # the output layer stands in it by itself
    artifact = source.facts.parameters * _BITS[recipe.quantization] // 8 + embedding
    checkpoint = 2 * source.bytes if olive_passes.on_checkpoint(recipe.options["passes"]) else 0
    return 2 * graph + artifact * (3 if recipe.options["passes"] else 1) + checkpoint


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
    if recipe.options["provider"] == "openvino":
        await onnx_openvino.build(job)
        _finish(job.out)
        return
    further = olive_passes.on_graph(recipe.options["passes"])
    made = job.scratch / "plain" if further else job.out
    async with _graph(job) as whole:
        if recipe.quantization in ("fp16", "fp32"):
            await asyncio.to_thread(copy, whole, made)
        else:
            await job.run("onnx_round", {"parent": str(whole), "out": str(made), **rounding(recipe)}, 0.9)
    if further:
        request = {"parent": str(made), "source": str(job.staged), "out": str(job.out), **_further(job, further)}
        await job.run("onnx_passes", request, 1.0)
    _finish(job.out)


def _finish(out: Path) -> None:
    """Take out what is of this machine or of one device."""
    _without_machine(out)
    config = out / "genai_config.json"
    said = neutral(json.loads(config.read_bytes()))
    config.write_text(json.dumps(said, indent=4, sort_keys=True))


@contextlib.asynccontextmanager
async def _graph(job: Job) -> AsyncIterator[Path]:
    """The graph that is to be rounded: a float one, in whole or for what the checkpoint's passes left. Held until the
    block ends."""
    first = olive_passes.on_checkpoint(job.recipe.options["passes"])
    if not first:

        async def make(path: Path) -> None:
            await _olive(job, job.staged, path, passes(graph_precision(job.recipe)), 0.7)

        async with job.intermediates.hold(_intermediate(job), make) as whole:
            yield whole
        return
    place = job.scratch / "before"
    checkpoint, whole = place / "source", place / "graph"
    await asyncio.to_thread(place.mkdir)
    rounded = rounding(job.recipe)
    usual = {"bits": rounded["bits"], "group_size": rounded["block"], "sym": rounded["symmetric"]}
    request = {"source": str(job.staged), "out": str(checkpoint), "usual": usual, **_further(job, first)}
    done = await job.run("onnx_checkpoint", request, 0.4)
    precision = graph_precision(job.recipe)
    if done["bits"] is None:
        made_by = passes(precision)
    else:
        # The builder leaves alone what the checkpoint has in floats; its own rounding is another one than ours.
        only = {"int4_op_types_to_quantize": ["Gather"], "int4_nodes_to_exclude": ["/model/embed_tokens/Gather"]}
        accuracy = {"int4_accuracy_level": rounded["accuracy"]} if rounded["accuracy"] else {}
        made_by = passes("int4", **only, **accuracy)
    await _olive(job, checkpoint, whole, made_by, 0.7)
    yield whole


def _further(job: Job, further: list[Any]) -> dict[str, Any]:
    """The rest of a request of the stages that run a recipe's passes."""
    options, text = job.recipe.options, None
    if job.calibration is not None and olive_passes.reads_text(further):
        number = {name: options.get(f"calibration_{name}", default) for name, default in _TEXT.items()}
        text = {"text": str(job.calibration.path), **number}
    return {"passes": further, **known_passes(), "calibration": text, **_machine(job)}


def known_passes() -> dict[str, Any]:
    """Which types may work on a checkpoint, and which read the calibration text."""
    return {"before": sorted(olive_passes.BEFORE_GRAPH), "reading": sorted(olive_passes.READING)}


def _without_machine(out: Path) -> None:
    for name in _LEFT_OUT:
        (out / name).unlink(missing_ok=True)


async def _olive(job: Job, source: Path, out: Path, by: dict[str, Any], until: float) -> None:
    request = {"source": str(source), "out": str(out), "passes": by, **_machine(job)}
    await job.run("onnx_build", request, until)


def _machine(job: Job) -> dict[str, str]:
    return {"cache": str(job.scratch / "olive"), **accelerator(job.recipe)}


def accelerator(recipe: Recipe) -> dict[str, str]:
    """For what Olive builds, in its own words."""
    device, provider = _PROVIDERS[recipe.options["provider"]]
    return {"device": device, "provider": provider}


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


def passes(precision: str, **more: Any) -> dict[str, Any]:
    """Olive's passes for what it makes from the checkpoint."""
    # The builder trusts code in a checkpoint unless it is told not to.
    options = {"hf_remote": False, "hf_token": "false"}
    return {"build": {"type": "ModelBuilder", "precision": precision, **more, "extra_options": options}}


def neutral(genai_config: dict[str, Any]) -> dict[str, Any]:
    """The config without a choice of device: the engine on the device says on what it runs."""
    for part in genai_config.get("model", {}).values():
        if isinstance(part, dict) and "session_options" in part:
            part["session_options"]["provider_options"] = []
    return genai_config
