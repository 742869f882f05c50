"""What mlx-lm's converter makes, and its recipes that learn from a text."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from edgewright_controller.compile.recipe_option import Choice, RecipeError, RuntimeRecipes

_BITS: Final = ("2bit", "3bit", "4bit", "5bit", "6bit", "8bit")
# Fewer bits for most layers and more for those that mlx-lm holds to be sensitive.
MIXED: Final = ("mixed_2_6", "mixed_3_4", "mixed_3_6", "mixed_4_6")
FLOATS: Final = ("bf16", "fp16", "fp32")

# The bits and the group that such a mode has, which are no choice.
_FIXED: Final = {"mxfp4": ("4bit", 32), "nvfp4": ("4bit", 16), "mxfp8": ("8bit", 32)}

LEARNED: Final = ("awq", "dwq", "gptq", "dynamic")
_LEARNED_BITS: Final = {"gptq": ("2bit", "4bit", "8bit"), "dynamic": ("2bit", "3bit", "4bit", "5bit", "6bit")}


def _check_together(quantization: str, options: Mapping[str, Any]) -> None:
    if quantization in FLOATS:
        return
    mode, group, learned = options.get("mode", "affine"), options["group_size"], options.get("learned")
    if mode in _FIXED and (quantization, group) != _FIXED[mode]:
        bits, fixed = _FIXED[mode]
        raise RecipeError("recipe.mode", f'{mode} needs quantization = "{bits}" and group_size = {fixed}')
    if mode == "affine" and group == 16:
        raise RecipeError("recipe.group_size", "16 is nvfp4's; affine has 32, 64 or 128")
    if learned and mode != "affine":
        raise RecipeError("recipe.learned", f"{learned} makes affine groups, not {mode}; take one of the two away")
    if learned in _LEARNED_BITS and quantization not in _LEARNED_BITS[learned]:
        raise RecipeError("recipe.learned", f"{learned} makes {', '.join(_LEARNED_BITS[learned])}, not {quantization}")


def _calibrated(_quantization: str, options: Mapping[str, Any]) -> bool:
    return options.get("learned") is not None


def _moves(options: Mapping[str, Any]) -> bool:
    # dynamic only chooses how many bits a layer has.
    return options.get("learned") in ("awq", "dwq", "gptq")


def check_rows(group: int, rows: Mapping[str, int]) -> None:
    """Raise RecipeError when the group does not divide a length of rows: mlx-lm would leave such layers as they are,
    and say nothing. `rows`: what has rows of a length, with the length."""
    short = {what: length for what, length in rows.items() if length % group}
    if short:
        listed = ", ".join(f"{length} ({what})" for what, length in short.items())
        fitting = [size for size in (128, 64, 32) if not any(length % size for length in rows.values())]
        advice = f"take group_size = {fitting[0]}" if fitting else "this model cannot be quantised for MLX"
        raise RecipeError("recipe.group_size", f"{group} does not divide rows of {listed}; {advice}")


RECIPES: Final = RuntimeRecipes(
    (*_BITS, *MIXED, *FLOATS),
    MappingProxyType(
        {
            "group_size": Choice(64, (16, 32, 64, 128), (*_BITS, *MIXED)),
            "mode": Choice("affine", ("affine", *_FIXED), _BITS),
            "learned": Choice(None, (None, *LEARNED), _BITS),
        }
    ),
    _check_together,
    calibrated=_calibrated,
    moves=_moves,
)
