"""A recipe: every choice of the operator that shapes a build. Pure.

Two profiles with equal recipes share one build, so a recipe has one spelling: defaults are written out, options
that cannot apply are refused or, when they only repeat the default, left out.

What each runtime knows stands in one table, QUANTIZATIONS and OPTIONS. Types below 3 bits that llama.cpp makes
only with an importance matrix are not in it: nothing here can measure one yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

Option = str | int | bool

PREBUILT: Final = "prebuilt"

_MLX_BITS: Final = ("2bit", "3bit", "4bit", "5bit", "6bit", "8bit")

QUANTIZATIONS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "gguf": (
            *("F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S"),
            *("Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"),
        ),
        "mlx": (*_MLX_BITS, "bf16", "fp16", "fp32"),
        "onnx": ("int4", "int8", "fp16", "fp32"),
    }
)

# Which execution provider the ONNX graph is made for. A provider with its own compiler is not among them.
ONNX_PROVIDERS: Final[Mapping[str, str]] = MappingProxyType({"cpu": "cpu", "cuda": "cuda", "dml": "dml"})


@dataclass(frozen=True)
class _Choice:
    """An option: its default, what else it may be, and the quantizations that it is for."""

    default: Option
    allowed: tuple[Option, ...]
    only_for: tuple[str, ...]


_GGUF_QUANTISED: Final = tuple(name for name in QUANTIZATIONS["gguf"] if name not in ("F32", "F16", "BF16"))

OPTIONS: Final[Mapping[str, Mapping[str, _Choice]]] = MappingProxyType(
    {
        # Every tensor of the one type, without llama.cpp's mixture.
        "gguf": {"pure": _Choice(False, (False, True), _GGUF_QUANTISED)},
        "mlx": {
            "group_size": _Choice(64, (32, 64, 128), _MLX_BITS),
            "mode": _Choice("affine", ("affine", "mxfp4", "mxfp8"), _MLX_BITS),
        },
        "onnx": {
            "block_size": _Choice(32, (16, 32, 64, 128, 256), ("int4",)),
            # The embedding in int4 too, with its scales shared with the output layer's: half the size for a
            # small model with a large vocabulary, and slightly less exact.
            "tie_embeddings": _Choice(False, (False, True), ("int4",)),
            "provider": _Choice("cpu", tuple(ONNX_PROVIDERS.values()), QUANTIZATIONS["onnx"]),
        },
    }
)

_MX_BITS: Final = {"mxfp4": "4bit", "mxfp8": "8bit"}


class RecipeError(ValueError):
    """The recipe cannot be built. `key` is the profile's key that is wrong."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f"{key}: {message}")
        self.key = key
        self.message = message


@dataclass(frozen=True)
class Recipe:
    """Runtime, quantization and options (sorted by name, defaults written out). Made by `make` or `recipe_of`."""

    runtime: str
    quantization: str
    options: tuple[tuple[str, Option], ...] = ()

    @property
    def prebuilt(self) -> bool:
        """Whether the artifact was made elsewhere and is shipped as it is."""
        return self.quantization == PREBUILT

    def to_json(self) -> dict[str, Any]:
        """The document that a build key names."""
        return {"runtime": self.runtime, "quantization": self.quantization, "options": dict(self.options)}

    def __str__(self) -> str:
        extra = [
            f"{name}={str(value).lower()}"
            for name, value in self.options
            if value != OPTIONS[self.runtime][name].default
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


def recipe_of(profile: ProfileLike) -> Recipe:
    """The recipe of a manifest's profile. Raises RecipeError, whose key is relative to the profile.

    The accelerator is part of an ONNX recipe only: a GGUF and an MLX folder are the same for every device.
    """
    options = dict(profile.recipe_options)
    if profile.runtime == "onnx" and profile.quantization != PREBUILT:
        if profile.accelerator not in ONNX_PROVIDERS:
            raise RecipeError(
                "accelerator",
                f"ONNX for {profile.accelerator} cannot be compiled here yet;"
                ' build it elsewhere and ship it with quantization = "prebuilt"',
            )
        options["provider"] = ONNX_PROVIDERS[profile.accelerator]
    return make(profile.runtime, profile.quantization, options)


def make(runtime: str, quantization: str, options: Mapping[str, Option] | None = None) -> Recipe:
    """The one spelling of this recipe. Raises RecipeError."""
    if runtime not in QUANTIZATIONS:
        raise RecipeError("runtime", f"{runtime!r}; there are {', '.join(QUANTIZATIONS)}")
    given = dict(options or {})
    if quantization == PREBUILT:
        if given:
            raise RecipeError("recipe", "a prebuilt artifact is shipped as it is; take `recipe` away")
        return Recipe(runtime, PREBUILT)
    if quantization not in QUANTIZATIONS[runtime]:
        known = ", ".join(QUANTIZATIONS[runtime])
        raise RecipeError("quantization", f"{runtime} cannot make {quantization!r}; it makes {known}")
    for name, value in given.items():
        _check(runtime, quantization, name, value)
    chosen = {
        name: given.get(name, choice.default)
        for name, choice in OPTIONS[runtime].items()
        if quantization in choice.only_for
    }
    _check_together(quantization, chosen)
    return Recipe(runtime, quantization, tuple(sorted(chosen.items())))


def _check(runtime: str, quantization: str, name: str, value: Option) -> None:
    choice = OPTIONS[runtime].get(name)
    if choice is None:
        raise RecipeError(f"recipe.{name}", f"unknown; {runtime} has {', '.join(OPTIONS[runtime])}")
    # `True == 1` in Python, but not in a build key.
    if not any(type(value) is type(allowed) and value == allowed for allowed in choice.allowed):
        allowed = ", ".join(str(item).lower() for item in choice.allowed)
        raise RecipeError(f"recipe.{name}", f"{value!r} is not one of {allowed}")
    if quantization not in choice.only_for and value != choice.default:
        raise RecipeError(f"recipe.{name}", f"cannot be used with {quantization}")


def _check_together(quantization: str, options: Mapping[str, Option]) -> None:
    bits = _MX_BITS.get(str(options.get("mode")))
    if bits and (quantization != bits or options["group_size"] != 32):
        raise RecipeError("recipe.mode", f'{options["mode"]} needs quantization = "{bits}" and group_size = 32')
    if quantization == "fp16" and options.get("provider") == "cpu":
        raise RecipeError("quantization", "fp16 needs an accelerator; on a cpu use fp32, int8 or int4")
