"""MLX folder → how far its logits are from the source's, by mlx-lm in float32, and what its modules compute with.

On a CPU, mlx multiplies quantised weights one by one. So each quantised layer gives way to a dense one that holds its
own weights, dequantised by mlx: the same model code and the same reading of the config, many times faster.

Request: {"artifact": folder, "reference": file of reference_logits.py, "vocabulary": its columns, "chunks": [[id, …],
…], "first": number of the first chunk to measure, "count": how many}
Result: {"chunks": [a quality.divergence.Chunk each], "hyperparameters": {…}, "rss_bytes": the most that was resident}
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from logits import Reference, compare, peak_rss
from stage import Say, run


def measure(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading for mlx-lm")
    from pathlib import Path

    import mlx.core as mx
    from mlx_lm.utils import load_model

    model, _config = load_model(Path(request["artifact"]))
    if mx.default_device() == mx.Device(mx.cpu, 0):
        dense(model)
    model.set_dtype(mx.float32)
    chunks = request["chunks"]
    reference = Reference(request["reference"], chunks, request["vocabulary"])
    measured = []
    numbers = range(request["first"], request["first"] + request["count"])
    for done, number in enumerate(numbers, 1):
        logits = model(mx.array([chunks[number]]))[0].astype(mx.float32)
        measured.append(compare(reference.of(number), np.array(logits), chunks[number]))
        say(done / len(numbers), f"chunk {number + 1} of {len(chunks)}")
    return {"chunks": measured, "hyperparameters": hyperparameters(model), "rss_bytes": peak_rss()}


def dense(model: Any) -> None:
    """Put a dense layer in the place of each quantised one."""
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_unflatten

    def weight(layer: Any) -> Any:
        biases = layer.get("biases")
        whole = mx.dequantize(
            layer.weight, layer.scales, biases, group_size=layer.group_size, bits=layer.bits, mode=layer.mode
        )
        return whole.astype(mx.float32)

    replaced = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.QuantizedLinear):
            whole = weight(layer)
            new: Any = nn.Linear(whole.shape[1], whole.shape[0], bias="bias" in layer)
            new.weight = whole
            if "bias" in layer:
                new.bias = layer.bias
        elif isinstance(layer, nn.QuantizedEmbedding):
            whole = weight(layer)
            new = nn.Embedding(*whole.shape)
            new.weight = whole
        else:
            continue
        replaced.append((name, new))
    model.update_modules(tree_unflatten(replaced))


def hyperparameters(model: Any) -> dict[str, Any]:
    """What the loaded modules hold, by the names of quality/hyperparameters.py; the first layer speaks for all."""
    from mlx import nn

    found: dict[str, Any] = {"layers": len(model.layers)}
    rope = next((module for _, module in model.layers[0].named_modules() if isinstance(module, nn.RoPE)), None)
    if rope is not None:
        found |= {"rope_base": float(rope.base), "rope_dims": rope.dims}
    norm = next((module for _, module in model.layers[0].named_modules() if isinstance(module, nn.RMSNorm)), None)
    if norm is not None:
        found["norm_epsilon"] = float(norm.eps)
    attention = getattr(model.layers[0], "self_attn", None)
    for ours, theirs in (("heads", "n_heads"), ("kv_heads", "n_kv_heads"), ("head_dim", "head_dim")):
        value = getattr(attention, theirs, None)
        if isinstance(value, int):
            found[ours] = value
    return found


if __name__ == "__main__":
    sys.exit(run(measure))
