"""Qualcomm's systems on a chip, as QNN names them: by a number, and by the version of the Hexagon processor. Pure.

A compiled graph fits one of them only. The numbers are those of the QNN SDK (`soc_model`, `htp_arch`); for those below
a graph was compiled with onnxruntime-qnn, whose binaries differ from one to the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from edgewright_controller.compile.recipe_option import Option, RecipeError

# Model → (soc_model, htp_arch).
SOCS: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {"SC8380XP": (60, 73), "SM8650": (57, 75)}  # Snapdragon X Elite and Plus; Snapdragon 8 Gen 3
)
HTP_ARCHS: Final = (68, 69, 73, 75, 79, 81)
MAX_SOC: Final = 9999


def soc(key: str, value: Any) -> Option:
    """The number of a SoC that is given by name or number. Raises RecipeError."""
    if isinstance(value, str) and value.upper() in SOCS:
        return SOCS[value.upper()][0]
    if type(value) is int and 0 < value <= MAX_SOC:
        return value
    known = ", ".join(f"{name} ({number})" for name, (number, _) in SOCS.items())
    raise RecipeError(key, f"{value!r} is no SoC; there are {known}, or any other by its number in the QNN SDK")


def htp_arch(key: str, value: Any) -> Option:
    """The version of a Hexagon processor, given as 73 or "v73". Raises RecipeError."""
    number = value
    if isinstance(value, str) and value.lower().removeprefix("v").isdecimal():
        number = int(value.lower().removeprefix("v"))
    if type(number) is int and number in HTP_ARCHS:
        return number
    raise RecipeError(key, f"{value!r} is no version of the Hexagon processor; there are {_listed(HTP_ARCHS)}")


def check(soc_model: int | None, arch: int | None) -> None:
    """Raise RecipeError unless both say together what a graph is compiled for."""
    if not soc_model:
        raise RecipeError(
            "recipe.soc", f"needed for qnn: a compiled graph fits one SoC only; {_listed(SOCS)} or a number"
        )
    known = dict(SOCS.values())
    if not arch and soc_model not in known:
        raise RecipeError("recipe.htp_arch", f"needed for SoC {soc_model}: {_listed(HTP_ARCHS)}")
    if arch and known.get(soc_model, arch) != arch:
        raise RecipeError("recipe.htp_arch", f"SoC {soc_model} has version {known[soc_model]}, not {arch}")


def arch_of(soc_model: int, arch: int | None) -> int:
    """The version of the Hexagon processor: the one that was given, else the SoC's."""
    return arch or dict(SOCS.values())[soc_model]


def called(soc_model: int) -> str:
    """The SoC for a person."""
    names = [name for name, (number, _) in SOCS.items() if number == soc_model]
    return f"{names[0]} (SoC {soc_model})" if names else f"SoC {soc_model}"


def _listed(names: Any) -> str:
    return ", ".join(str(name) for name in names)
