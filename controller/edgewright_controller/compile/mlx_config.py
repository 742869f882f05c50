"""The cure of a fault between transformers 5 and mlx-lm: the parameters of the rotary embedding.

transformers 5 writes `rope_parameters: {"rope_theta": 100000.0, "rope_type": "default"}`, with `partial_rotary_factor`
where only a part of each head is rotated. mlx-lm 0.32 reads those at the top level, and `rope_scaling` for the kinds
that scale; where they are missing it takes 10000, a part of its own choice and no scaling, and the model runs,
fluently, with the wrong embedding. `cure` writes what mlx-lm reads. mlx-lm copies the config into its output, so the
artifact has the cured one too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

# Where mlx-lm reads what stands in `rope_parameters`; GPT-NeoX has a name of its own for the part that is rotated.
_READ_AS: Final[Mapping[str, tuple[str, ...]]] = {
    "rope_theta": ("rope_theta",),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct"),
}


class ConfigError(ValueError):
    """This config cannot be said in mlx-lm's words."""


def cure(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json with what mlx-lm reads where it reads it.

    What stands there already is left alone. Raises ConfigError for a different base in each kind of layer, and for
    a parameter that mlx-lm is not known to read anywhere.
    """
    cured = dict(config)
    rope = cured.get("rope_parameters")
    if rope is None:
        return cured
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        raise ConfigError("config.json: rope_parameters differ between kinds of layers; mlx-lm would not read them")
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
