"""OpenVINO folder → what the device's engine makes of texts and chats: onnxruntime-genai with the artifact's tokenizer.

Run under the ONNX toolchain, whose onnxruntime has no OpenVINO provider and so cannot load the graph itself. The
tokenizer reads nothing of a graph, so a stand-in of the same inputs and outputs takes its place.

Request and result: as onnx_parity.py has them.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from onnx_parity import parity
from stage import Say, run

_GRAPHS = (".bin", ".onnx", ".xml")


def beside_a_stand_in(request: dict[str, Any], say: Say) -> dict[str, Any]:
    artifact = Path(request["artifact"])
    with tempfile.TemporaryDirectory() as folder:
        for file in artifact.iterdir():
            if file.is_file() and file.suffix not in _GRAPHS:
                shutil.copyfile(file, Path(folder, file.name))
        decoder = json.loads((artifact / "genai_config.json").read_bytes())["model"]["decoder"]
        _stand_in(Path(folder, decoder["filename"]), decoder)
        return parity({**request, "artifact": folder}, say)


def _stand_in(file: Path, decoder: dict[str, Any]) -> None:
    import onnx
    from onnx import TensorProto, helper

    def value(name: str, kind: int, *shape: str) -> Any:
        return helper.make_tensor_value_info(name, kind, list(shape))

    inputs = [value(name, TensorProto.INT64, "batch", "tokens") for name in decoder["inputs"].values()]
    outputs = [value(decoder["outputs"]["logits"], TensorProto.FLOAT, "batch", "tokens", "one")]
    ids, logits = decoder["inputs"]["input_ids"], decoder["outputs"]["logits"]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [2])
    nodes = [
        helper.make_node("Cast", [ids], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["numbers", "axes"], [logits]),
    ]
    graph = helper.make_graph(nodes, "stand-in", inputs, outputs, [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)


if __name__ == "__main__":
    sys.exit(run(beside_a_stand_in))
