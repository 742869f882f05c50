"""ONNX folder for onnxruntime-genai → the same with further Olive passes over its graph, in order.

Request: {"parent": folder, "source": folder of the checkpoint, "out": folder, "cache": scratch folder, "device": "cpu"
or "gpu", "provider": "CPUExecutionProvider", "passes": [[name, type, options], …], "before" and "reading": see
olive_passes.py, "calibration": {"text": file, "samples": pieces, "length": tokens} or null}
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import olive_calibration
from olive_passes import described, refuse
from stage import Say, StageError, run

# What a pass does with the weights unless it is told: a graph of more than 2 GB does not fit in its own file.
_BESIDE = {"save_as_external_data": True, "all_tensors_to_one_file": True, "external_data_name": "model.onnx.data"}


def apply(request: dict[str, Any], say: Say) -> dict[str, Any]:
    refuse(request, say)
    from olive.workflows import run as olive_run

    parent, out = Path(request["parent"]), Path(request["out"])
    settings = json.loads((parent / "genai_config.json").read_bytes())
    graph = settings["model"]["decoder"]["filename"]
    passes = described(request, _BESIDE)
    say(0.2, "running " + ", ".join(passes))
    accelerator = {"device": request["device"], "execution_providers": [request["provider"]]}
    output = olive_run(
        {
            "input_model": {"type": "OnnxModel", "model_path": str(parent), "onnx_file_name": graph},
            "systems": {"local": {"type": "LocalSystem", "accelerators": [accelerator]}},
            "host": "local",
            "target": "local",
            "data_configs": olive_calibration.data_configs(request, request["source"]),
            "passes": passes,
            "no_artifacts": True,
            "evaluate_input_model": False,
            "output_dir": request["out"],
            "cache_dir": request["cache"],
            "log_severity_level": 2,
        }
    )
    if not output.has_output_model():
        raise StageError(f"Olive's {', '.join(passes)} ended without a model; its own words are in the log")
    made = [file.name for file in out.glob("*.onnx")]
    if len(made) != 1:
        raise StageError(f"after {', '.join(passes)} there are {len(made)} graphs; a device serves one")
    settings["model"]["decoder"]["filename"] = made[0]
    for file in parent.iterdir():
        # The weights beside the old graph are not the new one's.
        if file.suffix not in (".onnx", ".data") and not (out / file.name).exists():
            shutil.copyfile(file, out / file.name)
    (out / "genai_config.json").unlink()
    (out / "genai_config.json").write_text(json.dumps(settings, indent=4, sort_keys=True))
    return {}


if __name__ == "__main__":
    sys.exit(run(apply))
