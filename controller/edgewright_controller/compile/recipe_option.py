"""What a runtime's table of recipes is made of: the precisions that it makes, and what each may be told besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# A value as TOML and JSON have it. Whatever is not a text, a number or a truth value is a list or a table of such. None
# is an option that was left to the toolchain.
Option = str | int | float | bool | list[Any] | dict[str, Any] | None


class RecipeError(ValueError):
    """The recipe cannot be built. `key` is the profile's key that is wrong."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


@dataclass(frozen=True)
class Choice:
    """An option: its default, what else it may be, and the quantizations that it is for.

    What is not one of a few values has a `check` instead of `allowed`: given the option's key and the value as it was
    written, it returns the value's one spelling, and raises RecipeError. `defaults` has another default for some
    quantizations.
    """

    default: Option
    allowed: tuple[Option, ...]
    only_for: tuple[str, ...]
    check: Callable[[str, Any], Option] | None = field(default=None, compare=False)
    defaults: Mapping[str, Option] = field(default_factory=dict)

    def default_for(self, quantization: str) -> Option:
        """What the option is when nobody says."""
        return self.defaults.get(quantization, self.default)

    def one_spelling(self, key: str, value: Option) -> Option:
        """The value as it stands in a recipe. Raises RecipeError when it is none that the option can have."""
        if self.check is not None:
            return self.check(key, value)
        # `True == 1` in Python, but not in a build key.
        if not any(type(value) is type(allowed) and value == allowed for allowed in self.allowed):
            allowed = ", ".join(str(item).lower() for item in self.allowed)
            raise RecipeError(key, f"{value!r} is not one of {allowed}")
        return value


@dataclass(frozen=True)
class RuntimeRecipes:
    """All that one runtime's recipes can say.

    `check_together` is given the quantization and every option's value, and raises RecipeError where they contradict
    each other. `unproven` is given the same, and says in words what no check can see of such an artifact without the
    hardware that it is for; `calibrated` says whether such a build reads the calibration text; `toolchain`, which one
    makes it, where that is not the one that is called like the runtime; `moves`, whether weights are rounded otherwise
    than each to its nearest level, so as to make up for others.
    """

    quantizations: tuple[str, ...]
    options: Mapping[str, Choice]
    check_together: Callable[[str, Mapping[str, Any]], None] = lambda _quantization, _options: None
    unproven: Callable[[str, Mapping[str, Any]], tuple[str, ...]] = lambda _quantization, _options: ()
    calibrated: Callable[[str, Mapping[str, Any]], bool] = lambda _quantization, _options: False
    toolchain: Callable[[Mapping[str, Any]], str] = lambda _options: ""
    moves: Callable[[Mapping[str, Any]], bool] = lambda _options: False
