"""Checkpoint folder → ONNX folder for onnxruntime-genai, by one Olive pass that is given as configuration.

Request: {"source": folder, "out": folder, "cache": scratch folder, "device": "cpu" | "gpu",
"provider": "CPUExecutionProvider", "passes": Olive's `passes`}
"""

from __future__ import annotations

import sys
from typing import Any

import architecture
import onnx_cures
from stage import Say, StageError, run


def build(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading Olive")
    from olive.workflows import run as olive_run

    onnx_cures.cure()
    say(0.2, "building")
    accelerator = {"device": request["device"], "execution_providers": [request["provider"]]}
    try:
        output = olive_run(
            {
                "input_model": {
                    "type": "HfModel",
                    "model_path": request["source"],
                    "load_kwargs": {"trust_remote_code": False},
                },
                "systems": {"local": {"type": "LocalSystem", "accelerators": [accelerator]}},
                "host": "local",
                "target": "local",
                "passes": request["passes"],
                "no_artifacts": True,
                "evaluate_input_model": False,
                "output_dir": request["out"],
                "cache_dir": request["cache"],
                "log_severity_level": 2,
            }
        )
    except NotImplementedError as error:
        raise architecture.unknown("onnxruntime-genai's builder", request["source"]) from error
    # A failed pass does not make Olive fail.
    if not output.has_output_model():
        raise StageError("Olive ended without a model; its own words are in the log")
    return {}


if __name__ == "__main__":
    sys.exit(run(build))
