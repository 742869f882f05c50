"""The nouns of a rollout: what it is to do, what can happen to it, and what it answers. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from edgewright_controller.gates import GatePolicy

WEEK_S: Final = 7 * 24 * 3600.0


class RolloutError(Exception):
    """This cannot be asked of a rollout; the text says why, and what can."""


class RolloutPhase(Enum):
    """Where a rollout stands. The last four are final."""

    __hash__ = object.__hash__

    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting"  # not begun, or a wave is being watched before the next
    REVERTING = "reverting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"
    SUPERSEDED = "superseded"

    @property
    def final(self) -> bool:
        """Whether nothing more can happen to it."""
        return self in _FINAL


_FINAL: Final = frozenset((RolloutPhase.SUCCEEDED, RolloutPhase.FAILED, RolloutPhase.ABORTED, RolloutPhase.SUPERSEDED))


class DevicePhase(Enum):
    """Where a device stands in a rollout."""

    # Counts are kept by phase, and Enum's own hash is a slow one, written in Python.
    __hash__ = object.__hash__

    WAITING = "waiting"
    OFFERED = "offered"  # the next check-in says so
    UPDATING = "updating"  # it has said that it has begun
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    SKIPPED = "skipped"
    REVERTING = "reverting"
    REVERTED = "reverted"


IN_FLIGHT: Final = (DevicePhase.OFFERED, DevicePhase.UPDATING)
UNSETTLED: Final = (DevicePhase.WAITING, *IN_FLIGHT, DevicePhase.REVERTING)


class OnFailure(Enum):
    """What becomes of devices that have the release when too many others failed.

    KEEP: they keep it, and those under way finish; no further device gets it. REVERT: all go back.
    """

    KEEP = "keep"
    REVERT = "revert"


@dataclass(frozen=True)
class RolloutPolicy:
    """Seconds are of the rollout's own clock (see RolloutClock).

    device_deadline_s: from the offer to the device's answer; silence beyond it is a failure. The way back has as much.
    patience_s: a pause, or a start that does not come, ends after this: abort, and keep what was reached.
    """

    device_deadline_s: float = 900.0
    gate: GatePolicy = field(default_factory=GatePolicy)
    on_failure: OnFailure = OnFailure.KEEP
    patience_s: float = WEEK_S

    def __post_init__(self) -> None:
        for name in ("device_deadline_s", "patience_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise RolloutError(f"{name}: {getattr(self, name)} is not a number of seconds above 0")


@dataclass(frozen=True)
class RolloutTarget:
    """One device's part: the release it shall have (None: nothing), the one it goes back to, and the highest
    generation it was ever given."""

    device: str
    release: str | None
    previous: str | None
    generation: int


@dataclass(frozen=True)
class RolloutSpec:
    """What a rollout is to do: waves of devices, each offered when the one before it was judged good."""

    id: str
    waves: tuple[tuple[RolloutTarget, ...], ...]
    policy: RolloutPolicy = field(default_factory=RolloutPolicy)

    def __post_init__(self) -> None:
        if not self.waves:
            raise RolloutError(f"rollout {self.id}: it selects no device")
        seen: set[str] = set()
        for number, wave in enumerate(self.waves, 1):
            if not wave:
                raise RolloutError(f"rollout {self.id}: wave {number} selects no device")
            for target in wave:
                if target.device in seen:
                    raise RolloutError(f"rollout {self.id}: device {target.device} is in it twice")
                seen.add(target.device)


def in_two_waves(targets: Sequence[RolloutTarget], first: int) -> tuple[tuple[RolloutTarget, ...], ...]:
    """The first `first` devices, then the rest; one wave when that is all of them. Raises RolloutError for none."""
    if first < 1:
        raise RolloutError(f"the first wave has {first} devices; it needs at least one")
    waves = (tuple(targets[:first]), tuple(targets[first:]))
    return tuple(wave for wave in waves if wave)


@dataclass(frozen=True)
class RolloutClock:
    """What time is for one rollout.

    Deadlines count `watched`: the seconds during which the controller was there to hear an answer. So no device
    is called silent because the controller was down, or because somebody set its clock. `wall` is the Unix
    time at which `watched` was taken. `concluded_at` is `watched` when a device ended last.
    """

    watched: float
    wall: float
    concluded_at: float = 0.0


# ── What can happen ──


class Outcome(Enum):
    """How far a device says it is with a generation."""

    IN_PROGRESS = "in progress"
    SUCCEEDED = "succeeded"
    FAILED = "failed"  # also: it refuses a release that failed there before


@dataclass(frozen=True)
class Started:
    """Begin with the first wave."""


@dataclass(frozen=True)
class DeviceReported:
    """A device has said something of `generation`. If that is not the rollout's own, nothing changes."""

    device: str
    generation: int
    outcome: Outcome
    step: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Silenced:
    """The device cannot answer any more, and nobody need wait for its deadline."""

    device: str
    reason: str


@dataclass(frozen=True)
class Tick:
    """Time has passed. Due at least every MAX_GAP_S while a rollout lives, or its clock runs slow."""


@dataclass(frozen=True)
class Paused:
    """Offer nothing more until Resumed. What was offered goes on."""

    by: str = ""


@dataclass(frozen=True)
class Resumed:
    """Go on after Paused."""

    by: str = ""


@dataclass(frozen=True)
class Aborted:
    """Stop. Devices under way go back; those that have the release keep it, or with `revert` go back too."""

    revert: bool = False
    by: str = ""


@dataclass(frozen=True)
class Superseded:
    """Another rollout takes over `devices` (None: all). This one never touches them again."""

    by: str
    devices: frozenset[str] | None = None


Event = Started | DeviceReported | Silenced | Tick | Paused | Resumed | Aborted | Superseded


# ── What it answers ──


@dataclass(frozen=True)
class DeviceChange:
    """Where a device stands now. `generation`: the one whose reports count. `detached`: another rollout has it.
    `deadline`: when it is called silent, by `watched`; None when nothing is expected of it."""

    device: str
    phase: DevicePhase
    generation: int
    deadline: float | None = None
    detached: bool = False
    reason: str = ""


@dataclass(frozen=True)
class RolloutChange:
    """Where the rollout stands now. `wave` counts from 1, 0 before the start. `ending`: how it will end, once
    decided, while devices are still under way."""

    phase: RolloutPhase
    wave: int
    ending: RolloutPhase | None
    reason: str


@dataclass(frozen=True)
class Changes:
    """What a step changed, to be stored before anything is done about it. None at all: `clock` is None."""

    clock: RolloutClock | None = None
    devices: tuple[DeviceChange, ...] = ()
    rollout: RolloutChange | None = None

    def __bool__(self) -> bool:
        return self.clock is not None


@dataclass(frozen=True)
class SetDesired:
    """Give `device` this release as `generation`. To be stored together with the changes, in one transaction."""

    device: str
    release: str | None
    generation: int
    reason: str


@dataclass(frozen=True)
class Hint:
    """Tell `device` to check in; it does no harm when this is lost."""

    device: str
    generation: int


@dataclass(frozen=True)
class Finish:
    """The rollout has ended; `counts` says how many devices ended how."""

    phase: RolloutPhase
    reason: str
    counts: Mapping[DevicePhase, int]


Action = SetDesired | Hint | Finish
Actions = tuple[Action, ...]
