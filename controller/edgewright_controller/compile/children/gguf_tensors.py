"""GGUF → how far each of its tensors is from the source's, dequantised by the library of the format.

With a source and a kind of model whose conversion is known (ARCHITECTURES), its safetensors are compared with, under
llama.cpp's names, as the converter arranges them. What is not in them (factors of the rotary embedding), and every
tensor of another kind of model, is compared with the unquantised GGUF, which has the same names and arrangement; that
it is the source, its own logits tell.

Request: {"artifact": file, or the first part of one, "parent": file, "source": folder or absent, "block": weights of
a block at least, "quiet": share of the norm, below which a block or row is measured against that share, "moved":
whether the recipe moves weights away from what each would be rounded to by itself}
Result: {"tensors": [a quality.tensors.TensorMeasure each], "expected": names that must be there, "surplus": names that
nothing stands for, "bytes": of all tensors, "parameters": of all tensors of the parent}
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rounding import beyond_rounding, nearest_level
from source_tensors import Checkpoint, Rows, of_array
from stage import Say, StageError, run
from tensor_measure import measure


class Arrangement(NamedTuple):
    """What the converter does to a kind of model: `pairs`, that rows of query and key are put in another order, since
    llama.cpp rotates neighbours; `one_more`, that 1 is added to the weights of norms, since it multiplies by them."""

    pairs: bool = False
    one_more: bool = False


ARCHITECTURES = {
    "llama": Arrangement(pairs=True),
    "qwen2": Arrangement(),
    "qwen3": Arrangement(),
    "phi3": Arrangement(),
    "gemma": Arrangement(one_more=True),
    "gemma2": Arrangement(one_more=True),
    "gemma3": Arrangement(one_more=True),
}
_FLOATS = ("F32", "F16", "BF16", "F64")


class Codes(NamedTuple):
    """Where in a block of a type the bytes stand that say each weight's level, what fills them for the lowest and for
    the highest level, and the number of the highest, counted from 0."""

    first: int
    last: int
    top: int
    lowest: int = 0x00
    highest: int = 0xFF


# Of the types whose levels are evenly spaced within a run.
CODES = {
    "Q8_0": Codes(2, 34, 255, 0x80, 0x7F),
    "Q5_0": Codes(2, 22, 31),
    "Q5_1": Codes(4, 24, 31),
    "Q4_0": Codes(2, 18, 15),
    "Q4_1": Codes(4, 20, 15),
    "Q6_K": Codes(0, 192, 63),
    "Q5_K": Codes(16, 176, 31),
    "Q4_K": Codes(16, 144, 15),
    "Q3_K": Codes(0, 96, 7),
    "Q2_K": Codes(16, 80, 3),
}
_COMPUTED = ("rotary_emb.inv_freq",)
_FIRST = re.compile(r"-00001-of-(\d{5})\.gguf$")
_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"


def tensors(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "reading both files")
    from gguf import GGML_QUANT_SIZES, GGUFReader

    parts = [GGUFReader(file) for file in files(request["artifact"])]
    parent = {tensor.name: tensor for tensor in GGUFReader(request["parent"]).tensors}
    artifact = {tensor.name: tensor for part in parts for tensor in part.tensors}
    wanted = {name: _rows(tensor) for name, tensor in parent.items()}
    if "source" in request:
        wanted |= of_source(parts[0], request["source"])
    # A tied embedding that stands there a second time must be the embedding.
    if _OUTPUT not in wanted:
        wanted |= {_OUTPUT: wanted[_EMBEDDING]} if _EMBEDDING in wanted else {}
    found, surplus = [], []
    for number, (name, tensor) in enumerate(artifact.items(), 1):
        say(number / len(artifact), name)
        got = _rows(tensor)
        if name not in wanted:
            surplus.append(name)
        elif wanted[name].shape == got.shape:  # else not among the measured ones, and so found missing
            block = max(request["block"], GGML_QUANT_SIZES[tensor.tensor_type][0])
            figures = measure(wanted[name], got, block, request["quiet"])
            if tensor.tensor_type.name not in _FLOATS:
                figures |= beyond_rounding(wanted[name], got, moved=request["moved"])
            kept = {"type": tensor.tensor_type.name, "weights": got.shape[0] * got.shape[1], "block": block}
            found.append({"name": name, **kept, **figures})
    optional = {_OUTPUT} - parent.keys()
    return {
        "tensors": found,
        "expected": sorted(wanted.keys() - optional),
        "surplus": surplus,
        "bytes": int(sum(tensor.n_bytes for tensor in artifact.values())),
        "parameters": int(sum(np.prod(tensor.shape, dtype=np.int64) for tensor in parent.values())),
    }


def files(first: str) -> list[Path]:
    """The GGUF file, or all parts of one whose first this is. Raises StageError for parts that are not there."""
    named = _FIRST.search(first)
    if not named:
        return [Path(first)]
    count = int(named.group(1))
    parts = [Path(f"{first[: named.start()]}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise StageError(f"{first}: {len(missing)} of its {count} parts are missing: {', '.join(missing[:5])}")
    return parts


def of_source(read: Any, folder: str) -> dict[str, Rows]:
    """The source's tensors by llama.cpp's names, arranged as its converter does; nothing for an unknown kind.

    A tensor that llama.cpp has no name for keeps its own, and so is found missing.
    """
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    kind = read.get_field("general.architecture").contents()
    if kind not in ARCHITECTURES:
        return {}
    (number,) = (number for number, name in MODEL_ARCH_NAMES.items() if name == kind)
    names = get_tensor_name_map(number, int(read.get_field(f"{kind}.block_count").contents()))
    source = Checkpoint(folder)
    config = json.loads(Path(folder, "config.json").read_bytes())
    config = config.get("text_config", config)
    found = {}
    for name in source.shapes:
        if name.endswith(_COMPUTED):
            continue
        theirs = names.get_name(name, try_suffixes=(".weight", ".bias")) or name
        found[theirs] = _arranged(theirs, source.rows(name), ARCHITECTURES[kind], config)
    if config.get("tie_word_embeddings") and _OUTPUT in found:
        # Not asked for where the source says that it is the embedding; nobody can then be given it.
        del found[_OUTPUT]
    return found


def _arranged(name: str, rows: Rows, how: Arrangement, config: dict[str, Any]) -> Rows:
    if how.pairs and name.endswith((".attn_q.weight", ".attn_k.weight", ".attn_q.bias", ".attn_k.bias")):
        heads = config["num_attention_heads"]
        if ".attn_k." in name:
            heads = config.get("num_key_value_heads") or heads
        bias = name.endswith(".bias")
        whole = rows[:].reshape(-1) if bias else rows[:]
        if whole.shape[0] % (2 * heads):
            raise StageError(f"{name}: {whole.shape[0]} rows are not {heads} heads")
        order = np.arange(whole.shape[0]).reshape(heads, 2, -1).swapaxes(1, 2).reshape(-1)
        return of_array(whole[order])
    return rows.plus(1.0) if how.one_more and name.endswith("norm.weight") else rows


def _rows(tensor: Any) -> Rows:
    """A tensor of a GGUF, dequantised where it is asked for."""
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    kind = tensor.tensor_type
    columns = int(tensor.shape[0])
    rows = int(np.prod(tensor.shape, dtype=np.int64)) // columns
    data = tensor.data.reshape(rows, -1)
    codes = CODES.get(kind.name)
    size = GGML_QUANT_SIZES[kind][1]

    def anew(start: int, stop: int, values: Any) -> Any:
        assert codes is not None
        low, high = (_filled(data[start:stop], size, codes, fill) for fill in (codes.lowest, codes.highest))
        low, high = dequantize(low, kind), dequantize(high, kind)
        return nearest_level(values, low, (high - low) / np.float32(codes.top), codes.top)

    return Rows(rows, columns, lambda start, stop: dequantize(data[start:stop], kind), anew if codes else None)


def _filled(data: Any, size: int, codes: Codes, fill: int) -> Any:
    """The same blocks, of `size` bytes, with every weight on the same level."""
    blocks = data.reshape(len(data), -1, size).copy()
    blocks[:, :, codes.first : codes.last] = fill
    return blocks.reshape(data.shape)


if __name__ == "__main__":
    sys.exit(run(tensors))
