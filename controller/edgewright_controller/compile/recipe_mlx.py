"""What mlx-lm's converter makes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edgewright_controller.compile.recipe_option import Choice, Option, RecipeError, RuntimeRecipes

_BITS: Final = ("2bit", "3bit", "4bit", "5bit", "6bit", "8bit")
_MX_BITS: Final = {"mxfp4": "4bit", "mxfp8": "8bit"}


def _check_together(quantization: str, options: Mapping[str, Option]) -> None:
    bits = _MX_BITS.get(str(options.get("mode")))
    if bits and (quantization != bits or options["group_size"] != 32):
        raise RecipeError("recipe.mode", f'{options["mode"]} needs quantization = "{bits}" and group_size = 32')


RECIPES: Final = RuntimeRecipes(
    (*_BITS, "bf16", "fp16", "fp32"),
    MappingProxyType(
        {
            "group_size": Choice(64, (32, 64, 128), _BITS),
            "mode": Choice("affine", ("affine", "mxfp4", "mxfp8"), _BITS),
        }
    ),
    _check_together,
)
