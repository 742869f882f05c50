"""Whether what was seen of a release lets it go on: a pure judgement over counts.

What is judged so far is activations: how many devices took the release into use, refused it, or fell silent. The rule
is a limit on failures, checked before anything else, so that a rollout stops at the failure that exceeds it and not at
the end of its wave. There is no verdict from nothing: without a concluded device the answer is to wait. And what
succeeded nowhere is not promoted, whatever the limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Ruling(Enum):
    """What to do with the release."""

    PROMOTE = "promote"
    WAIT = "wait"
    REVERT = "revert"


@dataclass(frozen=True)
class Activations:
    """Devices by how the release ended on them; `under_way` have not said. `last_at` is when the last one ended,
    in seconds of the clock that gives `now`."""

    succeeded: int = 0
    failed: int = 0
    silent: int = 0
    under_way: int = 0
    last_at: float = 0.0

    @property
    def concluded(self) -> int:
        """Devices on which it has ended, one way or the other."""
        return self.succeeded + self.failed + self.silent


@dataclass(frozen=True)
class GatePolicy:
    """`max_failures` devices may fail or fall silent. `soak_s`: how long to watch after the last one ended."""

    max_failures: int = 0
    soak_s: float = 0.0

    def __post_init__(self) -> None:
        if self.max_failures < 0 or not 0 <= self.soak_s < float("inf"):
            raise ValueError(
                f"max_failures {self.max_failures}, soak_s {self.soak_s}: neither may be negative, nor without end"
            )


@dataclass(frozen=True)
class Verdict:
    """A ruling, with its reasons for a person."""

    ruling: Ruling
    reasons: tuple[str, ...]


def judge(samples: Activations, policy: GatePolicy, now: float) -> Verdict:
    """What `samples` allow at `now`. WAIT says what is being waited for; REVERT what went wrong."""
    bad = samples.failed + samples.silent
    if bad > policy.max_failures:
        return Verdict(Ruling.REVERT, tuple(_failures(samples, policy)))
    if samples.under_way:
        return Verdict(Ruling.WAIT, (f"{samples.under_way} of {_devices(_all(samples))} have not said how it ended",))
    if not samples.concluded:
        return Verdict(Ruling.WAIT, ("nothing was activated yet",))
    if not samples.succeeded:
        return Verdict(Ruling.REVERT, (*_failures(samples, policy)[:-1], "none succeeded"))
    left = samples.last_at + policy.soak_s - now
    if left > 0:
        return Verdict(Ruling.WAIT, (f"being watched for {left:.0f} s more",))
    return Verdict(Ruling.PROMOTE, (f"{samples.succeeded} of {_devices(_all(samples))} succeeded",))


def _failures(samples: Activations, policy: GatePolicy) -> list[str]:
    parts = []
    if samples.failed:
        parts.append(f"{samples.failed} of {_devices(_all(samples))} failed")
    if samples.silent:
        parts.append(f"{samples.silent} of {_devices(_all(samples))} fell silent")
    return [*parts, f"at most {policy.max_failures} may"]


def _all(samples: Activations) -> int:
    return samples.concluded + samples.under_way


def _devices(count: int) -> str:
    return "1 device" if count == 1 else f"{count} devices"
