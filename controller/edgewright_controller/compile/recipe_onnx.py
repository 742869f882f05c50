"""What Olive makes for ONNX, by precision and by the provider that runs the graph on the device."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from edgewright_controller.compile import olive_passes
from edgewright_controller.compile.recipe_option import Choice, Option, RecipeError, RuntimeRecipes

QUANTIZATIONS: Final = ("int4", "int8", "fp16", "fp32")

# Which execution provider the graph is made for, by the accelerator that a profile names, and what its maker calls it.
# A provider with its own compiler is not among them.
PROVIDERS: Final[Mapping[str, str]] = MappingProxyType(
    {"cpu": "CPU", "cuda": "CUDA", "dml": "DirectML", "webgpu": "WebGPU"}
)


def of_accelerator(accelerator: str) -> dict[str, Option]:
    """The options that follow from a profile's accelerator. Raises RecipeError."""
    if accelerator not in PROVIDERS:
        raise RecipeError(
            "accelerator",
            f"ONNX for {accelerator} cannot be compiled here yet;"
            ' build it elsewhere and ship it with quantization = "prebuilt"',
        )
    return {"provider": accelerator}


def _unproven(_quantization: str, options: Mapping[str, Any]) -> tuple[str, ...]:
    """What no check can see of such an artifact on a machine without the hardware, in words."""
    if options["provider"] == "cpu":
        return ()
    name = PROVIDERS[options["provider"]]
    return (f"{name}'s own kernels and their speed: the graph can be measured on onnxruntime's CPU provider only",)


def _check_together(quantization: str, options: Mapping[str, Any]) -> None:
    if quantization == "fp16" and options["provider"] == "cpu":
        raise RecipeError("quantization", "fp16 needs an accelerator; on a cpu use fp32, int8 or int4")


RECIPES: Final = RuntimeRecipes(
    QUANTIZATIONS,
    MappingProxyType(
        {
            # docs/decisions/0022 has what other defaults cost.
            "block_size": Choice(32, (16, 32, 64, 128, 256), ("int4",)),
            "symmetric": Choice(False, (False, True), ("int4",)),
            # The embedding in int4 too, its table the output layer's as well: half the size of a small model with a
            # large vocabulary.
            "tie_embeddings": Choice(True, (False, True), ("int4",)),
            "provider": Choice("cpu", tuple(PROVIDERS), QUANTIZATIONS),
            "passes": Choice([], (), QUANTIZATIONS, olive_passes.spelling),
        }
    ),
    _check_together,
    unproven=_unproven,
)
