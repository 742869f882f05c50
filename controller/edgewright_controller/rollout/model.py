"""The nouns of a rollout: what it is to do, what can happen to it, and what it answers. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from edgewright_controller.gates import GatePolicy, HealthSamples
from edgewright_controller.rollout.window import Window, lasts

WEEK_S: Final = 7 * 24 * 3600.0


class RolloutError(Exception):
    """This cannot be asked of a rollout; the text says why, and what can."""


class RolloutPhase(Enum):
    """Where a rollout stands. The last four are final."""

    __hash__ = object.__hash__

    RUNNING = "running"
    PAUSED = "paused"
    WAITING = "waiting"  # not begun, or a wave is being watched before the next
    APPROVAL = "approval"  # a wave has succeeded, and somebody must say that the next may begin
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


# What a rollout calls the step of a device whose download somebody paused.
DOWNLOAD_PAUSED: Final = "downloading, paused on request"
DOWNLOADING: Final = "downloading"  # as a device calls this step
STEPS: Final = ("check_in", "plan", "download", "stage", "start", "prove", "probe", "commit")


@dataclass(frozen=True)
class RolloutPolicy:
    """Seconds are of the rollout's own clock (see RolloutClock).

    device_deadline_s: from the offer to the device's answer; silence beyond it is a failure. The way back has as much.
    Of a device that downloads in windows only, it counts the time in which these are open; so does its step "download".
    patience_s: a pause, a wait for approval, a start that does not come, or a wave that can offer nothing ends after
    this: abort, and keep what was reached.
    step_deadlines_s: by names of STEPS, how long a device may take for that step; "check_in" is from the offer to its
    first word. None of them outlasts device_deadline_s.
    deadline_s: of the whole rollout; then abort, and keep. None: it has none.
    devices_per_minute: so many are offered the release at most. None: all that a wave has.
    """

    device_deadline_s: float = 900.0
    gate: GatePolicy = field(default_factory=GatePolicy)
    on_failure: OnFailure = OnFailure.KEEP
    patience_s: float = WEEK_S
    step_deadlines_s: Mapping[str, float] = field(default_factory=dict)
    deadline_s: float | None = None
    devices_per_minute: int | None = None

    def __post_init__(self) -> None:
        seconds = {"device_deadline_s": self.device_deadline_s, "patience_s": self.patience_s}
        seconds |= {f"step_deadlines_s.{step}": limit for step, limit in self.step_deadlines_s.items()}
        if self.deadline_s is not None:
            seconds["deadline_s"] = self.deadline_s
        for name, value in seconds.items():
            if not 0 < value < float("inf"):
                raise RolloutError(f"{name}: {value} is not a number of seconds above 0")
        for step in self.step_deadlines_s:
            if step not in STEPS:
                raise RolloutError(f"step_deadlines_s.{step}: a device has no such step; it has {', '.join(STEPS)}")
        if self.devices_per_minute is not None and self.devices_per_minute < 1:
            raise RolloutError(f"devices_per_minute: {self.devices_per_minute} would never offer anything")


@dataclass(frozen=True)
class RolloutTarget:
    """One device's part: the release it shall have (None: nothing), the one it goes back to, and the highest
    generation it was ever given. It is offered something only while one of `windows` is open in `zone`; without
    windows, at any time. The way back waits for no window. It downloads only while one of `delivery` is open in `zone`;
    while none is, its deadlines wait with it."""

    device: str
    release: str | None
    previous: str | None
    generation: int
    windows: tuple[Window, ...] = ()
    zone: str = "UTC"
    delivery: tuple[Window, ...] = ()

    def lasts_s(self, now: float, seconds: float) -> float:
        """How long it takes from `now` (Unix) until this device could have downloaded for so many seconds."""
        return lasts(self.delivery, self.zone, now, seconds)


class Then(Enum):
    """What follows when a wave has succeeded."""

    GO_ON = "go on"
    PAUSE = "pause"
    APPROVAL = "approval"


@dataclass(frozen=True)
class AfterWave:
    """What follows a wave: it is watched for `soak_s` after its last device ended, `then` what. `what` says in words
    which devices the wave has."""

    soak_s: float = 0.0
    then: Then = Then.GO_ON
    what: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.soak_s < float("inf"):
            raise RolloutError(f"soak_s: {self.soak_s} is not a number of seconds from 0")


@dataclass(frozen=True)
class RolloutSpec:
    """What a rollout is to do: waves of devices, each offered when the one before it was judged good.

    `after` says what follows each wave; waves that it does not reach are watched for the gate's soak_s.
    """

    id: str
    waves: tuple[tuple[RolloutTarget, ...], ...]
    policy: RolloutPolicy = field(default_factory=RolloutPolicy)
    after: tuple[AfterWave, ...] = ()

    def after_wave(self, number: int) -> AfterWave:
        """What follows wave `number`, from 1."""
        return self.after[number - 1] if number <= len(self.after) else AfterWave(self.policy.gate.soak_s)

    def __post_init__(self) -> None:
        if not self.waves:
            raise RolloutError(f"rollout {self.id}: it selects no device")
        if len(self.after) > len(self.waves):
            raise RolloutError(f"rollout {self.id}: {len(self.after)} things follow {len(self.waves)} waves")
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
    time at which `watched` was taken. `concluded_at` is `watched` when a device ended last, `offered_at` when one was
    offered the release last, `next_offer_at` when devices_per_minute has the next one's turn.
    """

    watched: float
    wall: float
    concluded_at: float = 0.0
    offered_at: float = 0.0
    next_offer_at: float = 0.0


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
    """A device has said something of `generation`. If that is not the rollout's own, nothing changes. `step` is the
    agent's word for where it is: planning, downloading, … `again`: it failed by circumstance, as for want of room, and
    will try again by itself for as long as it is to have the release."""

    device: str
    generation: int
    outcome: Outcome
    step: str = ""
    reason: str = ""
    again: bool = False


@dataclass(frozen=True)
class Silenced:
    """The device cannot answer any more, and nobody need wait for its deadline."""

    device: str
    reason: str


@dataclass(frozen=True)
class Evidence:
    """How the devices that have the release do with it. The newest is judged with every step; it is not stored."""

    health: HealthSamples


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
class Approved:
    """The next wave may begin."""

    by: str = ""


@dataclass(frozen=True)
class Retried:
    """Offer the release anew to `devices` that failed, fell silent or were skipped; None: to all that failed or fell
    silent."""

    devices: frozenset[str] | None = None
    by: str = ""


@dataclass(frozen=True)
class Skipped:
    """Go on without `devices`: those that wait are not offered anything, those under way go back, those that failed
    count no longer, and nobody waits for those on their way back."""

    devices: frozenset[str]
    by: str = ""


@dataclass(frozen=True)
class Left:
    """The device is no longer the rollout's, and that is no failure. With `waiting_only` a device that was offered
    something already stays; if nobody waits for it any longer, only its offer is taken back."""

    device: str
    reason: str
    waiting_only: bool = False


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


Command = Paused | Resumed | Approved | Retried | Skipped | Aborted
Event = Started | DeviceReported | Silenced | Evidence | Tick | Command | Left | Superseded


# ── What it answers ──


@dataclass(frozen=True)
class DeviceChange:
    """Where a device stands now. `generation`: the one whose reports count. `detached`: it is not the rollout's any
    more, as another has it or it left. `deadline`: when it is called silent, by `watched`; None when nothing is
    expected of it. That is for the `step` it said last, and never after `until`, which is for all of them.
    `offer_stands`: what the rollout gave it last is the release, and not the way back. `tries_again`: it failed, and
    will try that again by itself."""

    device: str
    phase: DevicePhase
    generation: int
    deadline: float | None = None
    detached: bool = False
    reason: str = ""
    step: str = ""
    until: float | None = None
    offer_stands: bool = False
    tries_again: bool = False


@dataclass(frozen=True)
class RolloutChange:
    """Where the rollout stands now. `wave` counts from 1, 0 before the start. `ending`: how it will end, once
    decided, while devices are still under way. `halted`: the last wave after which it paused or asked for approval,
    as planned; it does so once."""

    phase: RolloutPhase
    wave: int
    ending: RolloutPhase | None
    reason: str
    halted: int = 0


@dataclass(frozen=True)
class Changes:
    """What a step changed, to be stored before anything is done about it. None at all: `clock` is None. `health` is not
    stored: after a restart it comes anew."""

    clock: RolloutClock | None = None
    devices: tuple[DeviceChange, ...] = ()
    rollout: RolloutChange | None = None
    health: HealthSamples | None = None

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
class LiftHold:
    """Let `device` try `release` again, which failed there. To be stored as SetDesired is, before it."""

    device: str
    release: str


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


Action = SetDesired | LiftHold | Hint | Finish
Actions = tuple[Action, ...]
