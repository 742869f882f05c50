"""Which recipes `quantization = "auto"` chooses from. Pure.

Everything that the runtime's own converter makes in one pass; what the profile's table `recipe` says holds for each.
Recipes that learn their rounding take hours, and are left to whoever names one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any, Final

from edgewright_controller.compile import recipe
from edgewright_controller.compile.recipe import Recipe
from edgewright_controller.compile.recipe_option import Option, RecipeError

# Options of which every value is a candidate of its own, unless the profile names one.
_VARIED: Final[Mapping[str, Mapping[str, tuple[Option, ...]]]] = {
    "gguf": {},
    "mlx": {"group_size": (64, 32, 128)},
    "onnx": {"block_size": (32, 64, 128)},
}


def candidates(runtime: str, options: Mapping[str, Option]) -> tuple[Recipe, ...]:
    """The recipes to choose from; `options` are the profile's, those that follow from its accelerator included.

    Raises RecipeError when the options leave none, with what is wrong with them.
    """
    found: dict[Recipe, None] = {}
    problem: RecipeError | None = None
    for quantization in recipe.QUANTIZATIONS[runtime]:
        for varied in _variations(runtime, options):
            try:
                found[recipe.make(runtime, quantization, {**varied, **options})] = None
            except RecipeError as error:
                # An option that one precision does not know, such as a group's size for a float type.
                problem = error
    if not found and problem is not None:
        raise problem
    return tuple(found)


def _variations(runtime: str, options: Mapping[str, Option]) -> Iterator[dict[str, Any]]:
    varied = {name: values for name, values in _VARIED[runtime].items() if name not in options}
    for values in product(*varied.values()):
        yield dict(zip(varied, values, strict=True))
