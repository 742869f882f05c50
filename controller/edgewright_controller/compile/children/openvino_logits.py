"""OpenVINO folder → how far its logits are from the source's, in float32 on a CPU, and what is wired into the graph.

Request: {"artifact": folder, "reference": file of reference_logits.py, "vocabulary": its columns, "chunks": [[id, …],
…], "first": number of the first chunk to measure, "count": how many, "threads": 1}
Result: {"chunks": [a quality.divergence.Chunk each], "hyperparameters": {…}, "rss_bytes": the most that was resident}
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from logits import Reference, compare, peak_rss
from openvino_graph import Graph
from stage import Say, StageError, run

# Nothing is rounded that is not rounded in the artifact: no activations, and no cache of keys and values.
_EXACT = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
# What onnxruntime-genai takes from its settings, on the device.
_NAMES = {
    "hidden_size": "hidden",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_size": "head_dim",
}


def measure(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading for OpenVINO")
    import openvino

    folder = Path(request["artifact"])
    graph = Graph(str(folder))
    found = graph.hyperparameters()
    settings = json.loads((folder / "genai_config.json").read_bytes())["model"]
    found |= {ours: settings["decoder"][theirs] for theirs, ours in _NAMES.items() if theirs in settings["decoder"]}
    found["vocab"] = settings["vocab_size"]
    threads = {"INFERENCE_NUM_THREADS": str(request["threads"])}
    asked = openvino.Core().compile_model(graph.model, "CPU", {**_EXACT, **threads}).create_infer_request()
    chunks = request["chunks"]
    reference = Reference(request["reference"], chunks, request["vocabulary"])
    measured = []
    numbers = range(request["first"], request["first"] + request["count"])
    for done, number in enumerate(numbers, 1):
        asked.reset_state()  # nothing is in the cache before a chunk
        logits = asked.infer(_inputs(graph.model, chunks[number]))["logits"]
        measured.append(compare(reference.of(number), logits[0], chunks[number]))
        say(done / len(numbers), f"chunk {number + 1} of {len(chunks)}")
    return {"chunks": measured, "hyperparameters": found, "rss_bytes": peak_rss()}


def _inputs(model: Any, tokens: list[int]) -> dict[str, Any]:
    """A whole chunk at once."""
    given = {
        "input_ids": np.array([tokens], np.int64),
        "attention_mask": np.ones((1, len(tokens)), np.int64),
        "position_ids": np.arange(len(tokens), dtype=np.int64)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    inputs = {}
    for wanted in model.inputs:
        name = wanted.get_any_name()
        if name not in given:
            raise StageError(f"the graph wants an input {name!r}, which nobody here can give it")
        inputs[name] = given[name]
    return inputs


if __name__ == "__main__":
    sys.exit(run(measure))
