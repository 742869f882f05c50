"""Checkpoint folder → ONNX for a Qualcomm NPU, in two runs of Olive: the quantised graph, which a CPU can compute and
the gate measure, and that graph compiled for one system on a chip.

The first run. Request: {"source": folder, "out": folder, "cache": scratch folder, "passes": Olive's, "calibration":
{"text": file, "samples": pieces, "length": tokens}}
The second. Request: {"parent": the first run's `out`, "out": folder, "cache": scratch folder, "passes": Olive's}
Result: {"onnxruntime": version, "onnxruntime-qnn": version, "ir_version": of the graphs, "opset": of the graphs}
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import olive_calibration
from stage import Say, StageError, run

PROVIDER = "QNNExecutionProvider"


def build(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading Olive and QNN")
    import torch

    # How many add up a matrix of activations shows in its last digits, and so in the artifact's bytes.
    torch.set_num_threads(1)
    versions = _register()
    from olive.workflows import run as olive_run

    if "parent" in request:
        # Where the model may be taken apart was noted by the first run.
        model = json.loads(Path(request["parent"], "model_config.json").read_bytes())
        data = []
    else:
        source = request["source"]
        model = {"type": "HfModel", "model_path": source, "load_kwargs": {"trust_remote_code": False}}
        data = [olive_calibration.data_config(request["calibration"], source)]
    say(0.1, "compiling" if "parent" in request else "quantising")
    accelerator = {"device": "npu", "execution_providers": [PROVIDER]}
    output = olive_run(
        {
            "input_model": model,
            "systems": {"local": {"type": "LocalSystem", "accelerators": [accelerator]}},
            "host": "local",
            "target": "local",
            "data_configs": data,
            "passes": request["passes"],
            "no_artifacts": True,
            "evaluate_input_model": False,
            "output_dir": request["out"],
            "cache_dir": request["cache"],
            "log_severity_level": 2,
        }
    )
    if not output.has_output_model():
        raise StageError("Olive ended without a model; its own words are in the log")
    return {**versions, **_form(Path(request["out"]))}


def _register() -> dict[str, str]:
    """Make QNN known to onnxruntime; Olive refuses its passes otherwise."""
    import onnxruntime

    try:
        import onnxruntime_qnn
    except ImportError as error:
        where = f"{sys.executable} has no onnxruntime-qnn; there, pip install 'edgewright[qnn]'"
        raise StageError(f"toolchain qnn: {where}, or name another interpreter as toolchains.onnx") from error
    onnxruntime.register_execution_provider_library(PROVIDER, onnxruntime_qnn.get_library_path())
    onnxruntime.InferenceSession = _session(onnxruntime.InferenceSession)
    return {"onnxruntime": onnxruntime.__version__, "onnxruntime-qnn": onnxruntime_qnn.__version__}


def _session(of: Any) -> Any:
    """A session that opens a graph by its plain name. onnxruntime names what it compiles after the path of the graph,
    which would reach the artifact's bytes."""

    class Session(of):
        def __init__(self, graph: Any, *arguments: Any, **named: Any) -> None:
            if not isinstance(graph, str | os.PathLike):
                super().__init__(graph, *arguments, **named)
                return
            before = Path.cwd()
            os.chdir(Path(graph).parent)
            try:
                super().__init__(Path(graph).name, *arguments, **named)
            finally:
                os.chdir(before)

    return Session


def _form(out: Path) -> dict[str, int]:
    """The newest form that any of the graphs has; a runtime older than it cannot read them."""
    import onnx

    graphs = [onnx.load(file, load_external_data=False) for file in sorted(out.glob("*.onnx"))]
    opsets = [one.version for graph in graphs for one in graph.opset_import if one.domain in ("", "ai.onnx")]
    return {"ir_version": max(graph.ir_version for graph in graphs), "opset": max(opsets)}


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(run(build))
