"""What a gate is given and what it answers. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum


class Ruling(Enum):
    """What to do with the release."""

    PROMOTE = "promote"
    WAIT = "wait"
    REVERT = "revert"


@dataclass(frozen=True)
class Activations:
    """Devices by how the release ended on them; `under_way` have not said. `last_at` is when the last one ended,
    in seconds of the clock that gives `now`. A device that took it into use and failed later has failed. `to_come`:
    devices of the same wave that are still to be offered it."""

    succeeded: int = 0
    failed: int = 0
    silent: int = 0
    under_way: int = 0
    last_at: float = 0.0
    to_come: int = 0

    @property
    def concluded(self) -> int:
        """Devices on which it has ended, one way or the other."""
        return self.succeeded + self.failed + self.silent

    @property
    def offered(self) -> int:
        """Devices that were offered it, and still count."""
        return self.concluded + self.under_way


@dataclass(frozen=True)
class Comparison:
    """One measure on the new release beside the same devices' own previous one.

    `weight`: the sum of the devices' log likelihood ratios, regression against none; above 0 speaks for a regression.
    `before`, `after`: the measure itself, over all `devices` compared, for a person.
    """

    weight: float
    devices: int
    before: float
    after: float


@dataclass(frozen=True)
class HealthSamples:
    """How devices do with the new release. A measure is None while too little is known of it: `requests` says how many
    the new release has answered on devices that can be compared. `probed` devices have answered their probes again.
    """

    errors: Comparison | None = None  # the share of requests that failed
    speed: Comparison | None = None  # decoding, in tokens per second
    requests: int = 0
    probed: int = 0


@dataclass(frozen=True)
class Samples:
    """All that is judged."""

    activations: Activations = field(default_factory=Activations)
    health: HealthSamples = field(default_factory=HealthSamples)


@dataclass(frozen=True)
class HealthPolicy:
    """`ratio`: so many times the errors, or the time for a token, are a regression. Below `min_requests` on the new
    release there is no verdict."""

    on: bool = True
    ratio: float = 2.0
    min_requests: int = 100

    def __post_init__(self) -> None:
        if not 1 < self.ratio < float("inf") or self.min_requests < 1:
            raise ValueError(f"ratio {self.ratio}, min_requests {self.min_requests}: above 1, and at least 1")


@dataclass(frozen=True)
class GatePolicy:
    """A rollout stops when more than `max_failures` devices AND more than `max_failed_percent` of those offered so far
    have failed or fallen silent. `soak_s`: how long to watch after the last one ended."""

    max_failures: int = 0
    soak_s: float = 0.0
    max_failed_percent: float = 0.0
    health: HealthPolicy = field(default_factory=HealthPolicy)

    def __post_init__(self) -> None:
        if self.max_failures < 0 or not 0 <= self.soak_s < float("inf"):
            raise ValueError(
                f"max_failures {self.max_failures}, soak_s {self.soak_s}: neither may be negative, nor without end"
            )
        if not 0 <= self.max_failed_percent < 100:
            raise ValueError(f"max_failed_percent {self.max_failed_percent}: it is from 0 to below 100")


@dataclass(frozen=True)
class Verdict:
    """A ruling, with its reasons for a person."""

    ruling: Ruling
    reasons: tuple[str, ...]
