"""A recipe: every choice of the operator that shapes a build. Pure.

Two profiles with equal recipes share one build, so a recipe has one spelling: defaults are written out, options
that cannot apply are refused or, when they only repeat the default, left out.

What each runtime knows stands in a table of its own: recipe_gguf.py, recipe_mlx.py, recipe_onnx.py.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from edgewright_contract import canonical
from edgewright_controller.compile import recipe_gguf, recipe_mlx, recipe_onnx
from edgewright_controller.compile.recipe_option import Choice, Option, RecipeError, RuntimeRecipes

if TYPE_CHECKING:
    from edgewright_controller.compile.source import ModelFacts

PREBUILT: Final = "prebuilt"

RECIPES: Final[Mapping[str, RuntimeRecipes]] = MappingProxyType(
    {"gguf": recipe_gguf.RECIPES, "mlx": recipe_mlx.RECIPES, "onnx": recipe_onnx.RECIPES}
)
QUANTIZATIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {runtime: recipes.quantizations for runtime, recipes in RECIPES.items()}
)
OPTIONS: Final[Mapping[str, Mapping[str, Choice]]] = MappingProxyType(
    {runtime: recipes.options for runtime, recipes in RECIPES.items()}
)


@dataclass(frozen=True)
class Recipe:
    """Runtime, quantization and options. Made by `make` or `recipe_of`.

    `spelled` has each option, sorted by name, with its value in canonical JSON: so that a recipe with a table in it is
    still a value that may stand in a set.
    """

    runtime: str
    quantization: str
    spelled: tuple[tuple[str, str], ...] = ()

    @property
    def prebuilt(self) -> bool:
        """Whether the artifact was made elsewhere and is shipped as it is."""
        return self.quantization == PREBUILT

    @property
    def toolchain(self) -> str:
        """The toolchain that makes it."""
        return self.runtime if self.prebuilt else RECIPES[self.runtime].toolchain(self.options) or self.runtime

    @property
    def unproven(self) -> tuple[str, ...]:
        """What no check here can see of the artifact, in words; known before it is built."""
        return () if self.prebuilt else RECIPES[self.runtime].unproven(self.quantization, self.options)

    @property
    def calibrated(self) -> bool:
        """Whether the build reads the calibration text, so that the text decides the bytes."""
        return not self.prebuilt and RECIPES[self.runtime].calibrated(self.quantization, self.options)

    @property
    def moves(self) -> bool:
        """Whether it may move weights away from what each of them would be rounded to by itself."""
        return not self.prebuilt and RECIPES[self.runtime].moves(self.options)

    @property
    def options(self) -> dict[str, Any]:
        """The options by name, defaults written out."""
        return {name: json.loads(text) for name, text in self.spelled}

    def to_json(self) -> dict[str, Any]:
        """The document that a build key names."""
        return {"runtime": self.runtime, "quantization": self.quantization, "options": self.options}

    def __str__(self) -> str:
        extra = [
            f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
            for name, value in self.options.items()
            if value != OPTIONS[self.runtime][name].default_for(self.quantization)
        ]
        return " ".join([self.runtime, self.quantization, *extra])


class ProfileLike(Protocol):
    """What a recipe needs of a manifest's profile."""

    @property
    def runtime(self) -> str:
        """gguf, mlx or onnx."""

    @property
    def quantization(self) -> str:
        """The runtime's name of the precision, or "prebuilt"."""

    @property
    def accelerator(self) -> str:
        """What the device runs the model on."""

    @property
    def recipe_options(self) -> Mapping[str, Option]:
        """The table `recipe` of the profile."""


def check_model(recipe: Recipe, model: ModelFacts) -> None:
    """Raise RecipeError where the model's shape rules the recipe out, as far as its config tells."""
    rows = {"hidden_size": model.hidden, "heads times head_dim": model.heads * model.head_dim}
    if model.inner:
        rows["intermediate_size"] = model.inner
    if recipe.runtime == "mlx" and "group_size" in recipe.options:
        recipe_mlx.check_rows(recipe.options["group_size"], rows)
    if recipe.options.get("provider") == "openvino" and "block_size" in recipe.options:
        recipe_onnx.check_rows(recipe.options["block_size"], rows)


def recipe_of(profile: ProfileLike) -> Recipe:
    """The recipe of a manifest's profile. Raises RecipeError, whose key is relative to the profile.

    The accelerator is part of an ONNX recipe only: a GGUF and an MLX folder are the same for every device.
    """
    return make(profile.runtime, profile.quantization, options_of(profile))


def options_of(profile: ProfileLike) -> dict[str, Option]:
    """The options that a profile's table `recipe` and its accelerator say. Raises RecipeError."""
    options = dict(profile.recipe_options)
    if profile.runtime == "onnx" and profile.quantization != PREBUILT:
        options |= recipe_onnx.of_accelerator(profile.accelerator)
    return options


def make(runtime: str, quantization: str, options: Mapping[str, Option] | None = None) -> Recipe:
    """The one spelling of this recipe. Raises RecipeError."""
    if runtime not in RECIPES:
        raise RecipeError("runtime", f"{runtime!r}; there are {', '.join(RECIPES)}")
    given = dict(options or {})
    if quantization == PREBUILT:
        if given:
            raise RecipeError("recipe", "a prebuilt artifact is shipped as it is; take `recipe` away")
        return Recipe(runtime, PREBUILT)
    recipes = RECIPES[runtime]
    if quantization not in recipes.quantizations:
        known = ", ".join(recipes.quantizations)
        raise RecipeError("quantization", f"{runtime} cannot make {quantization!r}; it makes {known}")
    spelled = {name: _checked(runtime, quantization, name, value) for name, value in given.items()}
    chosen = {
        name: spelled.get(name, choice.default_for(quantization))
        for name, choice in recipes.options.items()
        if quantization in choice.only_for
    }
    recipes.check_together(quantization, chosen)
    return Recipe(runtime, quantization, tuple((name, _json(value)) for name, value in sorted(chosen.items())))


def _checked(runtime: str, quantization: str, name: str, value: Option) -> Option:
    options = OPTIONS[runtime]
    if name not in options:
        raise RecipeError(f"recipe.{name}", f"unknown; {runtime} has {', '.join(options)}")
    value = options[name].one_spelling(f"recipe.{name}", value)
    if quantization not in options[name].only_for and value != options[name].default_for(quantization):
        raise RecipeError(f"recipe.{name}", f"cannot be used with {quantization}")
    return value


def _json(value: Option) -> str:
    return canonical.encode(value).decode()
