"""The words of a device's life: steps, outcomes, faults, the state that is saved, what can happen, what to do.

Values only; `lifecycle.py` says how they follow each other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Final


class Step(Enum):
    """Where the device stands. The numbers are the wire's (`agent.proto`)."""

    IDLE = 1
    PLANNING = 2
    DOWNLOADING = 3
    VERIFYING = 4
    STARTING = 5
    PROVING = 6
    PROBING = 7
    SWITCHING = 8
    DRAINING = 9
    REVERTING = 10


class Outcome(Enum):
    """How the update to a generation ended. The numbers are the wire's."""

    NONE = 0
    IN_PROGRESS = 1
    SUCCEEDED = 2
    FAILED = 3
    HELD = 4


class Fault(Enum):
    """The closed set of reasons. The numbers are the wire's ErrorCode."""

    NONE = 0
    METADATA_REFUSED = 1
    METADATA_STALE = 2
    DISK_FULL = 3
    MEMORY_SHORT = 4
    DOWNLOAD_FAILED = 5
    ARTIFACT_CORRUPT = 6
    ARTIFACT_UNSAFE = 7
    ENGINE_MISSING = 8
    ENGINE_FAILED = 9
    ACCELERATOR_WRONG = 10
    PROBE_FAILED = 11
    DEADLINE = 12
    CANCELLED = 13
    INTERNAL = 14


# The device's circumstances, not the release: worth another try later, never a hold.
CIRCUMSTANCES: Final = frozenset({Fault.DISK_FULL, Fault.MEMORY_SHORT, Fault.DOWNLOAD_FAILED, Fault.ENGINE_MISSING})


MAX_REASON: Final = 2000  # characters; the wire takes as many bytes


class Act(Enum):
    """What the executor does next. Each ends with Done or Failed, CANCEL at once."""

    PLAN = "plan"
    DOWNLOAD = "download"
    VERIFY = "verify"
    START = "start"
    PROVE = "prove"
    PROBE = "probe"
    SWITCH = "switch"
    DRAIN = "drain"
    REVERT = "revert"  # discard the candidate; the active engine was never touched
    FALL_BACK = "fall back"  # the active version is broken: start the previous one in its place
    CANCEL = "cancel"  # stop the act that runs, and wait until it has stopped


@dataclass(frozen=True)
class Goal:
    """What the signed metadata wants. An empty release: serve nothing. `probing_s`: what its probes may take."""

    generation: int
    release: str
    probing_s: float = 0.0


@dataclass(frozen=True)
class Lifecycle:
    """All that a device must remember. `generation` and `release` are what the outcome speaks of; `active` is
    what answers requests, `previous` what did so before it. All releases are digests, "" is none.

    `wanted` is the release that the generation names. `release` differs from it when the device had to do something
    about the version that it serves: replace it by the previous one, or install it anew."""

    step: Step = Step.IDLE
    generation: int = 0
    wanted: str = ""
    release: str = ""
    outcome: Outcome = Outcome.NONE
    fault: Fault = Fault.NONE
    reason: str = ""
    active: str = ""
    previous: str = ""
    returned: bool = False  # `previous` was left to return to what is active now: on the disk still, but no way back
    broken: Fault = Fault.NONE  # why the active version does not serve; NONE while it does, as far as is known
    broken_reason: str = ""
    held: tuple[str, ...] = ()
    pending: Goal | None = None
    falling_back: bool = False
    paused: bool = False  # downloads wait until somebody lets them go on; everything else goes its way
    probing_s: float = 0.0
    attempts: int = 0  # restarts of the agent while this goal was being verified, started or switched to
    resumes: int = 0  # restarts of the agent while nothing new had come in
    failures: int = 0  # by circumstance, in a row, for this goal
    stalls_at: float = math.inf
    deadline: float = math.inf
    retry_at: float = math.inf
    sequence: int = 0
    refused: int = 0  # the newest generation whose metadata was refused, and why; told while it is the newest known
    refusal: str = ""

    @property
    def way_back(self) -> str:
        """The release that serves when the active one cannot, "" when there is none: never one that was taken back."""
        return "" if self.returned else self.previous

    @property
    def releases(self) -> frozenset[str]:
        """All releases that this speaks of, so that they and their artifacts are still needed."""
        pending = self.pending.release if self.pending is not None else ""
        return frozenset({self.active, self.previous, self.release, self.wanted, pending} - {""})


@dataclass(frozen=True)
class Assigned:
    """The signed metadata names this goal."""

    goal: Goal


@dataclass(frozen=True)
class Refused:
    """The metadata could not be trusted, or is too old. Nothing changes but what the status says.

    `generation` is what the controller says that it offered: nobody signed it, so it serves only to tell the
    controller what was refused. 0: nothing new was offered.
    """

    fault: Fault
    reason: str
    generation: int = 0


@dataclass(frozen=True)
class Done:
    """The act that was asked for succeeded."""


@dataclass(frozen=True)
class Failed:
    """The act that was asked for failed."""

    fault: Fault
    reason: str


@dataclass(frozen=True)
class Progressed:
    """New bytes are safely on the disk."""


@dataclass(frozen=True)
class DownloadWaits:
    """The source says to come back after `seconds`, and why: it is busy, or downloads have their hours."""

    seconds: float
    reason: str


@dataclass(frozen=True)
class Tick:
    """Time passed."""


@dataclass(frozen=True)
class HoldReleased:
    """The operator lets this release be tried again."""

    release: str


@dataclass(frozen=True)
class DownloadsPaused:
    """No more blocks are to be fetched, until DownloadsResumed."""


@dataclass(frozen=True)
class DownloadsResumed:
    """Blocks may be fetched again."""


@dataclass(frozen=True)
class ActiveBroken:
    """The active version, which `release` names, cannot serve, by no doing of an update."""

    release: str
    fault: Fault
    reason: str


@dataclass(frozen=True)
class ActiveServes:
    """The active version serves, perhaps again."""

    release: str


@dataclass(frozen=True)
class RunningChanged:
    """What the agent says of what runs, beside this state, is another than before: a new engine, another device."""


Event = (
    Assigned
    | Refused
    | Done
    | Failed
    | Progressed
    | DownloadWaits
    | Tick
    | HoldReleased
    | DownloadsPaused
    | DownloadsResumed
    | ActiveBroken
    | ActiveServes
    | RunningChanged
)
