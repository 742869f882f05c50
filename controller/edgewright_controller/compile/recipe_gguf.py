"""What llama.cpp's quantiser makes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from edgewright_controller.compile.recipe_option import Choice, Option, RecipeError, RuntimeRecipes

UNQUANTISED: Final = ("F32", "F16", "BF16")
# Below 3 bits a weight, and what llama.cpp itself makes only with an importance matrix.
IMATRIX_NEEDED: Final = (
    *("Q2_K", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
    *("TQ2_0", "TQ1_0"),
)
_QUANTISED: Final = (
    *("Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS"),
    *("Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", *IMATRIX_NEEDED),
)
QUANTIZATIONS: Final = (*UNQUANTISED, *_QUANTISED)

# Types of single tensors.
TENSOR_TYPES: Final = (
    *(*UNQUANTISED, "Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K"),
    *("IQ3_S", "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0"),
)
# llama.cpp cannot round to these without a matrix, and none is measured of the embedding and the output layer.
_NOT_FOR_EMBEDDINGS: Final = ("IQ2_XS", "IQ2_XXS", "IQ1_S")
_IMATRIX_NEEDED_BY: Final = ("Q2_K", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0")

MAX_OVERRIDES: Final = 64
MAX_PATTERN: Final = 200
MIN_SPLIT_BYTES: Final = 1_000_000


def _overrides(key: str, value: Any) -> Option:
    """The patterns in the order in which they stand, as pairs: the first that fits a tensor decides."""
    if isinstance(value, list) and all(isinstance(pair, list) and len(pair) == 2 for pair in value):
        value = dict(value)  # as it stands in a recipe
    if not isinstance(value, Mapping):
        raise RecipeError(key, 'must be a table of patterns and types, like { "attn_v" = "Q8_0" }')
    if len(value) > MAX_OVERRIDES:
        raise RecipeError(key, f"has {len(value)} patterns; at most {MAX_OVERRIDES}")
    for pattern, kind in value.items():
        where = f"{key}.{pattern[:MAX_PATTERN]!r}"
        if kind not in TENSOR_TYPES:
            raise RecipeError(where, f"there is no type {kind!r} of a tensor; there are {', '.join(TENSOR_TYPES)}")
        if not pattern or len(pattern) > MAX_PATTERN:
            raise RecipeError(where, f"a pattern has 1 to {MAX_PATTERN} characters")
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise RecipeError(where, f"is not a regular expression: {error}") from error
    return [[pattern, kind] for pattern, kind in value.items()]


def _split(key: str, value: Any) -> Option:
    if value is None:
        return None
    if type(value) is not int or value < MIN_SPLIT_BYTES:
        raise RecipeError(key, f"{value!r} is no size of a file in bytes; at least {MIN_SPLIT_BYTES:,}")
    return value


def _check_together(quantization: str, options: Mapping[str, Any]) -> None:
    if quantization in UNQUANTISED:
        return
    if quantization in IMATRIX_NEEDED and not options["imatrix"]:
        raise RecipeError("recipe.imatrix", f"{quantization} without an importance matrix is of no use; take it away")
    if options["pure"] and quantization in (*_NOT_FOR_EMBEDDINGS, "IQ2_S"):
        raise RecipeError("recipe.pure", f"the embedding cannot be {quantization}; take `pure` away")
    for name in ("output_tensor_type", "token_embedding_type"):
        if options[name] in _NOT_FOR_EMBEDDINGS:
            raise RecipeError(f"recipe.{name}", f"cannot be {options[name]}, which needs an importance matrix")
    chosen = {f"overrides.{pattern!r}": kind for pattern, kind in options["overrides"]}
    chosen |= {name: options[name] for name in ("output_tensor_type", "token_embedding_type") if options[name]}
    for name, kind in chosen.items():
        if kind in _IMATRIX_NEEDED_BY and not options["imatrix"]:
            raise RecipeError(f"recipe.{name}", f"{kind} needs an importance matrix: add imatrix = true")


def _calibrated(_quantization: str, options: Mapping[str, Any]) -> bool:
    return bool(options.get("imatrix"))


_TYPE_OF_ONE: Final = Choice(None, (None, *TENSOR_TYPES), _QUANTISED)

RECIPES: Final = RuntimeRecipes(
    QUANTIZATIONS,
    MappingProxyType(
        {
            # Every tensor of the one type, without llama.cpp's mixture.
            "pure": Choice(False, (False, True), _QUANTISED),
            "imatrix": Choice(False, (False, True), _QUANTISED, defaults=dict.fromkeys(IMATRIX_NEEDED, True)),
            "overrides": Choice([], (), _QUANTISED, _overrides),
            "output_tensor_type": _TYPE_OF_ONE,
            "token_embedding_type": _TYPE_OF_ONE,
            "split": Choice(None, (), QUANTIZATIONS, _split),
        }
    ),
    _check_together,
    calibrated=_calibrated,
)
