"""Which recipe would fit where one does not: the runtime's own recipes, tried by their predicted size. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgewright_controller import artifact_size, device_memory
from edgewright_controller.compile.recipe import QUANTIZATIONS, recipe_of
from edgewright_controller.compile.recipe_option import RecipeError
from edgewright_controller.manifest import Profile

if TYPE_CHECKING:
    from edgewright_controller.compile.source import ModelFacts


def would_fit(
    profile: Profile, model: ModelFacts, beside_bytes: int, instead_of_bytes: int, fits: Callable[[int, int], bool]
) -> str:
    """A sentence's end that names the largest artifact that would fit, or says that there is none.

    `fits(memory, artifact)` tells of bytes whether the device has room for them, `beside_bytes` are a source's besides
    its weights, `instead_of_bytes` those of the artifact that does not fit.
    """
    best: tuple[int, int, str] | None = None
    for quantization in QUANTIZATIONS[profile.runtime]:
        # Options are of the recipe that does not fit; its group sizes and mixtures say nothing about another.
        other = profile.model_copy(
            update={"quantization": quantization, "recipe": type(profile.recipe)(), "prebuilt": None}
        )
        try:
            size = artifact_size.predicted_bytes(recipe_of(other), model, beside_bytes)
        except RecipeError:
            continue  # not for this accelerator
        memory = device_memory.predict(other, size, model).total
        if size < instead_of_bytes and fits(memory, size):
            best = max(best or (0, 0, ""), (size, memory, quantization))
    if best is None:
        return f"no recipe of {profile.runtime} would fit; shorten options.context, or choose a smaller model"
    size, memory, quantization = best
    return f'quantization = "{quantization}" would fit: about {memory:,} bytes of memory, {size:,} of disk'
