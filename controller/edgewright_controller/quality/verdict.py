"""Whether an artifact may be shipped, from what was measured and what it may cost. Pure: the same two, the same answer.

Each refusal says which check, with which numbers, and where. What could not be measured passes nowhere in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgewright_controller.quality import divergence, tensors
from edgewright_controller.quality.divergence import DivergenceLimit, Verdict
from edgewright_controller.quality.limits import FIDELITY_KL_BY_TABLE, Limits
from edgewright_controller.quality.measures import GATE, Measures

# What to do about a refusal by a check, for a person.
ADVICE: Final = {
    "fidelity": "the toolchain does not compute what the source computes, before anything is quantised",
    "hyperparameters": "the runtime does not read what the source says",
    "tensors": "the artifact's weights are not the source's",
    "divergence": "take a recipe with more bits, or allow it in the profile's table `quality`",
    "parity": "the artifact's tokenizer or chat template is not the source's",
    "unproven": "allow_unproven = true in the profile's table `quality` ships it all the same",
}


# Of each check, in words.
MAX_SHOWN: Final = 3


@dataclass(frozen=True)
class Refusal:
    """One reason against an artifact: the check, the figures in words, and the tensor or text (empty: all of it)."""

    check: str
    why: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.check}: {self.where + ': ' if self.where else ''}{self.why}"


def judge(measures: Measures, limits: Limits) -> tuple[Refusal, ...]:
    """Everything that speaks against the artifact, by check, the worst of each first; empty when nothing does."""
    return (
        *_fidelity(measures, limits),
        *(Refusal("hyperparameters", words) for words in measures.hyperparameters),
        *_tensors(measures, limits),
        *_divergence(measures, limits),
        *_parity(measures, limits),
        *unproven(measures.unproven, limits.allow_unproven),
    )


def words(refusals: Sequence[Refusal]) -> list[str]:
    """The refusals for a person: by check, a few of each, with what to do."""
    lines = []
    for check in dict.fromkeys(one.check for one in refusals):
        of_check = [str(one) for one in refusals if one.check == check]
        lines += of_check[:MAX_SHOWN]
        if len(of_check) > MAX_SHOWN:
            lines.append(f"{check}: and {len(of_check) - MAX_SHOWN} more")
        lines[-1] += f"; {ADVICE[check]}"
    return lines


def is_settled(measures: Measures, limits: Limits) -> bool:
    """Whether what was measured is enough to judge by these limits: by this gate, over as many tokens as it takes."""
    if measures.gate != GATE:
        return False
    found = measures.divergence
    if found is None or measures.whole:
        return True
    if found.tokens < limits.tokens and not divergence.exceeded(found, limits.divergence):
        return False
    return divergence.verdict(found, limits.divergence, last=False) is not Verdict.MORE


def _fidelity(measures: Measures, limits: Limits) -> tuple[Refusal, ...]:
    if measures.fidelity is None:
        return _unmeasured(measures, "fidelity")
    allowed = limits.fidelity_kl
    if measures.runtime == "gguf" and "gelu" in measures.activation:
        allowed = max(allowed, FIDELITY_KL_BY_TABLE)
    over = divergence.exceeded(measures.fidelity, DivergenceLimit(allowed))
    return tuple(Refusal("fidelity", f"unquantised, in float32: {words}") for words in over)


def _tensors(measures: Measures, limits: Limits) -> tuple[Refusal, ...]:
    if not measures.tensors and not measures.missing:
        return _unmeasured(measures, "tensors")
    found = tensors.judge(measures.tensors, limits.tensors, (one.name for one in measures.tensors))
    missing = [Refusal("tensors", "is missing in the artifact", name) for name in measures.missing]
    surplus = [
        Refusal("tensors", "is in the artifact, and nothing in the source is like it", x) for x in measures.surplus
    ]
    return (*missing, *surplus, *(Refusal("tensors", one.why, one.tensor) for one in found))


def _divergence(measures: Measures, limits: Limits) -> tuple[Refusal, ...]:
    if measures.divergence is None:
        return _unmeasured(measures, "divergence")
    over = divergence.exceeded(measures.divergence, limits.divergence)
    about = f"{measures.bits:.2f} bits a weight ({measures.precision.value})"
    return tuple(Refusal("divergence", f"{words} for {about}, over {measures.tokens:,} tokens") for words in over)


def _parity(measures: Measures, limits: Limits) -> tuple[Refusal, ...]:
    # The name of a text is followed by that of the engine.
    counted = [one for one in measures.parity if one.text.rpartition(" (")[0] not in limits.parity_texts]
    if len(counted) <= limits.parity_differences:
        return ()
    return tuple(Refusal("parity", one.what, one.text) for one in measures.parity)


def unproven(reasons: Sequence[str], allowed: bool) -> tuple[Refusal, ...]:
    """One for each of the reasons why something cannot be measured here, unless that is allowed."""
    return () if allowed else tuple(Refusal("unproven", words) for words in reasons)


def _unmeasured(measures: Measures, check: str) -> tuple[Refusal, ...]:
    """What cannot be measured here has its reason among what is unproven, and is judged there."""
    return () if measures.unproven else (Refusal(check, "was not measured"),)
