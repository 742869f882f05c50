"""Whether a runtime computes with the source's hyperparameters. Pure.

What counts is what the runtime holds after loading, not what the artifact's file spells: a right number under a name
that the runtime does not read is a wrong number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Value = int | float | str | bool | None

# float32, in which runtimes keep what config.json writes in decimals.
TOLERANCE: Final = 1e-6

# By the names that children report. One that a runtime does not have is left out by its child, which says so.
NAMES: Final = (
    *("hidden", "layers", "heads", "kv_heads", "head_dim", "inner", "vocab", "context"),
    *("rope_base", "rope_scale", "rope_dims", "norm_epsilon", "activation", "tied_embedding", "sliding_window"),
)


def of_config(config: Mapping[str, Any]) -> dict[str, Value]:
    """The source's hyperparameters under our names, from a config.json of transformers 4 or 5.

    What the file leaves out is left out here: then the runtime's own default is not judged.
    """
    text = config.get("text_config", config)
    rope = text.get("rope_parameters") or {}
    rope = rope if not any(isinstance(value, Mapping) for value in rope.values()) else {}
    heads, hidden = text.get("num_attention_heads"), text.get("hidden_size")
    head_dim = text.get("head_dim") or (hidden // heads if heads and hidden else None)
    found: dict[str, Value] = {
        "hidden": hidden,
        "layers": text.get("num_hidden_layers"),
        "heads": heads,
        "kv_heads": text.get("num_key_value_heads", heads),
        "head_dim": head_dim,
        "inner": text.get("intermediate_size"),
        "vocab": text.get("vocab_size"),
        "rope_base": rope.get("rope_theta", text.get("rope_theta")),
        "norm_epsilon": text.get("rms_norm_eps"),
        "activation": text.get("hidden_act") or text.get("hidden_activation"),
        "tied_embedding": text.get("tie_word_embeddings"),
        "sliding_window": _window(text),
    }
    return {name: value for name, value in found.items() if value is not None}


def _window(text: Mapping[str, Any]) -> int | None:
    """How far back layers look that do not look at all of the text; None where none does, or nothing is further back.

    Texts by which models are measured are shorter than most windows, so a lost one shows here only.
    """
    window, context = text.get("sliding_window"), text.get("max_position_embeddings")
    kinds = text.get("layer_types")
    if type(window) is not int or text.get("use_sliding_window") is False:
        return None
    if (isinstance(context, int) and window >= context) or (kinds is not None and "sliding_attention" not in kinds):
        return None
    return window


def differences(source: Mapping[str, Value], runtime: Mapping[str, Value]) -> tuple[str, ...]:
    """What the runtime has otherwise than the source, in words. Only names that both know are compared."""
    words = []
    for name in NAMES:
        if name not in source or name not in runtime:
            continue
        wanted, got = source[name], runtime[name]
        if not _same(wanted, got):
            words.append(f"{name}: the source has {wanted}, the runtime computes with {got}")
    return tuple(words)


def _same(wanted: Value, got: Value) -> bool:
    numbers = (int, float)
    if isinstance(wanted, numbers) and isinstance(got, numbers) and not isinstance(wanted, bool):
        return abs(wanted - got) <= TOLERANCE * max(abs(wanted), abs(got))
    return wanted == got
