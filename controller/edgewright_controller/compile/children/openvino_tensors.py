"""OpenVINO folder → how far each of the source's tensors in the graph is from the source's.

Request: {"artifact": folder, "source": folder with the safetensors, "block": weights of a block at least, "quiet":
share of the norm, below which a block or row is measured against that share}
Result: {"tensors": [a quality.tensors.TensorMeasure each], "expected": names that must be there, "surplus": names that
nothing in the source stands for, "bytes": of all constants of the graph, "parameters": of all tensors of the source}
"""

from __future__ import annotations

import sys
from typing import Any

from openvino_graph import Graph
from source_tensors import Checkpoint
from stage import Say, run
from tensor_measure import measure

_COMPUTED = ("rotary_emb.inv_freq",)


def tensors(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "reading the graph")
    graph, source = Graph(request["artifact"]), Checkpoint(request["source"])
    expected = {name for name in source.shapes if not name.endswith(_COMPUTED)}
    found: dict[str, dict[str, Any]] = {}
    surplus = []
    for weight in graph.weights():
        say(min(0.99, len(found) / max(1, len(expected))), weight.name)
        # A tied embedding may stand in the graph under the name of the output layer.
        tied = weight.name == "lm_head.weight" and weight.name not in source.shapes
        name = "model.embed_tokens.weight" if tied else weight.name
        if name not in source.shapes:
            surplus.append(weight.name)
            continue
        wanted = source.rows(name)
        if wanted.shape != weight.rows.shape:
            continue  # not among the measured ones, and so found missing
        block = max(request["block"], weight.run)
        place = name if name not in found else f"{name} ({weight.name})"
        kept = {"type": weight.type, "weights": wanted.shape[0] * wanted.shape[1], "block": block}
        found[place] = {"name": place, **kept, **measure(wanted, weight.rows, block, request["quiet"])}
    return {
        "tensors": list(found.values()),
        "expected": sorted(expected),
        "surplus": surplus,
        "bytes": graph.bytes,
        "parameters": source.parameters,
    }


if __name__ == "__main__":
    sys.exit(run(tensors))
