"""ONNX for a Qualcomm NPU: Olive's chain of passes from the checkpoint to a graph compiled for one system on a chip.

`olive optimize` has this chain too, but calibrates on a GPU with a data set that it fetches, and compiles for one SoC.
The chain is cut in two: what the first half makes is measured, as a CPU computes it.
"""

from __future__ import annotations

import json
from typing import Any, Final

from edgewright_controller.compile import qualcomm
from edgewright_controller.compile.backends.job import Job
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.recipe import Recipe

# What the artifact says of itself beside the graphs, for whoever must tell whether a device can load them.
FORM: Final = "edgewright.json"
# Tokens of a prompt that are computed at once.
STEP_TOKENS: Final = 64
_BESIDE: Final = {"save_as_external_data": True}
# These are the runtime's own, and quantised or not as they are.
_LEFT_OUT: Final = ["GatherBlockQuantized", "GroupQueryAttention", "MatMulNBits"]
_SURGEONS: Final = ("RemoveRopeMultiCache", "AttentionMaskToSequenceLengths", "SimplifiedLayerNormToL2Norm")


async def build(job: Job) -> None:
    """Quantise with the calibration text, then compile. The quantised graph stays for the gate."""
    if job.calibration is None:
        raise StageFailed("onnx_qnn", "a build for qnn needs a calibration text", None, ())
    quantised = job.scratch / "uncompiled"
    options, cache = job.recipe.options, str(job.scratch / "olive")
    text = {"samples": options["calibration_samples"], "length": options["calibration_length"]}
    request: dict[str, Any] = {
        "source": str(job.staged),
        "out": str(quantised),
        "cache": cache,
        "passes": quantising(job.recipe),
        "calibration": {"text": str(job.calibration.path), **text},
    }
    await job.run("onnx_qnn", request, 0.6)
    request = {"parent": str(quantised), "out": str(job.out), "cache": cache, "passes": compiling(job.recipe)}
    made = await job.run("onnx_qnn", request, 1.0)
    (job.out / FORM).write_text(json.dumps(form(job.recipe, made), indent=4, sort_keys=True))


def quantising(recipe: Recipe) -> dict[str, Any]:
    """Olive's passes from the checkpoint to the quantised graph, in order."""
    builder = {"hf_remote": False, "hf_token": "false"}
    return {
        "gptq": {"type": "Gptq", "bits": 4, "sym": True, "group_size": -1, "data_config": "calibration"},
        "split_info": {"type": "CaptureSplitInfo", "num_splits": 1, "unique_embeds_lm_head_splits": True},
        "build": {
            "type": "ModelBuilder",
            "precision": "int4",
            "int4_block_size": recipe.options["block_size"],
            "int4_accuracy_level": 4,
            "int4_op_types_to_quantize": ["MatMul", "Gather"],
            "extra_options": builder,
        },
        "qdq": {
            "type": "MatMulNBitsToQDQ",
            "use_int4": True,
            "add_zero_point": True,
            "nodes_to_exclude": ["/lm_head/MatMul_Q4"],
            **_BESIDE,
        },
        "surgery": {"type": "GraphSurgeries", "surgeries": [{"surgeon": name} for name in _SURGEONS], **_BESIDE},
        "activations": {
            "type": "OnnxStaticQuantization",
            "data_config": "calibration",
            "activation_type": "uint16",
            "precision": "uint8",
            "calibration_providers": ["CPUExecutionProvider"],
            "quant_preprocess": True,
            "op_types_to_exclude": _LEFT_OUT,
            **_BESIDE,
        },
    }


def compiling(recipe: Recipe) -> dict[str, Any]:
    """Olive's passes from the quantised graph to the compiled one, in order."""
    soc = recipe.options["soc"]
    provider = {
        "htp_performance_mode": "burst",
        "htp_graph_finalization_optimization_mode": "3",
        "soc_model": str(soc),
        "htp_arch": str(qualcomm.arch_of(soc, recipe.options["htp_arch"])),
    }
    return {
        "split": {"type": "SplitModel"},
        "static": {"type": "StaticLLM", "batch_size": 1, "context_length": STEP_TOKENS},
        # Sharing weights between the two graphs makes the compiler crash on a host without the NPU.
        "compile": {"type": "EPContextBinaryGenerator", "provider_options": provider, "weight_sharing": False},
        "compose": {"type": "ComposeOnnxModels"},
    }


def form(recipe: Recipe, made: dict[str, Any]) -> dict[str, Any]:
    """What a device must have to load the artifact."""
    soc = recipe.options["soc"]
    return {"provider": "qnn", "soc_model": soc, "htp_arch": qualcomm.arch_of(soc, recipe.options["htp_arch"]), **made}
