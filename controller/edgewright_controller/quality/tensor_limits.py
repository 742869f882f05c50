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
        # With an importance matrix some weights are kept at the cost of others, so that a block proves little.
        "IQ3_S": TypeLimit(error=0.3, gain=0.08, worst_block=1.2, worst_row=0.8),
        "IQ3_XXS": TypeLimit(error=0.35, gain=0.1, worst_block=1.2, worst_row=0.8),
        **dict.fromkeys(("IQ2_S", "IQ2_XS", "IQ2_XXS"), TypeLimit(error=0.6, gain=0.2, worst_block=1.5, worst_row=1.0)),
        **dict.fromkeys(("IQ1_S", "IQ1_M"), TypeLimit(error=0.8, gain=0.4, worst_block=1.8, worst_row=1.2)),
        **dict.fromkeys(("TQ1_0", "TQ2_0"), TypeLimit(error=0.9, gain=0.5, worst_block=2.5, worst_row=1.5)),
    }
)

# Of whole numbers with a scale, and mostly a zero point, for a run of weights, by their bits: about twice the worst of
# honest builds with runs of 32 to 128. One weight far from the others leaves nothing of its neighbours at 4 bits and
# below, so that a block of 32 proves something from 5 bits on only, and a row does below.
_WHOLE_NUMBERS: Final[Mapping[int, TypeLimit]] = MappingProxyType(
    {
        2: TypeLimit(error=0.75, gain=0.15, worst_block=2.0, worst_row=1.2),
        3: TypeLimit(error=0.4, gain=0.035, worst_block=1.6, worst_row=0.6),
        4: TypeLimit(error=0.2, gain=0.02, worst_block=1.3, worst_row=0.35),
        5: TypeLimit(error=0.1, gain=0.015, worst_block=0.8, worst_row=0.18),
        6: TypeLimit(error=0.05, gain=0.01, worst_block=0.45, worst_row=0.1),
        8: TypeLimit(error=0.016, gain=0.005, worst_block=0.2, worst_row=0.05),
    }
)
_FLOATS: Final[Mapping[str, TypeLimit]] = MappingProxyType({"fp32": _FLOAT32, "bf16": _BFLOAT16, "fp16": _FLOAT16})

_MLX: Final[Mapping[str, TypeLimit]] = MappingProxyType(
    {
        **_FLOATS,
        **{f"affine{bits}g{run}": limit for bits, limit in _WHOLE_NUMBERS.items() for run in (16, 32, 64, 128)},
        "mxfp4": TypeLimit(error=0.25, gain=0.03, worst_block=1.0, worst_row=0.35),
        "mxfp8": TypeLimit(error=0.08, gain=0.02, worst_block=0.6, worst_row=0.15),
        "nvfp4": TypeLimit(error=0.22, gain=0.03, worst_block=1.0, worst_row=0.35),
    }
)

# "z" has a zero point. A run may be as long as the row.
_RUNS: Final = (16, 32, 64, 128, 256)
_ONNX: Final[Mapping[str, TypeLimit]] = MappingProxyType(
    {
        **_FLOATS,
        **{f"int{bits}b{run}{z}": _WHOLE_NUMBERS[bits] for bits in (4, 8) for run in _RUNS for z in ("", "z")},
    }
)

TENSOR_LIMITS: Final[Mapping[str, Mapping[str, TypeLimit]]] = MappingProxyType(
    {"gguf": _GGUF, "mlx": _MLX, "onnx": _ONNX}
)
"""Limits by runtime and by the name that the runtime's tensor stage gives a type."""
