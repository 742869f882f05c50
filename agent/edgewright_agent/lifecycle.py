"""How a device moves from one release to the next: one table of (step, event), nothing else.

Everything that affects a transition is in this file, and nothing in it touches the world: `advance` takes a
state, an event and the time, and returns the next state and the acts to perform. The executor (`update.py`)
saves the state, then acts, then comes back with an event. A pair that is not in the table is a fault of
the executor and raises.

    IDLE → PLANNING → DOWNLOADING → VERIFYING → STARTING → PROVING → PROBING → SWITCHING → DRAINING → IDLE
               any of these failing, or a newer generation: REVERTING → IDLE, the old version serving all the while

What holds for every state: it has a deadline, or it is IDLE, or it is a download that somebody paused, or one whose
source says again and again to come back later, for as long as it says so; a newer generation cancels it, or waits for
the few seconds of a switch, a drain or a reversal. So every update ends.

A release that failed here by its own fault is held: the same digest is not tried again until the hold is
released. A failure by circumstance (no disk, no network) is not held; the device tries again, more and more
rarely, for as long as the controller goes on wanting that generation.

An active version that no longer serves (`broken`) gives way to the previous one, at once or as soon as the update
that is under way has come to nothing. Without a previous one, or when that was left to return to this one, it is
installed anew, whatever the generation names, with the check-ins that bring the device its goals.

`now` is monotonic seconds. It means nothing after a restart, so `restore` sets every deadline anew.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Final

from edgewright_agent.lifecycle_state import (
    CIRCUMSTANCES,
    MAX_REASON,
    Act,
    ActiveBroken,
    ActiveServes,
    Assigned,
    Done,
    DownloadsPaused,
    DownloadsResumed,
    DownloadWaits,
    Event,
    Failed,
    Fault,
    Goal,
    HoldReleased,
    Lifecycle,
    Outcome,
    Progressed,
    Refused,
    RunningChanged,
    Step,
    Tick,
)

Next = tuple[Lifecycle, tuple[Act, ...]]

STALL_S: Final = 900.0
MAX_ATTEMPTS: Final = 3
MAX_RESUMES: Final = 50
MAX_REPAIRS: Final = 2
MAX_HELD: Final = 64
_FIRST_RETRY_S: Final = 60.0
_LAST_RETRY_S: Final = 6 * 3600.0

DEADLINES_S: Final[Mapping[Step, float]] = {
    Step.PLANNING: 300.0,
    Step.DOWNLOADING: 24 * 3600.0,  # and STALL_S without progress
    Step.VERIFYING: 3600.0,
    Step.STARTING: 900.0,
    Step.PROVING: 120.0,
    Step.PROBING: 60.0,  # on top of the probes' own timeouts
    Step.SWITCHING: 60.0,
    Step.DRAINING: 180.0,
    Step.REVERTING: 180.0,  # more when the previous version has to be checked and loaded, see _FALLING_BACK_S
}
_FALLING_BACK_S: Final = DEADLINES_S[Step.VERIFYING] + DEADLINES_S[Step.STARTING]
_MENDING_PROBES_S: Final = 900.0  # for the probes of a release that the goal does not speak of

_ACTS: Final[Mapping[Step, Act]] = {
    Step.PLANNING: Act.PLAN,
    Step.DOWNLOADING: Act.DOWNLOAD,
    Step.VERIFYING: Act.VERIFY,
    Step.STARTING: Act.START,
    Step.PROVING: Act.PROVE,
    Step.PROBING: Act.PROBE,
    Step.SWITCHING: Act.SWITCH,
    Step.DRAINING: Act.DRAIN,
    Step.REVERTING: Act.REVERT,
}

_WORKING: Final = (Step.PLANNING, Step.DOWNLOADING, Step.VERIFYING, Step.STARTING, Step.PROVING, Step.PROBING)
_AFTER: Final = dict(zip(_WORKING, (*_WORKING[1:], Step.SWITCHING), strict=True))


class ImpossibleEvent(Exception):
    """The executor brought an event that cannot happen in this step: a fault of ours, never the network's."""


def advance(state: Lifecycle, event: Event, now: float) -> Next:
    """The next state, to be saved first, and the acts to perform then. Raises ImpossibleEvent."""
    transition = TABLE.get((state.step, type(event)))
    if transition is None:
        raise ImpossibleEvent(f"{type(event).__name__} in step {state.step.name}")
    return _numbered(state, transition(state, event, now))


def restore(saved: Lifecycle, now: float) -> Next:
    """Where to go on after a restart of the agent. The active version is started by the caller, before this.

    The sequence always rises: what a new process says of itself, such as its endpoint, is news.
    """
    after, acts = _resumed(saved, now)
    return replace(after, sequence=saved.sequence + 1), acts


def wakes_at(state: Lifecycle) -> float:
    """When the next Tick is due; infinity when none is."""
    return min(state.deadline, state.stalls_at)


def _numbered(before: Lifecycle, following: Next) -> Next:
    after, acts = following
    return (before, acts) if after == before else (replace(after, sequence=before.sequence + 1), acts)


def _enter(state: Lifecycle, step: Step, now: float) -> Next:
    if step is Step.DOWNLOADING and state.paused:  # the act waits; it goes on only where nothing is to be fetched
        return replace(state, step=step, deadline=math.inf, stalls_at=math.inf), (_ACTS[step],)
    allowed = DEADLINES_S[step] + (state.probing_s if step is Step.PROBING else 0.0)
    if step is Step.REVERTING and state.falling_back:
        allowed = _FALLING_BACK_S
    stalls_at = now + STALL_S if step is Step.DOWNLOADING else math.inf
    return replace(state, step=step, deadline=now + allowed, stalls_at=stalls_at), (_ACTS[step],)


def _rest(state: Lifecycle) -> Lifecycle:
    return replace(state, step=Step.IDLE, deadline=math.inf, stalls_at=math.inf, probing_s=0.0, falling_back=False)


def _stay(state: Lifecycle, event: Event, now: float) -> Next:
    return state, ()


def _consider(state: Lifecycle, event: Event, now: float) -> Next:
    assert isinstance(event, Assigned)
    goal = event.goal
    if goal.generation < state.generation:
        return state, ()
    if goal.generation == state.generation:
        return _consider_again(state, goal, now)
    fresh = replace(
        state,
        generation=goal.generation,
        wanted=goal.release,
        release=goal.release,
        outcome=Outcome.IN_PROGRESS,
        fault=Fault.NONE,
        reason="",
        attempts=0,
        resumes=0,
        failures=0,
        retry_at=math.inf,
        refused=0,
        refusal="",
    )
    if goal.release in state.held:
        return _held(fresh), ()
    if goal.release == state.active and not _is_broken(state):
        return replace(fresh, outcome=Outcome.SUCCEEDED), ()
    return _begin(fresh, goal, now)


def _consider_again(state: Lifecycle, goal: Goal, now: float) -> Next:
    """The generation is known; only a failure may be worth another try, and a refusal of metadata is over."""
    afresh = replace(state, outcome=Outcome.IN_PROGRESS, fault=Fault.NONE, reason="")
    # Without a time to try again, the outcome speaks of the other release, and this one has its turn at once. Each has
    # its turn after the other, and the active one, which serves nobody, the first.
    due, unset = now >= state.retry_at, math.isinf(state.retry_at)
    mendable = _is_broken(state) and state.active not in state.held
    mending = Goal(state.generation, state.active, _MENDING_PROBES_S)
    just_broke = state.release == state.active and state.failures <= 1
    if mendable and ((due and just_broke) or (state.release != state.active and (due or unset))):
        return _begin(replace(afresh, release=state.active), mending, now)
    ended_badly = state.outcome in (Outcome.FAILED, Outcome.HELD)
    put_aside = goal.release != state.release and unset
    if ended_badly and goal.release not in state.held and (due or put_aside):
        if goal.release == state.active and not _is_broken(state):
            return replace(afresh, outcome=Outcome.SUCCEEDED, release=goal.release, retry_at=math.inf), ()
        return _begin(replace(afresh, release=goal.release), goal, now)
    if mendable and due:
        return _begin(replace(afresh, release=state.active), mending, now)
    if state.fault in (Fault.METADATA_REFUSED, Fault.METADATA_STALE):
        return replace(state, fault=Fault.NONE, reason=""), ()
    return state, ()


def _is_broken(state: Lifecycle) -> bool:
    return bool(state.active) and state.broken is not Fault.NONE


def _held(state: Lifecycle) -> Lifecycle:
    """What is wanted failed here before."""
    reason = f"release {state.wanted[:12]} failed on this device before; `edgewright apply --again` tries it again"
    return replace(state, release=state.wanted, outcome=Outcome.HELD, fault=Fault.NONE, reason=reason)


def _begin(state: Lifecycle, goal: Goal, now: float) -> Next:
    state = replace(state, probing_s=goal.probing_s, retry_at=math.inf)
    return _enter(state, Step.PLANNING if goal.release else Step.SWITCHING, now)


def _note(state: Lifecycle, event: Event, now: float) -> Next:
    """Say that metadata was refused, unless the status still has to explain how the last update failed.

    Refusing a generation ends it: without a word about it, its rollout would wait for this device until the deadline.
    Metadata that is only too old may be fresh at the next check-in.
    """
    assert isinstance(event, Refused)
    if event.fault is Fault.METADATA_REFUSED and event.generation > state.generation:
        return replace(state, refused=event.generation, refusal=event.reason[:MAX_REASON]), ()
    if state.outcome in (Outcome.FAILED, Outcome.HELD):
        return state, ()
    return replace(state, fault=event.fault, reason=event.reason[:MAX_REASON]), ()


def _supersede(state: Lifecycle, event: Event, now: float) -> Next:
    assert isinstance(event, Assigned)
    if event.goal.generation <= state.generation:
        return state, ()
    if event.goal.release == state.release:
        return replace(state, generation=event.goal.generation, wanted=event.goal.release), ()
    reason = f"generation {event.goal.generation} took the place of generation {state.generation}"
    reverting, acts = _fail(replace(state, pending=event.goal), Fault.CANCELLED, reason, now)
    return reverting, (Act.CANCEL, *acts)


def _queue(state: Lifecycle, event: Event, now: float) -> Next:
    assert isinstance(event, Assigned)
    newest = max(state.generation, state.pending.generation if state.pending else 0)
    return (replace(state, pending=event.goal), ()) if event.goal.generation > newest else (state, ())


def _done(state: Lifecycle, event: Event, now: float) -> Next:
    if state.step is Step.DOWNLOADING:
        state = replace(state, reason="")  # nothing is waited for any more
    return _enter(state, _AFTER[state.step], now)


def _switched(state: Lifecycle, event: Event, now: float) -> Next:
    """From here on the new version answers; what it took the place of stays on the disk."""
    if state.release == state.active:  # installed anew
        return _enter(_whole(state), Step.DRAINING, now)
    returned = state.release != "" and state.release == state.previous
    switched = replace(state, active=state.release, previous=state.active, returned=returned)
    return _enter(_whole(switched), Step.DRAINING, now)


def _whole(state: Lifecycle) -> Lifecycle:
    """The active version serves, as far as is known."""
    return replace(state, broken=Fault.NONE, broken_reason="")


def _verified_not(state: Lifecycle, event: Event, now: float) -> Next:
    """Every block was checked when it came, so damage found now is the disk's doing: it is fetched again."""
    assert isinstance(event, Failed)
    if event.fault is Fault.ARTIFACT_CORRUPT and state.failures < MAX_REPAIRS:
        return _enter(replace(state, failures=state.failures + 1), Step.PLANNING, now)
    return _failed(state, event, now)


def _failed(state: Lifecycle, event: Event, now: float) -> Next:
    assert isinstance(event, Failed)
    return _fail(state, event.fault, event.reason, now)


def _fail(state: Lifecycle, fault: Fault, reason: str, now: float) -> Next:
    return _enter(replace(state, fault=fault, reason=reason[:MAX_REASON]), Step.REVERTING, now)


def _progressed(state: Lifecycle, event: Event, now: float) -> Next:
    return replace(state, stalls_at=math.inf if state.paused else now + STALL_S, resumes=0, reason=""), ()


def _waits(state: Lifecycle, event: Event, now: float) -> Next:
    """Time in which the source gives nothing, and says so, is not the download's."""
    assert isinstance(event, DownloadWaits)
    stalls_at = math.inf if state.paused else now + event.seconds + STALL_S
    deadline = state.deadline + event.seconds
    return replace(state, stalls_at=stalls_at, deadline=deadline, reason=event.reason[:MAX_REASON]), ()


def _look_at_the_clock(state: Lifecycle, event: Event, now: float) -> Next:
    if now < wakes_at(state):
        return state, ()
    if state.step is Step.DOWNLOADING:
        reverting, acts = _fail(state, Fault.DOWNLOAD_FAILED, f"no new block for {STALL_S:.0f} s", now)
    elif state.step is Step.PLANNING:
        reverting, acts = _fail(state, Fault.DOWNLOAD_FAILED, "the plan did not come about in its time", now)
    else:
        reverting, acts = _fail(state, Fault.DEADLINE, f"{state.step.name.lower()} did not end in its time", now)
    return reverting, (Act.CANCEL, *acts)


def _finish(state: Lifecycle, event: Event, now: float) -> Next:
    """The new version serves, whatever became of the old engine."""
    ended = replace(_rest(state), outcome=Outcome.SUCCEEDED, fault=Fault.NONE, reason="", failures=0)
    return _go_on(ended, now)


def _finish_late(state: Lifecycle, event: Event, now: float) -> Next:
    if now < state.deadline:
        return state, ()
    resting, acts = _finish(state, event, now)
    return resting, (Act.CANCEL, *acts)


def _reverted(state: Lifecycle, event: Event, now: float) -> Next:
    """The device is back where it was, or on the previous version after a fall-back."""
    ended = replace(_rest(state), outcome=Outcome.FAILED)
    if state.falling_back and isinstance(event, Done):
        ended = _whole(replace(ended, active=state.previous, previous="", returned=False))
    # What was damaged at rest is the disk's fault, not the release's: it is fetched again, the first time at once.
    damaged = state.falling_back and state.fault is Fault.ARTIFACT_CORRUPT
    if state.fault in CIRCUMSTANCES or damaged:
        wait = min(_FIRST_RETRY_S * 2.0 ** min(state.failures, 10), _LAST_RETRY_S)
        wait = 0.0 if damaged and not state.failures else wait
        ended = replace(ended, failures=state.failures + 1, retry_at=now + wait)
    elif state.fault is not Fault.CANCELLED and state.release:
        others = tuple(release for release in state.held if release != state.release)
        ended = replace(ended, held=(*others, state.release)[-MAX_HELD:])
    return _go_on(ended, now, fell_back=state.falling_back)


def _reverted_late(state: Lifecycle, event: Event, now: float) -> Next:
    if now < state.deadline:
        return state, ()
    resting, acts = _reverted(state, event, now)
    return resting, (Act.CANCEL, *acts)


def _go_on(state: Lifecycle, now: float, *, fell_back: bool = False) -> Next:
    """At rest: start with the goal that had to wait, if there is one, or see to an active version that broke."""
    if state.pending is not None:
        return _consider(replace(state, pending=None), Assigned(state.pending), now)
    if _is_broken(state) and state.way_back and not fell_back:
        both = f"{state.broken_reason}; and before that: {state.reason}" if state.reason else state.broken_reason
        return _give_way(replace(state, broken_reason=both[:MAX_REASON]), now)
    if state.release != state.wanted and (fell_back or state.outcome is Outcome.SUCCEEDED):
        return _back_to_what_is_wanted(state, now)
    return state, ()


def _back_to_what_is_wanted(state: Lifecycle, now: float) -> Next:
    """The active version was seen to in between; the outcome speaks of what the generation names again."""
    if state.wanted in state.held:
        return _held(state), ()
    if state.wanted == state.active and not _is_broken(state):
        return replace(state, release=state.wanted, outcome=Outcome.SUCCEEDED, fault=Fault.NONE, reason=""), ()
    goal = Goal(state.generation, state.wanted, _MENDING_PROBES_S)
    again = replace(state, release=state.wanted, outcome=Outcome.IN_PROGRESS, fault=Fault.NONE, reason="")
    return _begin(again, goal, now)


def _release_hold(state: Lifecycle, event: Event, now: float) -> Next:
    assert isinstance(event, HoldReleased)
    if event.release not in state.held:
        return state, ()
    held = tuple(release for release in state.held if release != event.release)
    retry_at = now if state.release == event.release else state.retry_at
    return replace(state, held=held, retry_at=retry_at), ()


def _pause(state: Lifecycle, event: Event, now: float) -> Next:
    """Applies from now on, and to the download that runs: its act begins anew, and waits or does not."""
    paused = isinstance(event, DownloadsPaused)
    if paused == state.paused:
        return state, ()
    changed = replace(state, paused=paused)
    if state.step is not Step.DOWNLOADING:
        return changed, ()
    downloading, acts = _enter(changed, Step.DOWNLOADING, now)
    return downloading, (Act.CANCEL, *acts)


def _broke(state: Lifecycle, event: Event, now: float) -> Next:
    """Nothing is being changed: give way to the previous version, or have this one installed anew."""
    assert isinstance(event, ActiveBroken)
    if event.release != state.active or not state.active:
        return state, ()  # late news of a version that is no longer active
    waiting = state.outcome is Outcome.FAILED and state.release == state.active and math.isfinite(state.retry_at)
    broken = _noted(state, event)
    if waiting:
        return broken, ()
    if broken.way_back:
        return _give_way(broken, now)
    # Nothing to return to, and nothing serves: going through the whole update again at once repairs damaged files.
    failures = state.failures if state.release == state.active else 0  # those of another release are not its own
    wait = min(_FIRST_RETRY_S * 2.0 ** min(failures, 10), _LAST_RETRY_S) if failures else 0.0
    told = replace(broken, release=state.active, fault=event.fault, reason=broken.broken_reason)
    return replace(told, outcome=Outcome.FAILED, failures=failures + 1, retry_at=now + wait), ()


def _broke_meanwhile(state: Lifecycle, event: Event, now: float) -> Next:
    """An update is under way. While it still has no engine of its own, the previous version serves first."""
    assert isinstance(event, ActiveBroken)
    if event.release != state.active or not state.active:
        return state, ()
    broken = _noted(state, event)
    no_engine_yet = state.step in (Step.PLANNING, Step.DOWNLOADING, Step.VERIFYING)
    tried_before = _is_broken(state) or state.active in state.held
    if not no_engine_yet or not state.way_back or tried_before:
        return broken, ()
    falling, acts = _give_way(broken, now)
    return falling, (Act.CANCEL, *acts)


def _noted(state: Lifecycle, event: ActiveBroken) -> Lifecycle:
    return replace(state, broken=event.fault, broken_reason=event.reason[:MAX_REASON])


def _tell_anew(state: Lifecycle, event: Event, now: float) -> Next:
    return replace(state, sequence=state.sequence + 1), ()


def _give_way(state: Lifecycle, now: float) -> Next:
    """To the previous version. What was under way, if anything, begins anew afterwards."""
    told = replace(state, release=state.active, fault=state.broken, reason=state.broken_reason)
    falling, _ = _enter(replace(told, outcome=Outcome.IN_PROGRESS, falling_back=True), Step.REVERTING, now)
    return falling, (Act.FALL_BACK,)


def _serves(state: Lifecycle, event: Event, now: float) -> Next:
    assert isinstance(event, ActiveServes)
    return (_whole(state) if event.release == state.active and not state.falling_back else state), ()


def _resumed(saved: Lifecycle, now: float) -> Next:
    if saved.step is Step.IDLE:
        return replace(saved, retry_at=now if math.isfinite(saved.retry_at) else math.inf), ()
    if saved.step is Step.DRAINING:
        return _enter(saved, Step.DRAINING, now)  # the old engine went with the agent, but not what it was made of
    if saved.step is Step.REVERTING:
        reverting, acts = _enter(saved, Step.REVERTING, now)
        return reverting, (Act.FALL_BACK,) if saved.falling_back else acts
    fetching = saved.step in (Step.PLANNING, Step.DOWNLOADING)
    waiting = fetching and saved.paused  # nothing was to come in
    counted = replace(
        saved,
        attempts=saved.attempts + (0 if fetching else 1),
        resumes=saved.resumes + (1 if fetching and not waiting else 0),
    )
    if counted.attempts >= MAX_ATTEMPTS or counted.resumes >= MAX_RESUMES:
        times = counted.resumes if fetching else counted.attempts
        return _fail(counted, Fault.INTERNAL, f"the agent stopped {times} times while {saved.step.name.lower()}", now)
    if not saved.release:
        return _enter(counted, Step.SWITCHING, now)
    return _enter(counted, Step.PLANNING if fetching else Step.VERIFYING, now)


_Transition = Callable[[Lifecycle, Event, float], Next]

TABLE: Final[Mapping[tuple[Step, type[Event]], _Transition]] = {
    (Step.IDLE, Assigned): _consider,
    (Step.IDLE, Refused): _note,
    (Step.IDLE, ActiveBroken): _broke,
    **{(step, Assigned): _supersede for step in _WORKING},
    **{(step, Done): _done for step in _WORKING},
    **{(step, Failed): _failed for step in _WORKING if step is not Step.VERIFYING},
    (Step.VERIFYING, Failed): _verified_not,
    **{(step, Tick): _look_at_the_clock for step in _WORKING},
    (Step.DOWNLOADING, Progressed): _progressed,
    (Step.DOWNLOADING, DownloadWaits): _waits,
    (Step.SWITCHING, Assigned): _queue,
    (Step.SWITCHING, Done): _switched,
    (Step.SWITCHING, Failed): _failed,
    (Step.SWITCHING, Tick): _look_at_the_clock,
    (Step.DRAINING, Assigned): _queue,
    (Step.DRAINING, Done): _finish,
    (Step.DRAINING, Failed): _finish,
    (Step.DRAINING, Tick): _finish_late,
    (Step.REVERTING, Assigned): _queue,
    (Step.REVERTING, Done): _reverted,
    (Step.REVERTING, Failed): _reverted,
    (Step.REVERTING, Tick): _reverted_late,
    # What may come at any time and waits for nothing.
    **{(step, HoldReleased): _release_hold for step in Step},
    **{(step, DownloadsPaused): _pause for step in Step},
    **{(step, DownloadsResumed): _pause for step in Step},
    **{(step, Refused): _stay for step in Step if step is not Step.IDLE},
    **{(step, ActiveBroken): _broke_meanwhile for step in Step if step is not Step.IDLE},
    **{(step, ActiveServes): _serves for step in Step},
    **{(step, RunningChanged): _tell_anew for step in Step},
    (Step.IDLE, Tick): _stay,
}
