"""What each type of tensor may cost, by runtime. Pure; docs/decisions/0020 has what was measured.

A limit stands between what the type costs in honest builds and the smallest fault that must be seen: 5 % of gain, one
head, one wrong scale. What a source was before matters: weights that stood on a grid of 16 levels lose more on one of
32 that does not contain it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from edgewright_controller.quality.tensors import TypeLimit

_FLOAT32: Final = TypeLimit(error=1e-6, gain=1e-6, worst_block=1e-5, worst_row=1e-5)
_BFLOAT16: Final = TypeLimit(error=0.004, gain=0.001, worst_block=0.01, worst_row=0.01)
_FLOAT16: Final = TypeLimit(error=0.002, gain=0.001, worst_block=0.05, worst_row=0.05)

_GGUF: Final[Mapping[str, TypeLimit]] = MappingProxyType(
    {
        "F32": _FLOAT32,
        "F16": _FLOAT16,
        "BF16": _BFLOAT16,
        "Q8_0": TypeLimit(error=0.012, gain=0.005, worst_block=0.2, worst_row=0.1),
        "Q6_K": TypeLimit(error=0.04, gain=0.01, worst_block=0.4, worst_row=0.2),
        "Q5_K": TypeLimit(error=0.08, gain=0.02, worst_block=0.5, worst_row=0.3),
        "Q5_1": TypeLimit(error=0.09, gain=0.03, worst_block=0.5, worst_row=0.3),
        "Q5_0": TypeLimit(error=0.09, gain=0.03, worst_block=0.5, worst_row=0.3),
        "Q4_K": TypeLimit(error=0.13, gain=0.03, worst_block=0.6, worst_row=0.4),
        "Q4_1": TypeLimit(error=0.16, gain=0.03, worst_block=0.6, worst_row=0.4),
        "Q4_0": TypeLimit(error=0.16, gain=0.03, worst_block=0.6, worst_row=0.4),
        "IQ4_NL": TypeLimit(error=0.15, gain=0.03, worst_block=0.6, worst_row=0.4),
        "IQ4_XS": TypeLimit(error=0.15, gain=0.03, worst_block=0.6, worst_row=0.4),
        "Q3_K": TypeLimit(error=0.28, gain=0.04, worst_block=0.8, worst_row=0.6),
        "Q2_K": TypeLimit(error=0.5, gain=0.04, worst_block=0.9, worst_row=0.8),
    }
)

TENSOR_LIMITS: Final[Mapping[str, Mapping[str, TypeLimit]]] = MappingProxyType({"gguf": _GGUF})
"""Limits by runtime and by the name that the runtime's tensor stage gives a type."""
