"""What Olive's ModelBuilder makes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edgewright_controller.compile.recipe_option import Choice, Option, RecipeError, RuntimeRecipes

QUANTIZATIONS: Final = ("int4", "int8", "fp16", "fp32")

# Which execution provider the graph is made for. A provider with its own compiler is not among them.
PROVIDERS: Final[Mapping[str, str]] = MappingProxyType({"cpu": "cpu", "cuda": "cuda", "dml": "dml"})


def of_accelerator(accelerator: str) -> dict[str, Option]:
    """The options that follow from a profile's accelerator. Raises RecipeError."""
    if accelerator not in PROVIDERS:
        raise RecipeError(
            "accelerator",
            f"ONNX for {accelerator} cannot be compiled here yet;"
            ' build it elsewhere and ship it with quantization = "prebuilt"',
        )
    return {"provider": PROVIDERS[accelerator]}


def _check_together(quantization: str, options: Mapping[str, Option]) -> None:
    if quantization == "fp16" and options.get("provider") == "cpu":
        raise RecipeError("quantization", "fp16 needs an accelerator; on a cpu use fp32, int8 or int4")


RECIPES: Final = RuntimeRecipes(
    QUANTIZATIONS,
    MappingProxyType(
        {
            "block_size": Choice(32, (16, 32, 64, 128, 256), ("int4",)),
            # The embedding in int4 too, with its scales shared with the output layer's: half the size for a
            # small model with a large vocabulary, and slightly less exact.
            "tie_embeddings": Choice(False, (False, True), ("int4",)),
            "provider": Choice("cpu", tuple(PROVIDERS.values()), QUANTIZATIONS),
        }
    ),
    _check_together,
)
