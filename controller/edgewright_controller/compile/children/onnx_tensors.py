"""ONNX folder → how far each of the source's tensors in the graph is from the source's.

Every tensor of the source is looked for where a node of the graph uses it; one that no node uses is found missing. The
builder puts query, key and value into one matrix: its rows are compared with those of each.

Request: {"artifact": folder, "source": folder with the safetensors, "block": weights of a block at least, "quiet":
share of the norm, below which a block or row is measured against that share, "moved": whether the recipe moves weights
away from what each would be rounded to by itself}
Result: {"tensors": [a quality.tensors.TensorMeasure each], "expected": names that must be there, "surplus": names that
nothing in the source stands for, "bytes": of all weights of the graph, "parameters": of all tensors of the source}
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnx_graph import FLOATS, Graph, Weight
from rounding import beyond_rounding
from source_tensors import Checkpoint, Rows
from stage import Say, run
from tensor_measure import measure

# How the builder names modules, and how a checkpoint does.
_RENAMED = ((".attn.", ".self_attn."), (re.compile(r"^model\.layers\.\d+\.final_norm_layernorm$"), "model.norm"))
_TOGETHER = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
_COMPUTED = ("rotary_emb.inv_freq",)
# Families whose norms multiply by 1 + weight; the builder adds the 1 to the weight.
_ONE_MORE = ("gemma", "gemma2", "gemma3", "gemma3_text")


def tensors(request: dict[str, Any], say: Say) -> dict[str, Any]:
    say(0.0, "reading the graph")
    folder = Path(request["artifact"])
    settings = json.loads((folder / "genai_config.json").read_bytes())["model"]
    graph = Graph(str(folder), settings["decoder"]["filename"])
    source = Checkpoint(request["source"])
    config = json.loads(Path(request["source"], "config.json").read_bytes())
    expected = {name for name in source.shapes if not name.endswith(_COMPUTED)}
    weights = list(graph.weights())
    found: dict[str, dict[str, Any]] = {}
    surplus, covered = [], dict.fromkeys(expected, 0)
    for number, weight in enumerate(weights, 1):
        say(number / len(weights), weight.module)
        parts = list(pairs(weight, source, config))
        if not parts:
            surplus.append(f"{weight.module}.{weight.part}")
        for name, wanted, got in parts:
            if wanted.shape != got.shape:
                continue  # not among the measured ones, and so found missing
            block = max(request["block"], weight.run)
            figures = measure(wanted, got, block, request["quiet"])
            if weight.type not in FLOATS:
                figures |= beyond_rounding(wanted, got, moved=request["moved"])
            # A tied embedding is there twice, and each place must hold it.
            place = name if name not in found else f"{name} ({weight.module})"
            kept = {"type": weight.type, "weights": got.shape[0] * got.shape[1], "block": block}
            found[place] = {"name": place, **kept, **figures}
            whole = name.partition("[")[0]
            if whole != name and whole in covered:
                covered[whole] += got.shape[0]
    # A tensor that the builder took apart is there when all of its rows are.
    expected -= {name for name, rows in covered.items() if rows == source.shapes[name][0] and name not in found}
    return {
        "tensors": list(found.values()),
        "expected": sorted(expected),
        "surplus": surplus,
        "bytes": graph.bytes,
        "parameters": source.parameters,
    }


def pairs(weight: Weight, source: Checkpoint, config: dict[str, Any]) -> Iterator[tuple[str, Rows, Rows]]:
    """(name, the source's rows, the artifact's rows) for each tensor of the source that stands in this weight."""
    module = module_name(weight.module)
    name = f"{module}.{weight.part}"
    before, _, last = module.rpartition(".")
    if name in source.shapes:
        rows = source.rows(name)
        one_more = config.get("model_type") in _ONE_MORE and last.endswith("norm") and weight.part == "weight"
        yield name, rows.plus(1.0) if one_more else rows, weight.rows
    elif last in _TOGETHER:
        yield from _divided([f"{before}.{part}.{weight.part}" for part in _TOGETHER[last]], weight, source)
    elif module == "lm_head" and weight.part == "weight" and "model.embed_tokens.weight" in source.shapes:
        yield "model.embed_tokens.weight", source.rows("model.embed_tokens.weight"), weight.rows
    else:
        yield from _part_of(before, last, weight, source, config)


def module_name(module: str) -> str:
    """The module's name in a checkpoint."""
    for old, new in _RENAMED:
        module = module.replace(old, new) if isinstance(old, str) else old.sub(new, module)
    return module


def _divided(names: list[str], weight: Weight, source: Checkpoint) -> Iterator[tuple[str, Rows, Rows]]:
    """Several tensors of the source, whose rows stand in this weight one after the other."""
    start = 0
    for name in names:
        if name not in source.shapes:
            continue
        wanted = source.rows(name)
        along = wanted.shape[0] if weight.part == "weight" else wanted.shape[1]
        if weight.part == "weight" and start + along <= weight.rows.shape[0]:
            yield name, wanted, weight.rows.cut(start, start + along)
        elif weight.part == "bias" and start + along <= weight.rows.shape[1]:
            first, whole = start, weight.rows
            yield name, wanted, Rows(1, along, lambda _a, _b, f=first, n=along, w=whole: w[0:1][:, f : f + n])
        start += along


def _part_of(
    before: str, last: str, weight: Weight, source: Checkpoint, config: dict[str, Any]
) -> Iterator[tuple[str, Rows, Rows]]:
    """A tensor of the source that has more rows than this weight: what the builder took apart."""
    for together, parts in _TOGETHER.items():
        name = f"{before}.{together}.{weight.part}"
        if last not in parts or name not in source.shapes or weight.part != "weight":
            continue
        start = _start(together, last, config, source.shapes[name][0])
        rows = weight.rows.shape[0]
        yield f"{name}[{last}]", source.rows(name).cut(start, start + rows), weight.rows


def _start(together: str, last: str, config: dict[str, Any], rows: int) -> int:
    if together == "gate_up_proj":
        return 0 if last == "gate_proj" else rows // 2
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    width = rows // (heads + 2 * groups)
    return {"q_proj": 0, "k_proj": heads * width, "v_proj": (heads + groups) * width}[last]


if __name__ == "__main__":
    sys.exit(run(tensors))
