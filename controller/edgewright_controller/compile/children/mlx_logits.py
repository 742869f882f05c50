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
from rope_angles import of_angles
from stage import Say, run

_ATTRIBUTES = {
    "heads": ("n_heads", "num_heads", "num_attention_heads"),
    "kv_heads": ("n_kv_heads", "num_kv_heads", "num_key_value_heads"),
    "head_dim": ("head_dim",),
    "attention_scale": ("scale",),
}
# The nearest of the known functions differ by 1e-4 somewhere; float32 does not.
_SAME = 1e-5


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
    """What the loaded modules hold, by the names of quality/hyperparameters.py. The model is of no use afterwards.

    The first layer of full attention speaks for all, but for the norms: where their epsilons differ, the value is a
    text with all of them, which no number is equal to.
    """
    found: dict[str, Any] = {"layers": len(model.layers), "sliding_window": _window(model)}
    layer = next((one for one in model.layers if not getattr(_attention(one), "is_sliding", False)), model.layers[0])
    attention = _attention(layer)
    for ours, theirs in _ATTRIBUTES.items():
        value = next((getattr(attention, name) for name in theirs if hasattr(attention, name)), None)
        if isinstance(value, int | float):
            found[ours] = value
    rope = getattr(attention, "rope", None)
    if rope is not None:
        found |= _rotation(rope)
    epsilons = {
        float(module.eps) for one in model.layers for _, module in one.named_modules() if hasattr(module, "eps")
    }
    if epsilons:
        found["norm_epsilon"] = epsilons.pop() if len(epsilons) == 1 else ", ".join(map(str, sorted(epsilons)))
    body = getattr(model, "model", None)
    if hasattr(body, "embed_tokens"):
        found["tied_embedding"] = "lm_head" not in model
    activation = _activation(getattr(layer, "mlp", None))
    return found | ({"activation": activation} if activation else {})


def _attention(layer: Any) -> Any:
    return getattr(layer, "self_attn", None)


def _rotation(rope: Any) -> dict[str, Any]:
    """Base, if it has one, and angles of a step."""
    if hasattr(rope, "_freqs"):
        return of_angles(1.0 / np.array(rope._freqs).astype(np.float64))
    if not hasattr(rope, "base"):
        return {}
    pairs = np.arange(0, rope.dims, 2) / rope.dims
    angles = getattr(rope, "scale", 1.0) * float(rope.base) ** -pairs
    return {"rope_base": float(rope.base), "rope_dims": rope.dims, **of_angles(angles)}


def _activation(mlp: Any) -> str | None:
    """The function between gate and product, by transformers' name. It is written in the module's code, so it is tried:
    with nothing but it left in the module, some numbers show which one it is. None for a module of another make."""
    import mlx.core as mx
    from mlx import nn

    numbers = mx.array([[-3.0, -1.0, -0.25, 0.5, 2.0]])
    if mlp is None or "down_proj" not in mlp:
        return None
    mlp.down_proj = lambda x: x
    if "gate_up_proj" in mlp:
        mlp.gate_up_proj = lambda x: mx.concatenate([x, mx.ones_like(x)], axis=-1)
    elif "gate_proj" in mlp and "up_proj" in mlp:
        mlp.gate_proj, mlp.up_proj = (lambda x: x), mx.ones_like
    else:
        return None
    made = mlp(numbers)
    known = {"silu": nn.silu, "gelu": nn.gelu, "gelu_pytorch_tanh": nn.gelu_approx, "relu": nn.relu}
    for name, function in known.items():
        if float(mx.abs(made - function(numbers)).max()) < _SAME:
            return name
    return "unknown"


def _window(model: Any) -> int:
    """How much the cache of the layers that keep least keeps; 0 where all keep everything."""
    from mlx_lm.models.cache import make_prompt_cache

    sizes = [cache.max_size for cache in make_prompt_cache(model) if isinstance(getattr(cache, "max_size", None), int)]
    return min(sizes, default=0)


if __name__ == "__main__":
    sys.exit(run(measure))
