"""GGUF → how far each of its tensors is from the unquantised GGUF's, dequantised by the library of the format.

The unquantised one has the same names and the same arrangement of rows; that it is the source, its own logits tell.

Request: {"artifact": file, "parent": file, "block": weights of a block, "quiet": share of the norm, below which a block
or row is measured against that share}
Result: {"tensors": [a quality.tensors.TensorMeasure each], "expected": names in the parent, "bytes": of all tensors,
"parameters": of all tensors of the parent}
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from stage import Say, run
from tensor_measure import measure


def tensors(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "reading both files")
    from gguf import GGUFReader
    from gguf.quants import dequantize

    parent = {tensor.name: tensor for tensor in GGUFReader(request["parent"]).tensors}
    artifact = {tensor.name: tensor for tensor in GGUFReader(request["artifact"]).tensors}
    found = []
    for number, (name, tensor) in enumerate(artifact.items(), 1):
        say(number / len(artifact), name)
        original = parent.get(name)
        if original is None or list(original.shape) != list(tensor.shape):
            continue  # not among the measured ones, and so found missing
        rows = (-1, int(tensor.shape[0]))
        wanted = dequantize(original.data, original.tensor_type).reshape(rows)
        got = dequantize(tensor.data, tensor.tensor_type).reshape(rows)
        figures = measure(wanted, got, request["block"], request["quiet"])
        found.append({"name": name, "type": tensor.tensor_type.name, "weights": int(wanted.size), **figures})
    return {
        "tensors": found,
        "expected": sorted(parent),
        "bytes": int(sum(tensor.n_bytes for tensor in artifact.values())),
        "parameters": int(sum(np.prod(tensor.shape, dtype=np.int64) for tensor in parent.values())),
    }


if __name__ == "__main__":
    sys.exit(run(tensors))
