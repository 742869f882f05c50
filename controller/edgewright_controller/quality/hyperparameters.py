"""Whether a runtime computes with the source's hyperparameters. Pure.

What counts is what the runtime holds after loading, not what the artifact's file spells: a right number under a name
that the runtime does not read is a wrong number.

A rotary embedding is compared by its angles: the slowest of a step, and the geometric mean of all (`rope_slowest`,
`rope_middle`, in radians). They are the same for whatever way a runtime has of saying base and scaling. The formulas
are those of transformers' `modeling_rope_utils`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

Value = int | float | str | bool | None

# float32, in which runtimes keep what config.json writes in decimals, and raise it to powers.
TOLERANCE: Final = 1e-6
ANGLE_TOLERANCE: Final = 1e-5

# By the names that children report. One that a runtime does not have is left out by its child, which says so.
NAMES: Final = (
    *("hidden", "layers", "heads", "kv_heads", "head_dim", "inner", "vocab", "context"),
    *("rope_base", "rope_scale", "rope_dims", "norm_epsilon", "activation", "tied_embedding", "sliding_window"),
    *("rope_slowest", "rope_middle", "attention_scale"),
)
_ANGLES: Final = ("rope_slowest", "rope_middle")

# Names of transformers for the same function; the approximation by tanh differs from it, and has a name of its own.
_SAME_ACTIVATION: Final[Mapping[str, str]] = {
    "swish": "silu",
    "gelu_new": "gelu_pytorch_tanh",
    "gelu_fast": "gelu_pytorch_tanh",
    "gelu_python_tanh": "gelu_pytorch_tanh",
    "gelu_accurate": "gelu_pytorch_tanh",
    "gelu_python": "gelu",
}


def of_config(config: Mapping[str, Any]) -> dict[str, Value]:
    """The source's hyperparameters under our names, from a config.json of transformers 4 or 5.

    What the file leaves out is left out here: then the runtime's own default is not judged. Of a model whose kinds of
    layers rotate differently, those of full attention are meant.
    """
    text = config.get("text_config", config)
    rope = _rope(text)
    heads, hidden = text.get("num_attention_heads"), text.get("hidden_size")
    head_dim = text.get("head_dim") or (hidden // heads if heads and hidden else None)
    activation = text.get("hidden_act") or text.get("hidden_activation")
    found: dict[str, Value] = {
        "hidden": hidden,
        "layers": text.get("num_hidden_layers"),
        "heads": heads,
        "kv_heads": text.get("num_key_value_heads", heads),
        "head_dim": head_dim,
        "inner": text.get("intermediate_size"),
        "vocab": text.get("vocab_size"),
        "rope_base": rope.get("rope_theta"),
        "norm_epsilon": text.get("rms_norm_eps"),
        "activation": _SAME_ACTIVATION.get(activation, activation),
        "tied_embedding": text.get("tie_word_embeddings"),
        "sliding_window": _window(text),
    }
    if head_dim:
        found |= _angles(rope, int(head_dim))
        found["attention_scale"] = _attention_scale(text, rope, int(head_dim))
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


def of_angles(angles: Sequence[float]) -> dict[str, float]:
    """How a rotary embedding is compared, from the angle of one step for each pair of dimensions, in radians.

    Pairs that do not turn at all are left out.
    """
    turning = [angle for angle in angles if angle > 0]
    if not turning:
        return {}
    return {
        "rope_slowest": min(turning),
        "rope_middle": math.exp(math.fsum(map(math.log, turning)) / len(turning)),
    }


def differences(source: Mapping[str, Value], runtime: Mapping[str, Value]) -> tuple[str, ...]:
    """What the runtime has otherwise than the source, in words. Only names that both know are compared."""
    words = []
    for name in NAMES:
        if name not in source or name not in runtime:
            continue
        wanted, got = source[name], runtime[name]
        if not _same(wanted, got, ANGLE_TOLERANCE if name in _ANGLES else TOLERANCE):
            words.append(f"{name}: the source has {wanted}, the runtime computes with {got}")
    return tuple(words)


def _same(wanted: Value, got: Value, tolerance: float) -> bool:
    numbers = (int, float)
    if isinstance(wanted, numbers) and isinstance(got, numbers) and not isinstance(wanted, bool):
        return abs(wanted - got) <= tolerance * max(abs(wanted), abs(got))
    return wanted == got


def _rope(text: Mapping[str, Any]) -> dict[str, Any]:
    """The rotary embedding's parameters, wherever a version of transformers writes them; of full attention."""
    rope = dict(text.get("rope_parameters") or text.get("rope_scaling") or {})
    if any(isinstance(value, Mapping) for value in rope.values()):
        rope = dict(rope.get("full_attention") or {})
    for name in ("rope_theta", "partial_rotary_factor"):
        if name not in rope and text.get(name) is not None:
            rope[name] = text[name]
    return rope


def _angles(rope: Mapping[str, Any], head_dim: int) -> dict[str, float]:
    """Nothing for a kind of scaling that is not known here."""
    base = rope.get("rope_theta")
    kind = rope.get("rope_type", rope.get("type", "default"))
    dims = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    if not base or dims < 2:
        return {}
    angles = [float(base) ** (-2 * pair / dims) for pair in range(dims // 2)]
    if kind == "linear":
        angles = [angle / rope["factor"] for angle in angles]
    elif kind == "llama3":
        angles = [_as_llama3(angle, rope) for angle in angles]
    elif kind != "default":
        return {}
    return of_angles(angles)


def _as_llama3(angle: float, rope: Mapping[str, Any]) -> float:
    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] * angle / (2 * math.pi)
    if turns < low:
        return float(angle / factor)
    if turns > high:
        return angle
    smooth = (turns - low) / (high - low)
    return float((1 - smooth) * angle / factor + smooth * angle)


def _attention_scale(text: Mapping[str, Any], rope: Mapping[str, Any], head_dim: int) -> float | None:
    """What scores are multiplied by; None where the embedding's scaling has a say in it."""
    if rope.get("rope_type", rope.get("type", "default")) not in ("default", "linear", "llama3"):
        return None
    if text.get("attention_multiplier") is not None:
        return float(text["attention_multiplier"])
    return float((text.get("query_pre_attn_scalar") or head_dim) ** -0.5)
