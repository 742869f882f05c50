"""ONNX for OpenVINO, Intel's runtime for its processors, GPUs and NPUs: Olive's passes from the checkpoint to a graph
of OpenVINO's with an ONNX graph around it, under an interpreter of its own (its exporter needs older libraries).

What onnxruntime does with that on a device is not seen here; the graph within is measured by OpenVINO on a CPU.
"""

from __future__ import annotations

import json
from typing import Any, Final

from edgewright_controller.compile.backends.job import Job
from edgewright_controller.compile.recipe import Recipe

# What the artifact says of itself beside the graphs, as onnx_qnn's does.
FORM: Final = "edgewright.json"


async def build(job: Job) -> None:
    """Export, round, and put the ONNX graph around it."""
    request = {
        "source": str(job.staged),
        "out": str(job.out),
        "cache": str(job.scratch / "olive"),
        "passes": passes(job.recipe),
    }
    made = await job.run("openvino_build", request, 1.0)
    (job.out / FORM).write_text(json.dumps({"provider": "openvino", **made}, indent=4, sort_keys=True))


def passes(recipe: Recipe) -> dict[str, Any]:
    """Olive's passes, in order. Pure."""
    export = {"task": "text-generation-with-past", "library": "transformers", "disable_convert_tokenizer": True}
    return {
        "export": {"type": "OpenVINOOptimumConversion", "extra_args": export, "ov_quant_config": rounding(recipe)},
        "around": {"type": "OpenVINOEncapsulation", "target_device": "cpu"},
    }


def rounding(recipe: Recipe) -> dict[str, Any]:
    """How weights are rounded, in optimum-intel's words. Pure."""
    options = recipe.options
    if recipe.quantization != "int4":
        # int8 is one scale and zero point for each row; said in full, as its own defaults differ by model.
        more = {"sym": False} if recipe.quantization == "int8" else {}
        return {"weight_format": recipe.quantization, **more}
    return {
        "weight_format": "int4",
        "group_size": options["block_size"],
        "sym": options["symmetric"],
        "ratio": 1.0,
        # Without it the embedding and the output layer have 8 bits.
        "all_layers": options["tie_embeddings"],
    }
