"""Which type llama.cpp gives each tensor of a model, by its recipe. Pure: what `llama_tensor_get_type` of llama.cpp's
src/llama-quant.cpp decides for a dense model of the usual parts, so that a size can be told before it is built."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from edgewright_controller.compile.recipe import Recipe

BITS: Final[Mapping[str, float]] = {
    **{"F32": 32, "F16": 16, "BF16": 16, "Q8_0": 8.5, "Q6_K": 6.5625, "Q5_K": 5.5, "Q5_1": 6, "Q5_0": 5.5},
    **{"Q4_K": 4.5, "Q4_1": 5, "Q4_0": 4.5, "IQ4_NL": 4.5, "IQ4_XS": 4.25, "Q3_K": 3.4375, "IQ3_S": 3.4375},
    **{"IQ3_XXS": 3.0625, "Q2_K": 2.625, "IQ2_S": 2.5625, "IQ2_XS": 2.3125, "IQ2_XXS": 2.0625, "IQ1_M": 1.75},
    **{"IQ1_S": 1.5625, "TQ2_0": 2.0625, "TQ1_0": 1.6875},
}
# What llama.cpp takes when a row does not divide by the 256 weights of such a type's block.
SHORT_ROWS: Final[Mapping[str, str]] = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    **{"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"},
}
_BASE: Final[Mapping[str, str]] = {
    **{"Q5_K_M": "Q5_K", "Q5_K_S": "Q5_K", "Q4_K_M": "Q4_K", "Q4_K_S": "Q4_K", "Q3_K_L": "Q3_K", "Q3_K_M": "Q3_K"},
    **{"Q3_K_S": "Q3_K", "Q2_K_S": "Q2_K", "IQ3_M": "IQ3_S", "IQ3_XS": "IQ3_S", "IQ2_M": "IQ2_S", "IQ2_S": "IQ2_XS"},
}
_SMALLEST: Final = ("IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S")
_FLOATS: Final = ("F32", "F16", "BF16")

# llama.cpp's names of what stands in each layer.
PARTS: Final = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
EMBEDDING: Final = "token_embd.weight"
OUTPUT: Final = "output.weight"


def in_layer(part: str, layer: int) -> str:
    """llama.cpp's name of a tensor."""
    return f"blk.{layer}.{part}.weight"


def types(recipe: Recipe, layers: int, *, grouped: int, rows: Mapping[str, int], tied: bool) -> dict[str, str]:
    """Each tensor's type, by its name, for a GGUF recipe.

    `grouped`: query heads that share a key; `rows`: the length of a row, by the part's name, EMBEDDING and OUTPUT
    among them; `tied`: the embedding is the output layer too.
    """
    quantization, options = recipe.quantization, recipe.options
    base = _BASE.get(quantization, quantization)
    wanted = {EMBEDDING: base if not tied else _output(quantization, rows[EMBEDDING])}
    wanted[EMBEDDING] = wanted[EMBEDDING] if tied else _embedding(quantization, base)
    if not tied:
        wanted[OUTPUT] = _output(quantization, rows[OUTPUT])
    for layer in range(layers):
        for part in PARTS:
            wanted[in_layer(part, layer)] = _in_layer(
                quantization, part, layer, layers, wide=grouped >= 4, imatrix=bool(options.get("imatrix"))
            )
    if quantization in _FLOATS:
        return wanted
    if options["pure"]:
        wanted = dict.fromkeys(wanted, base)
    found: dict[str, str] = {}
    for name, kind in wanted.items():
        chosen = next((own for pattern, own in options["overrides"] if re.search(pattern, name)), kind)
        if name == EMBEDDING and options["token_embedding_type"]:
            chosen = options["token_embedding_type"]
        elif options["output_tensor_type"] and (name == OUTPUT or (name == EMBEDDING and tied)):
            chosen = options["output_tensor_type"]
        row = rows[name] if name in rows else rows[name.split(".")[2]]
        found[name] = SHORT_ROWS.get(chosen, chosen) if row % 256 else chosen
    return found


def _output(quantization: str, row: int) -> str:
    base = _BASE.get(quantization, quantization)
    if quantization in (*_FLOATS, "Q8_0"):
        return base
    if base in SHORT_ROWS and row % 256:
        return "Q8_0"
    return "Q5_K" if quantization in (*_SMALLEST, "IQ3_XXS") else "Q6_K"


def _embedding(quantization: str, base: str) -> str:
    if quantization in ("IQ2_XXS", "IQ2_XS", "IQ1_S", "IQ1_M"):
        return "Q2_K"
    if quantization in ("IQ2_S", "IQ2_M", "IQ3_XXS"):
        return "IQ3_S"
    return "Q4_K" if quantization in ("TQ1_0", "TQ2_0") else base


def _in_layer(quantization: str, part: str, layer: int, layers: int, *, wide: bool, imatrix: bool) -> str:
    base = _BASE.get(quantization, quantization)
    early = layer < layers // 8
    more = early or layer >= 7 * layers // 8 or (layer - layers // 8) % 3 == 2
    if quantization in _SMALLEST:
        larger = "IQ3_S" if quantization in ("IQ2_S", "IQ2_M") else "Q2_K"
        output = {"IQ1_S": "IQ2_XXS", "IQ1_M": "IQ2_XXS", "IQ2_S": "IQ3_S", "IQ2_M": "IQ3_S"}.get(quantization, base)
        of_part = {"attn_v": "Q4_K" if wide else larger, "attn_output": output, "ffn_down": larger if early else base}
        return of_part.get(part, base)
    nonlinear = {"attn_v": "Q5_K" if wide else base, "ffn_down": "Q5_K" if early and not imatrix else base}
    of_part = {
        "Q5_K_M": {"attn_v": "Q6_K", "ffn_down": "Q6_K"} if more else {},
        "Q4_K_M": {"attn_v": "Q6_K", "ffn_down": "Q6_K"} if more else {},
        "Q4_K_S": {
            "attn_v": "Q5_K" if layer < 4 else base,
            "ffn_down": "Q5_K" if early else base,
        },
        "Q3_K_L": dict.fromkeys(("attn_v", "attn_output", "ffn_down"), "Q5_K"),
        "Q3_K_M": {
            "attn_v": "Q5_K" if layer < 2 else "Q4_K",
            "attn_output": "Q4_K",
            "ffn_down": "Q5_K" if layer < layers // 16 else "Q4_K",
        },
        "Q2_K": {"attn_v": "Q4_K" if wide else "Q3_K", "attn_output": "Q3_K", "ffn_down": "Q3_K"},
        "Q2_K_S": {"attn_v": "Q4_K" if wide else base, "ffn_down": "Q4_K" if early else base},
        "IQ3_XXS": {
            **{"attn_q": "IQ2_S", "attn_k": "IQ2_S", "attn_output": "IQ3_S"},
            "attn_v": "Q4_K" if wide else base,
        },
        "IQ3_XS": {
            **{"attn_q": "IQ3_XXS", "attn_k": "IQ3_XXS", "attn_v": "Q4_K" if wide else base},
            **dict.fromkeys(("ffn_gate", "ffn_up"), "IQ3_XXS" if layers // 8 <= layer < 7 * layers // 8 else base),
        },
        "IQ3_S": {"attn_v": "Q4_K" if wide else base},
        "IQ3_M": {"attn_v": "Q4_K", "attn_output": "Q4_K", "ffn_down": "Q4_K" if early else base},
        "IQ4_NL": nonlinear,
        "IQ4_XS": nonlinear,
        "Q4_0": {"ffn_down": "Q4_1" if early and imatrix else base},
        "Q5_0": {"ffn_down": "Q5_1" if early and imatrix else base},
    }.get(quantization, {})
    return of_part.get(part, base)
