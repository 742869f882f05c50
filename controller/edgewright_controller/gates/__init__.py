"""Whether what was seen of a release lets it go on: a pure judgement over counts.

verdict = judge(Samples(activations, health), policy, now)
"""

from edgewright_controller.gates.judge import judge
from edgewright_controller.gates.model import (
    Activations,
    Comparison,
    GatePolicy,
    HealthPolicy,
    HealthSamples,
    Ruling,
    Samples,
    Verdict,
)

__all__ = [
    "Activations",
    "Comparison",
    "GatePolicy",
    "HealthPolicy",
    "HealthSamples",
    "Ruling",
    "Samples",
    "Verdict",
    "judge",
]
