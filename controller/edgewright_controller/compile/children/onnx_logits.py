"""ONNX folder → how far its logits are from the source's, by onnxruntime on a CPU, and what its settings say.

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
from onnx_graph import Graph
from stage import Say, StageError, run

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}
# What onnxruntime-genai takes from its settings.
_NAMES = {
    "hidden_size": "hidden",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "head_size": "head_dim",
}


def measure(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading for onnxruntime")
    import onnxruntime

    folder = Path(request["artifact"])
    settings = json.loads((folder / "genai_config.json").read_bytes())["model"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    # Waiting threads would take the processor from whoever else builds.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    file = folder / settings["decoder"]["filename"]
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    chunks = request["chunks"]
    reference = Reference(request["reference"], chunks, request["vocabulary"])
    measured = []
    numbers = range(request["first"], request["first"] + request["count"])
    for done, number in enumerate(numbers, 1):
        (logits,) = session.run([settings["decoder"]["outputs"]["logits"]], _inputs(session, chunks[number]))
        measured.append(compare(reference.of(number), logits[0], chunks[number]))
        say(done / len(numbers), f"chunk {number + 1} of {len(chunks)}")
    decoder = settings["decoder"]
    found = {ours: decoder[theirs] for theirs, ours in _NAMES.items() if theirs in decoder}
    found["vocab"] = settings["vocab_size"]
    # What is wired into the graph is what it computes with, whatever the settings say.
    found |= Graph(str(folder), file.name).hyperparameters()
    return {"chunks": measured, "hyperparameters": found, "rss_bytes": peak_rss()}


def _inputs(session: Any, tokens: list[int]) -> dict[str, Any]:
    """A whole chunk at once, with nothing in the cache before it."""
    given = {
        "input_ids": np.array([tokens], np.int64),
        "attention_mask": np.ones((1, len(tokens)), np.int64),
        "position_ids": np.arange(len(tokens), dtype=np.int64)[None],
        # What a graph for an NPU is told instead of a mask.
        "past_seq_len": np.array([[len(tokens) - 1]], np.int32),
        "total_seq_len": np.array([len(tokens)], np.int32),
    }
    inputs = {}
    for wanted in session.get_inputs():
        if wanted.name in given:
            inputs[wanted.name] = given[wanted.name]
        elif wanted.name.startswith("past_key_values"):
            _, heads, _, width = wanted.shape
            inputs[wanted.name] = np.zeros((1, heads, 0, width), _TYPES[wanted.type])
        else:
            raise StageError(f"the graph wants an input {wanted.name!r}, which nobody here can give it")
    return inputs


if __name__ == "__main__":
    sys.exit(run(measure))
