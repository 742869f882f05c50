"""Checkpoint folder → the same after Olive's passes that work on checkpoints, in order, which may round its weights.

Request: {"source": folder, "out": folder, "cache": scratch folder, "device": "cpu" | "gpu", "provider":
"CPUExecutionProvider", "passes": [[name, type, options], …], "usual": options where a pass knows of them and is told
nothing else, "before" and "reading": see olive_passes.py, "calibration": {"text": file, "samples": pieces, "length":
tokens} or null}
Result: {"bits": of the rounded weights, or null where there are none}
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import olive_calibration
from olive_passes import described, refuse
from stage import Say, StageError, run


def apply(request: dict[str, Any], say: Say) -> dict[str, Any]:
    refuse(request, say)
    import torch
    from olive.workflows import run as olive_run

    # How many add up a matrix of activations shows in its last digits, and so in the artifact's bytes.
    torch.set_num_threads(1)
    passes = described(request, request["usual"])
    say(0.2, "running " + ", ".join(passes))
    source, half = request["source"], Path(f"{request['out']}.olive")
    accelerator = {"device": request["device"], "execution_providers": [request["provider"]]}
    output = olive_run(
        {
            "input_model": {"type": "HfModel", "model_path": source, "load_kwargs": {"trust_remote_code": False}},
            "systems": {"local": {"type": "LocalSystem", "accelerators": [accelerator]}},
            "host": "local",
            "target": "local",
            "data_configs": olive_calibration.data_configs(request, source),
            "passes": passes,
            "no_artifacts": True,
            "evaluate_input_model": False,
            "output_dir": str(half),
            "cache_dir": request["cache"],
            "log_severity_level": 2,
        }
    )
    if not output.has_output_model():
        raise StageError(f"Olive's {', '.join(passes)} ended without a model; its own words are in the log")
    configs = list(half.rglob("config.json"))
    if len(configs) != 1:
        raise StageError(f"after {', '.join(passes)} there are {len(configs)} checkpoints, not one")
    os.rename(configs[0].parent, request["out"])
    config = json.loads(Path(request["out"], "config.json").read_bytes())
    return {"bits": (config.get("quantization_config") or {}).get("bits")}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(run(apply))
