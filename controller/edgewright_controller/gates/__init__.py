"""Whether what was seen of a release lets it go on: a pure judgement over counts.

known = baseline(before)                     # what each device showed with its previous release
health = compare(known, after, policy.health)
verdict = judge(Samples(activations, health), policy, now)
"""

from edgewright_controller.gates.health import Baseline, Slice, baseline, compare
from edgewright_controller.gates.judge import LONGER, judge
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
    "LONGER",
    "Activations",
    "Baseline",
    "Comparison",
    "GatePolicy",
    "HealthPolicy",
    "HealthSamples",
    "Ruling",
    "Samples",
    "Slice",
    "Verdict",
    "baseline",
    "compare",
    "judge",
]
