"""Checkpoint folder → OpenVINO graph (IR) with an ONNX graph around it that onnxruntime's OpenVINO provider loads.

Olive's passes by configuration of ours, under the interpreter that has OpenVINO.

Request: {"source": folder, "out": folder, "cache": scratch folder, "passes": Olive's `passes`}
Result: {"openvino": version, "ir_version": of the ONNX graph, "opset": of it}
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from stage import Say, StageError, run

PROVIDER = "OpenVINOExecutionProvider"
# The exporter writes the tokenizer as its transformers would, and Olive leaves the template behind.
_WORDS = ("chat_template.jinja", "tokenizer.json", "tokenizer_config.json")


def build(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading Olive and OpenVINO")
    os.environ["CI"] = "true"  # by which OpenVINO's and nncf's telemetry know that they are to be silent
    try:
        import nncf  # noqa: F401
        import openvino
        from optimum.exporters.openvino import main_export  # noqa: F401
    except ImportError as error:
        where = f"{sys.executable} cannot load OpenVINO's exporter ({error})"
        raise StageError(f"toolchain openvino: {where}; there, pip install 'edgewright[openvino]'") from error
    from olive.workflows import run as olive_run

    say(0.3, "exporting")
    source, out = Path(request["source"]), Path(request["out"])
    accelerator = {"device": "cpu", "execution_providers": [PROVIDER]}
    output = olive_run(
        {
            "input_model": {
                "type": "HfModel",
                "model_path": str(source),
                "load_kwargs": {"trust_remote_code": False},
            },
            "systems": {"local": {"type": "LocalSystem", "accelerators": [accelerator]}},
            "host": "local",
            "target": "local",
            "passes": request["passes"],
            "no_artifacts": True,
            "evaluate_input_model": False,
            "output_dir": str(out),
            "cache_dir": request["cache"],
            "log_severity_level": 2,
        }
    )
    if not output.has_output_model():
        raise StageError("Olive ended without a model; its own words are in the log")
    for name in _WORDS:
        (out / name).unlink(missing_ok=True)
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    _tell_head_size(out)
    return {"openvino": openvino.__version__, **_form(out)}


def _tell_head_size(out: Path) -> None:
    """Olive divides the width by the heads, whatever the checkpoint says of a head's."""
    file = out / "genai_config.json"
    if not file.is_file():
        raise StageError("Olive made no genai_config.json; has the checkpoint a generation_config.json?")
    settings = json.loads(file.read_bytes())
    if head := json.loads((out / "config.json").read_bytes()).get("head_dim"):
        settings["model"]["decoder"]["head_size"] = head
    file.unlink()
    file.write_text(json.dumps(settings, indent=4, sort_keys=True))


def _form(out: Path) -> dict[str, int]:
    import onnx

    (file,) = out.glob("*.onnx")
    graph = onnx.load(file, load_external_data=False)
    return {
        "ir_version": graph.ir_version,
        "opset": max(one.version for one in graph.opset_import if one.domain in ("", "ai.onnx")),
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(run(build))
