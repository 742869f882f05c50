"""MLX folder → how far each of its tensors is from the source's, dequantised by mlx.

The bits, group and mode of each layer are those of the layer as mlx-lm has loaded it. Names are the source's, unless
mlx-lm's own `sanitize` renames a tensor or puts several into one.

Request: {"artifact": folder, "source": folder with the safetensors, "block": weights of a block at least, "quiet":
share of the norm, below which a block or row is measured against that share, "moved": whether the recipe moves weights
away from what each would be rounded to by itself}
Result: {"tensors": [a quality.tensors.TensorMeasure each], "expected": names that must be there, "surplus": names that
nothing in the source stands for, "bytes": of all tensors of the artifact, "parameters": of all tensors of the source}
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from rounding import beyond_rounding
from source_tensors import Checkpoint, Rows, of_array
from stage import Say, run
from tensor_measure import measure

_FLOATS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
# Beside the weight of a quantised layer: parts of it, not tensors of the source.
_PARTS = (".scales", ".biases", ".global_scale")
# What checkpoints carry that is computed and not learned; no runtime loads it.
_COMPUTED = ("rotary_emb.inv_freq",)


def tensors(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "reading both folders")
    # transformers would load torch where it is installed; mlx-lm has no use for it.
    sys.modules["torch"] = None  # type: ignore[assignment]
    import mlx.core as mx
    from mlx_lm.utils import load_model

    folder = Path(request["artifact"])
    # Lazily: this one says how each layer is packed; the tensors are read below, one after the other.
    model, _config = load_model(folder, lazy=True)
    layers = {name: layer for name, layer in model.named_modules() if "scales" in layer}
    held: dict[str, Any] = {}
    for file in sorted(folder.glob("model*.safetensors")):
        held |= mx.load(str(file))
    source = Checkpoint(request["source"])
    wanted, expected = _wanted(model, source, request["source"])
    found, surplus, size = [], [], sum(array.nbytes for array in held.values())
    names = [name for name in held if not _is_part(name, layers)]
    for number, name in enumerate(names, 1):
        say(number / len(names), name)
        base = name.removesuffix(".weight")
        layer = layers.get(base) if name.endswith(".weight") else None
        array = held.pop(name)
        if layer is not None:
            scales, biases = held.pop(f"{base}.scales"), held.pop(f"{base}.biases", None)
            kind, got = _kind(layer), _dequantised(layer, array, scales, biases, layer.get("global_scale"))
        else:
            kind, got = _FLOATS.get(_name(array), _name(array)), of_array(np.array(array.astype(mx.float32)))
        original = wanted(name)
        if original is None:
            surplus.append(name)
            continue
        if original.shape != got.shape:
            continue  # not among the measured ones, and so found missing
        block = max(request["block"], layer.group_size if layer is not None else 1)
        figures = measure(original, got, block, request["quiet"])
        if layer is not None:
            figures |= beyond_rounding(original, got, moved=request["moved"])
        weights = got.shape[0] * got.shape[1]
        found.append({"name": name, "type": kind, "weights": weights, "block": block, **figures})
    return {
        "tensors": found,
        "expected": sorted(expected),
        "surplus": surplus,
        "bytes": size,
        "parameters": source.parameters,
    }


def _wanted(model: Any, source: Checkpoint, folder: str) -> tuple[Any, set[str]]:
    """What gives the source's tensor for a name of the artifact, and which names it must have."""
    import mlx.core as mx

    arrays: dict[str, Any] = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        arrays |= mx.load(str(file))
    # A fresh one: a model that is loaded has done its part of this already, and some can do it only once.
    fresh = type(model)(model.args)
    made = fresh.sanitize(dict(arrays)) if hasattr(fresh, "sanitize") else arrays
    lost = source.shapes.keys() - made.keys() - {name for name in source.shapes if name.endswith(_COMPUTED)}
    spared = {name for name in lost if name.endswith("lm_head.weight") and _is_embedding(source, name)}
    # Tensors that were put together have other names than before, but are all there.
    size_lost = sum(int(np.prod(source.shapes[name], dtype=np.int64)) for name in lost - spared)
    size_new = sum(int(array.size) for name, array in made.items() if name not in source.shapes)
    expected = set(made) | (lost - spared if size_new != size_lost else set())

    def wanted(name: str) -> Rows | None:
        if name not in made:
            return None
        if made[name] is arrays.get(name):
            return source.rows(name)
        return of_array(np.array(made[name].astype(mx.float32)))

    return wanted, expected


def _is_embedding(source: Checkpoint, name: str) -> bool:
    """Whether this output layer is the embedding once more, which a tied one is."""
    for other, shape in source.shapes.items():
        if other.endswith("embed_tokens.weight") and shape == source.shapes[name]:
            figures = measure(source.rows(other), source.rows(name), 1 << 30, 1.0)
            return figures["error"] == 0.0
    return False


def _is_part(name: str, layers: dict[str, Any]) -> bool:
    return any(name.endswith(part) and name.removesuffix(part) in layers for part in _PARTS)


def _kind(layer: Any) -> str:
    return f"affine{layer.bits}g{layer.group_size}" if layer.mode == "affine" else str(layer.mode)


def _name(array: Any) -> str:
    return str(array.dtype).removeprefix("mlx.core.")


def _dequantised(layer: Any, weight: Any, scales: Any, biases: Any, global_scale: Any) -> Rows:
    import mlx.core as mx

    packed, scales = weight.reshape(-1, weight.shape[-1]), scales.reshape(-1, scales.shape[-1])
    biases = None if biases is None else biases.reshape(-1, biases.shape[-1])
    kept = {"group_size": layer.group_size, "bits": layer.bits, "mode": layer.mode}
    kept |= {} if global_scale is None else {"global_scale": global_scale}
    # The converter rounds what it has cast to the model's type, which is that of the scales where they are floats.
    cast = scales.dtype if layer.mode == "affine" else mx.bfloat16

    def dequantised(codes: Any, scales: Any, biases: Any = None) -> Any:
        if biases is not None:
            # In float32, as a runtime that computes in it does; the format keeps them shorter.
            scales, biases = scales.astype(mx.float32), biases.astype(mx.float32)
        return np.array(mx.dequantize(codes, scales, biases, dtype=mx.float32, **kept))

    def take(start: int, stop: int) -> Any:
        part = slice(start, stop)
        return dequantised(packed[part], scales[part], None if biases is None else biases[part])

    def anew(_start: int, _stop: int, values: Any) -> Any:
        return dequantised(*mx.quantize(mx.array(values).astype(cast), **kept))

    return Rows(packed.shape[0], packed.shape[1] * 32 // layer.bits, take, anew)


if __name__ == "__main__":
    sys.exit(run(tensors))
