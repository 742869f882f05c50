"""MLX folder → how far its logits are from the source's, by mlx-lm in float32, and what its modules compute with.

On a CPU, mlx multiplies quantised weights one by one, and dense ones with a reference BLAS. So each layer there gives
way to one that holds its own weights, dequantised by mlx, and multiplies with numpy's: the same model code and the same
reading of the config, twenty times faster.

Request: {"artifact": folder, "reference": file of reference_logits.py, "vocabulary": its columns, "chunks": [[id, …],
…], "first": number of the first chunk to measure, "count": how many}
Result: {"chunks": [a quality.divergence.Chunk each], "hyperparameters": {…}, "rss_bytes": the most that was resident}
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from logits import Reference, compare, peak_rss
from stage import Say, run


def measure(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "loading for mlx-lm")
    # transformers would load torch where it is installed; mlx-lm has no use for it.
    sys.modules["torch"] = None  # type: ignore[assignment]
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
    """Put a layer that multiplies with numpy in the place of each that mlx multiplies."""
    import mlx.core as mx
    from mlx import nn
    from mlx.utils import tree_unflatten

    class Linear(nn.Module):
        def __init__(self, weight: Any, bias: Any) -> None:
            super().__init__()
            self._turned, self._bias = weight.T, bias

        def __call__(self, x: Any) -> Any:
            y = _numpy(x) @ self._turned
            return mx.array(y if self._bias is None else y + self._bias)

    class Embedding(nn.Module):
        def __init__(self, weight: Any) -> None:
            super().__init__()
            self._rows = weight

        @property
        def weight(self) -> Any:
            return self._rows

        def __call__(self, ids: Any) -> Any:
            return mx.array(self._rows[np.array(ids)])

        def as_linear(self, x: Any) -> Any:
            return mx.array(_numpy(x) @ self._rows.T)

    replaced = []
    for name, layer in model.named_modules():
        if type(layer) in (nn.QuantizedLinear, nn.Linear):
            bias = _numpy(layer.bias) if "bias" in layer else None
            replaced.append((name, Linear(_weight(layer), bias)))
        elif type(layer) in (nn.QuantizedEmbedding, nn.Embedding):
            replaced.append((name, Embedding(_weight(layer))))
    model.update_modules(tree_unflatten(replaced))


def _weight(layer: Any) -> Any:
    """The layer's weights, [out, in], as float32."""
    import mlx.core as mx

    if "scales" not in layer:
        return _numpy(layer.weight)
    packing = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode, "dtype": mx.float32}
    if layer.get("global_scale") is not None:
        packing["global_scale"] = layer.global_scale
    return np.array(mx.dequantize(layer.weight, layer.scales, layer.get("biases"), **packing))


def _numpy(array: Any) -> Any:
    import mlx.core as mx

    return np.array(array.astype(mx.float32))


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
    return found | {"sliding_window": _window(model)}


def _window(model: Any) -> int:
    """How much the cache of the layers that keep least keeps; 0 where all keep everything."""
    from mlx_lm.models.cache import make_prompt_cache

    sizes = [cache.max_size for cache in make_prompt_cache(model) if isinstance(getattr(cache, "max_size", None), int)]
    return min(sizes, default=0)


if __name__ == "__main__":
    sys.exit(run(measure))
