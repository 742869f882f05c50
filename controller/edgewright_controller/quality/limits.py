"""What an artifact may cost: by the class of precision that it was measured to have, or as the manifest says. Pure.

docs/decisions/0020 has the builds from whose measures these come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from edgewright_controller.quality.divergence import DivergenceLimit
from edgewright_controller.quality.precision import Precision
from edgewright_controller.quality.tensor_limits import TENSOR_LIMITS
from edgewright_controller.quality.tensors import TypeLimit

# Nats, of a toolchain's unquantised float32 build. Floors are 1e-11, the smallest fault tried is 1e-4.
FIDELITY_KL: Final = 1e-8
# llama.cpp takes GELU from a table of float16: 8e-8 on a tiny Gemma 3, where other runtimes are at 4e-13.
FIDELITY_KL_BY_TABLE: Final = 1e-5

# Nats, of an artifact whose recipe is chosen for its size: what class it is in is then nobody's wish, so the search
# has one limit for all. llama.cpp's own table has Q4_K_M of an 8B model at 0.03 and Q2_K at 0.45.
AUTO_KL: Final = 0.1

DIVERGENCE: Final[Mapping[Precision, DivergenceLimit]] = MappingProxyType(
    {
        Precision.ULTRA_LOW: DivergenceLimit(kl=1.0, kl_p99=6.0, perplexity_ratio=3.0, same_top=0.45),
        Precision.LOW: DivergenceLimit(kl=0.6, kl_p99=4.0, perplexity_ratio=1.8, same_top=0.55),
        Precision.MEDIUM: DivergenceLimit(kl=0.45, kl_p99=3.0, perplexity_ratio=1.5, same_top=0.6),
        Precision.FULL: DivergenceLimit(kl=0.005, kl_p99=0.05, perplexity_ratio=1.02, same_top=0.95),
    }
)


# Raw texts that a runtime's engine turns into other tokens whatever is built. onnxruntime-genai ends a string at a NUL,
# and puts two spaces before a digit together otherwise than the library that the source's tokenizer is written for.
# By name: any two would hide two tokens that were exchanged and that few of the texts have.
PARITY_TEXTS: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {"onnx": frozenset({"a NUL", "digits with spaces"})}
)


@dataclass(frozen=True)
class Overrides:
    """What a manifest's table `quality` says otherwise; None leaves a limit as it is. `parity_differences` is how
    many texts and chats may differ, `tokens` at least how many are measured."""

    kl: float | None = None
    kl_p99: float | None = None
    perplexity_ratio: float | None = None
    same_top: float | None = None
    parity_differences: int | None = None
    tokens: int | None = None
    allow_unproven: bool = False


NO_OVERRIDES: Final = Overrides()


@dataclass(frozen=True)
class Limits:
    """All limits of one artifact. `tensors` is by type; `parity_differences` counts texts and chats but for the raw
    texts of `parity_texts`; at least `tokens` are measured, as far as there are so many."""

    fidelity_kl: float
    divergence: DivergenceLimit
    tensors: Mapping[str, TypeLimit]
    parity_differences: int
    parity_texts: frozenset[str]
    tokens: int
    allow_unproven: bool


def limits(runtime: str, precision: Precision, overrides: Overrides = NO_OVERRIDES) -> Limits:
    """The limits of an artifact of this runtime and class, with what a manifest says otherwise."""
    of_class = DIVERGENCE[precision]

    def chosen(override: float | None, usual: float | None) -> float | None:
        return usual if override is None else override

    return Limits(
        fidelity_kl=FIDELITY_KL,
        divergence=DivergenceLimit(
            kl=of_class.kl if overrides.kl is None else overrides.kl,
            kl_p99=chosen(overrides.kl_p99, of_class.kl_p99),
            perplexity_ratio=chosen(overrides.perplexity_ratio, of_class.perplexity_ratio),
            same_top=chosen(overrides.same_top, of_class.same_top),
        ),
        tensors=TENSOR_LIMITS.get(runtime, {}),
        parity_differences=overrides.parity_differences or 0,
        parity_texts=PARITY_TEXTS.get(runtime, frozenset()) if overrides.parity_differences is None else frozenset(),
        tokens=overrides.tokens or 0,
        allow_unproven=overrides.allow_unproven,
    )
