"""What llama.cpp's quantiser makes. Types below 3 bits that it makes only with an importance matrix are not in it."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from edgewright_controller.compile.recipe_option import Choice, RuntimeRecipes

QUANTIZATIONS: Final = (
    *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S"),
    *("Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"),
)
UNQUANTISED: Final = ("F32", "F16", "BF16")
_QUANTISED: Final = tuple(name for name in QUANTIZATIONS if name not in UNQUANTISED)

RECIPES: Final = RuntimeRecipes(
    QUANTIZATIONS,
    MappingProxyType(
        {
            # Every tensor of the one type, without llama.cpp's mixture.
            "pure": Choice(False, (False, True), _QUANTISED),
        }
    ),
)
