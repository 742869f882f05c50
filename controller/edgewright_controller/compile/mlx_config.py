"""The cure of a fault between transformers 5 and mlx-lm: the parameters of the rotary embedding.

transformers 5 writes `rope_parameters: {"rope_theta": 100000.0, "rope_type": "default"}`, with `partial_rotary_factor`
where only a part of each head is rotated, and one such table for each kind of layer where they differ. mlx-lm 0.32
reads those at the top level, and `rope_scaling` for the kinds that scale; where they are missing it takes bases of its
own choice, the whole head and no scaling, and the model runs, fluently, with the wrong embedding. `cure` writes what
mlx-lm reads. mlx-lm copies the config into its output, so the artifact has the cured one too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Where mlx-lm reads what stands in `rope_parameters`; GPT-NeoX has a name of its own for the part that is rotated.
_READ_AS: Final[Mapping[str, tuple[str, ...]]] = {
    "rope_theta": ("rope_theta",),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct"),
}
# Model types whose layers have two bases, and that mlx-lm knows by these names.
_TWO_BASES: Final = ("gemma3_text",)
_GLOBAL, _LOCAL = "full_attention", "sliding_attention"


class ConfigError(ValueError):
    """This config cannot be said in mlx-lm's words."""


def cure(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json with what mlx-lm reads where it reads it, in a `text_config` too.

    What stands there already is left alone. Raises ConfigError for layers of kinds that mlx-lm does not tell apart,
    and for a parameter that mlx-lm is not known to read anywhere.
    """
    cured = dict(config)
    if isinstance(cured.get("text_config"), Mapping):
        cured["text_config"] = cure(cured["text_config"])
    rope = cured.get("rope_parameters")
    if rope is None:
        return cured
    if not isinstance(rope, Mapping):
        raise ConfigError("config.json: rope_parameters: not a table")
    if any(isinstance(value, Mapping) for value in rope.values()):
        if cured.get("model_type") not in _TWO_BASES or not rope.keys() <= {_GLOBAL, _LOCAL}:
            raise ConfigError("config.json: rope_parameters differ between kinds of layers; mlx-lm would not read them")
        return _two_bases(cured, rope.get(_GLOBAL, {}), rope.get(_LOCAL, {}))
    for key, names in _READ_AS.items():
        if key in rope:
            for name in names:
                cured.setdefault(name, rope[key])
    if rope.get("rope_type", "default") == "default":
        unknown = sorted(rope.keys() - _READ_AS.keys() - {"rope_type", "type"})
        if unknown:
            raise ConfigError(f"config.json: rope_parameters: mlx-lm is not known to read {', '.join(unknown)}")
    else:
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        cured.setdefault("rope_scaling", scaling)
    return cured


def _two_bases(cured: dict[str, Any], everywhere: Mapping[str, Any], nearby: Mapping[str, Any]) -> dict[str, Any]:
    """For a Gemma 3: layers that look at all of the text, and the others that look at a window of it."""
    if nearby.get("rope_type", "default") != "default":
        raise ConfigError("config.json: rope_parameters: mlx-lm scales no layer that looks at a window of the text")
    for key, rope in (("rope_theta", everywhere), ("rope_local_base_freq", nearby)):
        if "rope_theta" in rope:
            cured.setdefault(key, rope["rope_theta"])
    if everywhere.get("rope_type", "default") != "default":
        cured.setdefault("rope_scaling", {key: value for key, value in everywhere.items() if key != "rope_theta"})
    kinds = cured.get("layer_types")
    if kinds is not None:
        # mlx-lm has it that one layer in so many looks at all of the text, and takes 6 where nothing is said.
        every = kinds.index(_GLOBAL) + 1 if _GLOBAL in kinds else len(kinds) + 1
        if kinds != [_GLOBAL if (i + 1) % every == 0 else _LOCAL for i in range(len(kinds))]:
            raise ConfigError("config.json: layer_types follow no pattern that mlx-lm knows")
        cured.setdefault("sliding_window_pattern", every)
    return cured
