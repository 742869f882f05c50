"""ONNX folder for onnxruntime-genai → the same with further Olive passes over its graph, in order.

Request: {"parent": folder, "out": folder, "cache": scratch folder, "device": "cpu" | "gpu", "provider":
"CPUExecutionProvider", "passes": [[name, type, options], …]}
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from olive_passes import check
from stage import Say, StageError, run

# What a pass does with the weights unless it is told: a graph of more than 2 GB does not fit in its own file.
_BESIDE = {"save_as_external_data": True, "all_tensors_to_one_file": True, "external_data_name": "model.onnx.data"}


def apply(request: dict[str, Any], say: Say) -> dict[str, Any]:
    faults = check(request, say)["faults"]
    if faults:
        name, option, words = faults[0]
        raise StageError(f"recipe.passes.{name}{'.' + option if option else ''}: {words}")
    from olive.workflows import run as olive_run

    parent, out = Path(request["parent"]), Path(request["out"])
    settings = json.loads((parent / "genai_config.json").read_bytes())
    graph = settings["model"]["decoder"]["filename"]
    passes = _passes(request)
    say(0.2, "running " + ", ".join(passes))
    accelerator = {"device": request["device"], "execution_providers": [request["provider"]]}
    output = olive_run(
        {
            "input_model": {"type": "OnnxModel", "model_path": str(parent), "onnx_file_name": graph},
            "systems": {"local": {"type": "LocalSystem", "accelerators": [accelerator]}},
            "host": "local",
            "target": "local",
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


def _passes(request: dict[str, Any]) -> dict[str, Any]:
    from olive.hardware.accelerator import AcceleratorSpec
    from olive.package_config import OlivePackageConfig

    package, spec = OlivePackageConfig.load_default_config(), AcceleratorSpec(request["device"], request["provider"])
    passes = {}
    for name, kind, options in request["passes"]:
        known = package.import_pass_module(kind)._default_config(spec)
        passes[name] = {"type": kind, **{key: value for key, value in _BESIDE.items() if key in known}, **options}
    return passes


if __name__ == "__main__":
    sys.exit(run(apply))
