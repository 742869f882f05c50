"""What each type of tensor may cost, by runtime. Pure; docs/quality.md has what was measured.

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

# Of recipes that move weights, gptq before all: at most 4.3 was measured.
_MOVED: Final = 6.0

# With an importance matrix llama.cpp chooses the levels of these before the scale that it writes, so that not each
# weight is on the nearest: at most 1.036 was measured.
_LEVELS_FIRST: Final = 1.1

_GGUF: Final[Mapping[str, TypeLimit]] = MappingProxyType(
    {
        "F32": _FLOAT32,
        "F16": _FLOAT16,
        "BF16": _BFLOAT16,
        "Q8_0": TypeLimit(error=0.014, gain=0.005, worst_block=0.1, worst_row=0.05),
        "Q6_K": TypeLimit(error=0.04, gain=0.01, worst_block=0.1, worst_row=0.1),
        "Q5_K": TypeLimit(error=0.08, gain=0.01, worst_block=0.15, worst_row=0.15),
        # Wide for weights that stood on Q4_1's grid before, which this one rounds outwards.
        "Q5_1": TypeLimit(error=0.09, gain=0.03, worst_block=0.25, worst_row=0.2, rounding=_LEVELS_FIRST),
        "Q5_0": TypeLimit(error=0.1, gain=0.015, worst_block=0.3, worst_row=0.2, rounding=_LEVELS_FIRST),
        "Q4_K": TypeLimit(error=0.15, gain=0.015, worst_block=0.3, worst_row=0.3),
        "Q4_1": TypeLimit(error=0.16, gain=0.015, worst_block=0.4, worst_row=0.3, rounding=_LEVELS_FIRST),
        "Q4_0": TypeLimit(error=0.2, gain=0.02, worst_block=0.5, worst_row=0.4, rounding=_LEVELS_FIRST),
        "MXFP4": TypeLimit(error=0.22, gain=0.02, worst_block=0.5, worst_row=0.4, usual_gain=0.97),
        "IQ4_NL": TypeLimit(error=0.16, gain=0.015, worst_block=0.4, worst_row=0.3),
        "IQ4_XS": TypeLimit(error=0.16, gain=0.015, worst_block=0.35, worst_row=0.3),
        "Q3_K": TypeLimit(error=0.3, gain=0.02, worst_block=0.5, worst_row=0.5),
        # An importance matrix keeps some weights at the cost of others, so these are wider; a value projection that was
        # made with one kept 0.949 of itself.
        "Q2_K": TypeLimit(error=0.5, gain=0.06, worst_block=0.8, worst_row=0.8, usual_gain=0.987),
        "IQ3_S": TypeLimit(error=0.4, gain=0.06, worst_block=0.8, worst_row=0.8, usual_gain=1.02),
        "IQ3_XXS": TypeLimit(error=0.42, gain=0.08, worst_block=0.85, worst_row=0.85),
        **dict.fromkeys(("IQ2_S", "IQ2_XS"), TypeLimit(error=0.7, gain=0.15, worst_block=1.2, worst_row=1.0)),
        "IQ2_XXS": TypeLimit(error=0.8, gain=0.2, worst_block=1.5, worst_row=1.2),
        # Not measured: no matrix of importances was at hand.
        **dict.fromkeys(("IQ1_S", "IQ1_M"), TypeLimit(error=0.8, gain=0.4, worst_block=1.8, worst_row=1.2)),
        # For weights that are no more than three numbers; of others little is left.
        **dict.fromkeys(("TQ1_0", "TQ2_0"), TypeLimit(error=0.95, gain=0.6, worst_block=1.2, worst_row=1.2)),
    }
)

# Of whole numbers with a scale, and mostly a zero point, for a run of weights, by their bits: for runs of 16 to 256.
_WHOLE_NUMBERS: Final[Mapping[int, TypeLimit]] = MappingProxyType(
    {
        2: TypeLimit(error=0.75, gain=0.1, worst_block=0.98, worst_row=0.95, usual_gain=0.92, coherence=_MOVED),
        3: TypeLimit(error=0.45, gain=0.02, worst_block=0.75, worst_row=0.65, usual_gain=0.987, coherence=_MOVED),
        4: TypeLimit(error=0.3, gain=0.02, worst_block=0.6, worst_row=0.55, coherence=_MOVED),
        5: TypeLimit(error=0.1, gain=0.01, worst_block=0.25, worst_row=0.18, coherence=_MOVED),
        6: TypeLimit(error=0.06, gain=0.01, worst_block=0.16, worst_row=0.12, coherence=_MOVED),
        8: TypeLimit(error=0.02, gain=0.005, worst_block=0.1, worst_row=0.07, coherence=_MOVED),
    }
)
_FLOATS: Final[Mapping[str, TypeLimit]] = MappingProxyType({"fp32": _FLOAT32, "bf16": _BFLOAT16, "fp16": _FLOAT16})

_MLX: Final[Mapping[str, TypeLimit]] = MappingProxyType(
    {
        **_FLOATS,
        **{f"affine{bits}g{run}": limit for bits, limit in _WHOLE_NUMBERS.items() for run in (16, 32, 64, 128)},
        "mxfp4": TypeLimit(error=0.25, gain=0.02, worst_block=0.6, worst_row=0.45, usual_gain=0.982),
        "mxfp8": TypeLimit(error=0.05, gain=0.01, worst_block=0.15, worst_row=0.1),
        "nvfp4": TypeLimit(error=0.2, gain=0.02, worst_block=0.4, worst_row=0.3),
    }
)

# "z" has a zero point. A run may be as long as the row.
_RUNS: Final = (16, 32, 64, 128, 256)
_ONNX: Final[Mapping[str, TypeLimit]] = MappingProxyType(
    {
        **_FLOATS,
        **{f"int{bits}b{run}{z}": _WHOLE_NUMBERS[bits] for bits in (4, 8) for run in _RUNS for z in ("", "z")},
        # OpenVINO's, with one scale for a row.
        **{f"int8brow{z}": _WHOLE_NUMBERS[8] for z in ("", "z")},
        # For an NPU: one scale for a row, by GPTQ, which moves weights to make up for others. On a model 256 wide:
        # error 0.16, a block 0.37, a row 0.24, gain within 0.002; norms in 16 bits 5e-6.
        "qdq4": TypeLimit(error=0.35, gain=0.02, worst_block=0.95, worst_row=0.6, coherence=_MOVED),
        "qdq8": _WHOLE_NUMBERS[8],
        "qdq16": TypeLimit(error=1e-4, gain=1e-4, worst_block=1e-3, worst_row=1e-3, coherence=_MOVED),
    }
)

TENSOR_LIMITS: Final[Mapping[str, Mapping[str, TypeLimit]]] = MappingProxyType(
    {"gguf": _GGUF, "mlx": _MLX, "onnx": _ONNX}
)
"""Limits by runtime and by the name that the runtime's tensor stage gives a type."""
