"""The cure of a fault between transformers 5 and mlx-lm: the base of the rotary embedding.

transformers 5 writes `rope_parameters: {"rope_theta": 100000.0, "rope_type": "default"}`. mlx-lm 0.32 reads a
top-level `rope_theta`, and `rope_scaling` for the kinds that scale; where they are missing it takes 10000 and no
scaling, and the model runs, fluently, with the wrong base. `cure` writes what mlx-lm reads. mlx-lm copies the
config into its output, so the artifact has the cured one too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ConfigError(ValueError):
    """This config cannot be said in mlx-lm's words."""


def cure(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json with `rope_theta` and `rope_scaling` where mlx-lm reads them.

    What stands there already is left alone. Raises ConfigError for a different base in each kind of layer.
    """
    cured = dict(config)
    rope = cured.get("rope_parameters")
    if rope is None:
        return cured
    if not isinstance(rope, Mapping) or any(isinstance(value, Mapping) for value in rope.values()):
        raise ConfigError("config.json: rope_parameters differ between kinds of layers; mlx-lm would not read them")
    if "rope_theta" in rope:
        cured.setdefault("rope_theta", rope["rope_theta"])
    if rope.get("rope_type", "default") != "default":
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        cured.setdefault("rope_scaling", scaling)
    return cured
