"""What a stage of a build will take of memory and may take of time, from the size of the model. Pure.

Expected bytes are what the stage was measured to hold (anonymous memory: pages of mapped files can be given back at any
time) on models of 0.1 to 0.5 billion parameters, put as a base, a share of the weights in float32 and a share of the
largest tensor. A stage is admitted by what is expected, and ended at twice that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from edgewright_controller.compile.source import ModelFacts

_MB: Final = 1 << 20
LEEWAY: Final = 2.0
LEEWAY_BYTES: Final = 512 * _MB
SHORTEST_DEADLINE_S: Final = 1800.0
# Twenty times what the slowest stage took a million parameters on one core of a shared machine.
DEADLINE_S_PER_MILLION: Final = 10.0


@dataclass(frozen=True)
class Bounds:
    """Bytes that a stage is expected to hold, bytes at which it is ended, and seconds after which it is."""

    expected_bytes: int
    most_bytes: int
    deadline_s: float


@dataclass(frozen=True)
class _Needs:
    base: int
    weights: float = 0.0  # of all weights in float32
    largest: float = 0.0  # of the embedding in float32


_NEEDS: Final = {
    "gguf_convert": _Needs(350 * _MB, largest=2.0),
    "gguf_quantise": _Needs(60 * _MB, largest=2.0),
    "gguf_imatrix": _Needs(450 * _MB, largest=2.0),
    "gguf_split": _Needs(150 * _MB),
    "mlx_convert": _Needs(500 * _MB, weights=0.6),
    "onnx_build": _Needs(900 * _MB, weights=3.0),
    "onnx_round": _Needs(150 * _MB, weights=0.3, largest=3.0),
    # Those of the gate, with chunks of 128 tokens: a row of logits for each, and some rows once more in float64.
    "source_chunks": _Needs(700 * _MB),
    "source_parity": _Needs(700 * _MB),
    "reference_logits": _Needs(700 * _MB, weights=1.2, largest=0.3),
    "gguf_tensors": _Needs(250 * _MB),
    "gguf_logits": _Needs(250 * _MB, weights=0.5, largest=0.3),
    "mlx_logits": _Needs(550 * _MB, weights=1.5, largest=0.3),
    "onnx_logits": _Needs(250 * _MB, weights=1.6, largest=0.3),
}
# What is not measured holds libraries and the checkpoint in float32 with a copy of it.
_ELSE: Final = _Needs(900 * _MB, weights=2.5)


def of(script: str, model: ModelFacts, *, most_bytes: int | None = None, deadline_s: float | None = None) -> Bounds:
    """The bounds of a stage that works on `model`; `most_bytes` and `deadline_s` are the operator's, if set."""
    needs = _NEEDS.get(script, _ELSE)
    expected = needs.base + 4 * int(needs.weights * model.parameters + needs.largest * model.vocab * model.hidden)
    return Bounds(
        expected_bytes=min(expected, most_bytes) if most_bytes else expected,
        most_bytes=most_bytes or int(LEEWAY * expected) + LEEWAY_BYTES,
        deadline_s=deadline_s or max(SHORTEST_DEADLINE_S, DEADLINE_S_PER_MILLION * model.parameters / 1e6),
    )
