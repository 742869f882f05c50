from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent import lifecycle, status
from edgewright_agent.lifecycle_state import (
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
from edgewright_contract.v1 import agent_pb2

OLD, NEW, OTHER = "a" * 64, "b" * 64, "c" * 64
SERVING = Lifecycle(generation=1, wanted=OLD, release=OLD, outcome=Outcome.SUCCEEDED, active=OLD)
TWO = replace(SERVING, active=NEW, wanted=NEW, release=NEW, generation=2, previous=OLD)
WORK = (Step.PLANNING, Step.DOWNLOADING, Step.VERIFYING, Step.STARTING, Step.PROVING, Step.PROBING)


def after(state: Lifecycle, *events: Event, now: float = 0.0) -> Lifecycle:
    for event in events:
        state, _ = lifecycle.advance(state, event, now)
    return state


def at(step: Step, state: Lifecycle = SERVING) -> Lifecycle:
    """`state` on its way to NEW, standing at `step`."""
    state = state if state.step is not Step.IDLE else after(state, Assigned(Goal(2, NEW)))
    while state.step is not step:
        state = after(state, Done())
    return state


TWO_AND_OTHER = after(TWO, Assigned(Goal(3, OTHER)))


def test_the_words_are_the_wires() -> None:
    for step in Step:
        assert agent_pb2.Step.Value(f"STEP_{step.name}") == step.value
    for outcome in Outcome:
        name = "UNSPECIFIED" if outcome is Outcome.NONE else outcome.name
        assert agent_pb2.Outcome.Value(f"OUTCOME_{name}") == outcome.value
    for fault in Fault:
        name = "UNSPECIFIED" if fault is Fault.NONE else fault.name
        assert agent_pb2.ErrorCode.Value(f"ERROR_CODE_{name}") == fault.value


def test_an_update_goes_through_every_step_and_ends_serving_the_new_version() -> None:
    state, acts = lifecycle.advance(SERVING, Assigned(Goal(2, NEW)), 0.0)
    done = list(acts)
    while state.step is not Step.IDLE:
        assert state.outcome is Outcome.IN_PROGRESS
        state, acts = lifecycle.advance(state, Done(), 0.0)
        done += acts
    assert done == [Act.PLAN, Act.DOWNLOAD, Act.VERIFY, Act.START, Act.PROVE, Act.PROBE, Act.SWITCH, Act.DRAIN]
    assert (state.outcome, state.active, state.previous) == (Outcome.SUCCEEDED, NEW, OLD)
    assert lifecycle.wakes_at(state) == math.inf


def test_the_sequence_rises_with_each_change_and_only_then() -> None:
    state = after(SERVING, Assigned(Goal(2, NEW)))
    assert state.sequence == SERVING.sequence + 1
    assert after(state, Tick()).sequence == state.sequence
    assert after(state, Done()).sequence == state.sequence + 1


@pytest.mark.parametrize("step", WORK)
def test_a_fault_of_the_release_reverts_and_holds_it(step: Step) -> None:
    state, acts = lifecycle.advance(at(step), Failed(Fault.ENGINE_FAILED, "it aborted"), 0.0)
    assert (state.step, acts, state.active) == (Step.REVERTING, (Act.REVERT,), OLD)
    state = after(state, Done())
    assert (state.step, state.outcome, state.active) == (Step.IDLE, Outcome.FAILED, OLD)
    assert (state.fault, state.reason, state.held) == (Fault.ENGINE_FAILED, "it aborted", (NEW,))
    again = after(state, Assigned(Goal(2, NEW)), now=1e9)
    assert again == state
    held = after(state, Assigned(Goal(3, NEW)))
    assert (held.step, held.outcome, held.active) == (Step.IDLE, Outcome.HELD, OLD)
    other = after(held, Assigned(Goal(4, OTHER)))
    assert other.step is Step.PLANNING


def test_a_released_hold_lets_the_same_generation_try_again() -> None:
    failed = after(at(Step.PROBING), Failed(Fault.PROBE_FAILED, "wrong"), Done())
    assert after(failed, Assigned(Goal(2, NEW))).step is Step.IDLE
    assert after(failed, HoldReleased(NEW), Assigned(Goal(2, NEW))).step is Step.PLANNING
    held = after(failed, Assigned(Goal(3, NEW)), HoldReleased(NEW), Assigned(Goal(3, NEW)))
    assert (held.step, held.held) == (Step.PLANNING, ())


def test_a_failure_by_circumstance_is_not_held_and_tried_again_later() -> None:
    state = at(Step.PLANNING)
    waits = []
    now = 0.0
    for _ in range(4):
        state = after(state, Failed(Fault.DISK_FULL, "needs 9, has 1"), Done(), now=now)
        assert (state.outcome, state.held) == (Outcome.FAILED, ())
        waits.append(state.retry_at - now)
        assert after(state, Assigned(Goal(2, NEW)), now=state.retry_at - 1).step is Step.IDLE
        now = state.retry_at
        state = after(state, Assigned(Goal(2, NEW)), now=now)
        assert state.step is Step.PLANNING
    assert waits == [60, 120, 240, 480]


@pytest.mark.parametrize("step", WORK)
def test_a_newer_generation_cancels_and_takes_over(step: Step) -> None:
    state, acts = lifecycle.advance(at(step), Assigned(Goal(3, OTHER)), 0.0)
    assert acts == (Act.CANCEL, Act.REVERT)
    state, acts = lifecycle.advance(state, Done(), 0.0)
    assert (state.step, state.generation, state.release, acts) == (Step.PLANNING, 3, OTHER, (Act.PLAN,))
    assert NEW not in state.held


@pytest.mark.parametrize("step", [Step.SWITCHING, Step.DRAINING, Step.REVERTING])
def test_a_newer_generation_waits_for_a_switch_a_drain_or_a_reversal(step: Step) -> None:
    before = at(step) if step is not Step.REVERTING else after(at(Step.STARTING), Failed(Fault.ENGINE_FAILED, "x"))
    state, acts = lifecycle.advance(before, Assigned(Goal(3, OTHER)), 0.0)
    assert (state.step, acts) == (step, ())
    state = after(state, Assigned(Goal(4, "")))  # the newest of those that wait is what counts
    while state.generation == 2:
        state = after(state, Done())
    assert (state.generation, state.step) == (4, Step.SWITCHING)


@pytest.mark.parametrize("step", WORK)
def test_the_same_release_under_a_newer_generation_goes_on(step: Step) -> None:
    state, acts = lifecycle.advance(at(step), Assigned(Goal(3, NEW)), 0.0)
    assert (state.step, state.generation, acts) == (step, 3, ())


def test_an_older_generation_changes_nothing() -> None:
    for step in (*WORK, Step.SWITCHING, Step.DRAINING):
        assert after(at(step), Assigned(Goal(1, OTHER))) == at(step)
    assert after(SERVING, Assigned(Goal(0, OTHER))) == SERVING


def test_what_serves_already_needs_no_act() -> None:
    state, acts = lifecycle.advance(SERVING, Assigned(Goal(2, OLD)), 0.0)
    assert (state.step, state.outcome, state.generation, acts) == (Step.IDLE, Outcome.SUCCEEDED, 2, ())


def test_serving_nothing_is_a_switch_and_a_drain() -> None:
    state, acts = lifecycle.advance(SERVING, Assigned(Goal(2, "")), 0.0)
    assert acts == (Act.SWITCH,)
    state = after(state, Done(), Done())
    assert (state.step, state.outcome, state.active, state.previous) == (Step.IDLE, Outcome.SUCCEEDED, "", OLD)


@pytest.mark.parametrize("step", [*WORK, Step.SWITCHING])
def test_silence_is_a_failure(step: Step) -> None:
    state = at(step)
    due = lifecycle.wakes_at(state)
    assert after(state, Tick(), now=due - 0.1) == state
    late, acts = lifecycle.advance(state, Tick(), due)
    assert (late.step, acts) == (Step.REVERTING, (Act.CANCEL, Act.REVERT))
    assert after(late, Tick(), now=lifecycle.wakes_at(late)).step is Step.IDLE


def test_a_download_that_makes_progress_is_not_a_stall() -> None:
    state = at(Step.DOWNLOADING)
    state = after(state, Progressed(), now=lifecycle.STALL_S - 1)
    assert after(state, Tick(), now=lifecycle.STALL_S + 1).step is Step.DOWNLOADING
    stalled = after(state, Tick(), Done(), now=2 * lifecycle.STALL_S)
    assert (stalled.fault, stalled.held) == (Fault.DOWNLOAD_FAILED, ())


def test_a_drain_that_does_not_end_is_still_a_success() -> None:
    state = at(Step.DRAINING)
    late, acts = lifecycle.advance(state, Tick(), lifecycle.wakes_at(state))
    assert (late.step, late.outcome, late.active, acts) == (Step.IDLE, Outcome.SUCCEEDED, NEW, (Act.CANCEL,))


def test_probes_have_their_own_time() -> None:
    state = after(SERVING, Assigned(Goal(2, NEW, probing_s=1000.0)), *([Done()] * 5))
    assert state.step is Step.PROBING
    assert lifecycle.wakes_at(state) == 1000.0 + lifecycle.DEADLINES_S[Step.PROBING]


@pytest.mark.parametrize("previous_starts", [True, False])
def test_what_was_damaged_at_rest_is_fetched_again_at_once_and_never_held(previous_starts: bool) -> None:
    serving = TWO
    state = after(serving, ActiveBroken(NEW, Fault.ARTIFACT_CORRUPT, "model.gguf"))
    state = after(state, Done() if previous_starts else Failed(Fault.ARTIFACT_CORRUPT, "this one too"))
    assert state.active == (OLD if previous_starts else NEW)
    assert (state.outcome, state.fault, state.held) == (Outcome.FAILED, Fault.ARTIFACT_CORRUPT, ())
    state, acts = lifecycle.advance(state, Assigned(Goal(2, NEW)), 0.0)
    assert (state.step, acts) == (Step.PLANNING, (Act.PLAN,))


def test_a_refused_generation_is_told_as_failed_until_a_newer_one_is_accepted() -> None:
    failed = replace(SERVING, outcome=Outcome.FAILED, fault=Fault.PROBE_FAILED, reason="an older story")
    refused = Refused(Fault.METADATA_REFUSED, "it is for gguf-cuda", generation=SERVING.generation + 1)
    state = after(failed, refused)
    assert (state.refused, state.refusal) == (SERVING.generation + 1, "it is for gguf-cuda")
    assert (state.generation, state.active) == (SERVING.generation, SERVING.active)
    told = status.compose(state, lambda _: None, status.Running())
    assert (told.generation, told.outcome) == (SERVING.generation + 1, agent_pb2.OUTCOME_FAILED)
    assert (told.error, told.reason) == (agent_pb2.ERROR_CODE_METADATA_REFUSED, "it is for gguf-cuda")
    accepted = after(state, Assigned(Goal(SERVING.generation + 2, SERVING.active)))
    told = status.compose(accepted, lambda _: None, status.Running())
    assert (told.generation, told.outcome) == (SERVING.generation + 2, agent_pb2.OUTCOME_SUCCEEDED)


def test_metadata_that_is_only_too_old_fails_no_generation() -> None:
    stale = Refused(Fault.METADATA_STALE, "expired", generation=SERVING.generation + 1)
    assert after(SERVING, stale).refused == 0


def test_a_broken_active_version_gives_way_to_the_previous_one_and_is_held() -> None:
    serving = TWO
    state, acts = lifecycle.advance(serving, ActiveBroken(NEW, Fault.ENGINE_FAILED, "it aborts"), 0.0)
    assert acts == (Act.FALL_BACK,)
    assert after(state, Failed(Fault.ENGINE_FAILED, "this one neither")).active == NEW
    state = after(state, Done())
    assert (state.active, state.previous, state.held, state.outcome) == (OLD, "", (NEW,), Outcome.FAILED)


def test_a_release_that_was_taken_back_does_not_serve_again_when_the_good_one_breaks() -> None:
    back = after(TWO, Assigned(Goal(3, OLD)), *([Done()] * 8))
    assert (back.active, back.previous, back.outcome) == (OLD, NEW, Outcome.SUCCEEDED)
    state, acts = lifecycle.advance(back, ActiveBroken(OLD, Fault.ARTIFACT_CORRUPT, "model.gguf"), 0.0)
    assert Act.FALL_BACK not in acts
    state = after(state, Assigned(Goal(3, OLD)), *([Done()] * 8), now=state.retry_at)
    assert (state.active, state.outcome, state.way_back) == (OLD, Outcome.SUCCEEDED, "")
    # Nor while the next version is on its way; once that serves, there is a way back again.
    _, acts = lifecycle.advance(after(back, Assigned(Goal(4, OTHER))), ActiveBroken(OLD, Fault.ENGINE_FAILED, ""), 0.0)
    assert Act.FALL_BACK not in acts
    onward = after(back, Assigned(Goal(4, OTHER)), *([Done()] * 8))
    assert (onward.active, onward.way_back) == (OTHER, OLD)
    _, acts = lifecycle.advance(onward, ActiveBroken(OTHER, Fault.ENGINE_FAILED, "it aborts"), 0.0)
    assert acts == (Act.FALL_BACK,)


def test_a_broken_active_version_without_a_previous_one_is_installed_anew() -> None:
    broken = after(SERVING, ActiveBroken(OLD, Fault.ARTIFACT_CORRUPT, "model.gguf"))
    assert (broken.outcome, broken.held) == (Outcome.FAILED, ())
    state = after(broken, Assigned(Goal(1, OLD)), now=broken.retry_at)
    assert state.step is Step.PLANNING
    state = after(state, *([Done()] * 8))
    assert (state.outcome, state.active, state.previous) == (Outcome.SUCCEEDED, OLD, "")


def test_a_version_that_does_not_serve_is_installed_anew_when_a_newer_generation_names_it() -> None:
    broken = after(SERVING, ActiveBroken(OLD, Fault.ARTIFACT_CORRUPT, "model.gguf"))
    state, acts = lifecycle.advance(broken, Assigned(Goal(2, OLD)), 0.0)
    assert (state.step, acts) == (Step.PLANNING, (Act.PLAN,))
    state = after(state, *([Done()] * 8))
    assert (state.outcome, state.broken, state.active, state.generation) == (Outcome.SUCCEEDED, Fault.NONE, OLD, 2)


def test_a_version_that_does_not_serve_is_installed_anew_also_while_another_one_is_wanted_and_held() -> None:
    held = after(at(Step.PROBING), Failed(Fault.PROBE_FAILED, "wrong"), Done())
    assert (held.active, held.held) == (OLD, (NEW,))
    broken = after(held, ActiveBroken(OLD, Fault.ARTIFACT_CORRUPT, "model.gguf"))
    state, acts = lifecycle.advance(broken, Assigned(Goal(2, NEW)), 0.0)
    assert (state.step, state.release, acts) == (Step.PLANNING, OLD, (Act.PLAN,))
    state = after(state, *([Done()] * 8))
    assert (state.step, state.active, state.broken) == (Step.IDLE, OLD, Fault.NONE)
    # The generation was never for this version, and says so again.
    assert (state.generation, state.release, state.outcome) == (2, NEW, Outcome.HELD)
    assert after(state, Assigned(Goal(2, NEW)), now=1e9) == state


@pytest.mark.parametrize("step", [Step.PLANNING, Step.DOWNLOADING, Step.VERIFYING])
def test_a_version_that_breaks_during_a_download_gives_way_at_once_and_the_download_goes_on(step: Step) -> None:
    state, acts = lifecycle.advance(at(step, TWO_AND_OTHER), ActiveBroken(NEW, Fault.ARTIFACT_CORRUPT, "bad"), 0.0)
    assert acts == (Act.CANCEL, Act.FALL_BACK)
    assert state.outcome is Outcome.IN_PROGRESS
    state, acts = lifecycle.advance(state, Done(), 0.0)
    assert (state.active, state.previous, state.broken) == (OLD, "", Fault.NONE)
    # It is told of nothing but what the generation names, and that is only delayed.
    assert (state.step, state.release, state.outcome, acts) == (
        Step.PLANNING,
        OTHER,
        Outcome.IN_PROGRESS,
        (Act.PLAN,),
    )


@pytest.mark.parametrize("step", [Step.STARTING, Step.PROVING, Step.PROBING, Step.SWITCHING])
def test_a_version_that_breaks_late_in_an_update_is_replaced_by_its_end_or_gives_way_then(step: Step) -> None:
    state, acts = lifecycle.advance(at(step, TWO_AND_OTHER), ActiveBroken(NEW, Fault.ENGINE_FAILED, "dies"), 0.0)
    assert (state.step, acts) == (step, ())
    good = state
    while good.step is not Step.IDLE:
        good = after(good, Done())
    assert (good.active, good.outcome, good.broken) == (OTHER, Outcome.SUCCEEDED, Fault.NONE)
    state = after(state, Failed(Fault.ENGINE_FAILED, "it aborted"))
    state, acts = lifecycle.advance(state, Done(), 0.0)
    assert (state.step, acts, state.held) == (Step.REVERTING, (Act.FALL_BACK,), (OTHER,))
    assert state.reason == "dies; and before that: it aborted"
    state = after(state, Done())
    assert (state.active, state.release, state.outcome, state.held) == (OLD, OTHER, Outcome.HELD, (OTHER, NEW))


def test_a_fall_back_that_came_to_nothing_is_not_repeated_during_every_update() -> None:
    broken = ActiveBroken(NEW, Fault.ENGINE_FAILED, "dies")
    state = after(TWO, broken, Failed(Fault.ENGINE_FAILED, "the one before neither"))
    assert (state.active, state.held) == (NEW, (NEW,))
    state = after(state, Assigned(Goal(3, OTHER)), Done())
    again, acts = lifecycle.advance(state, broken, 0.0)
    assert (again.step, acts) == (Step.DOWNLOADING, ())


def test_a_version_that_is_given_up_at_the_end_of_its_drain_was_no_success() -> None:
    state = after(at(Step.DRAINING), ActiveBroken(NEW, Fault.ENGINE_FAILED, "dies"))
    state, acts = lifecycle.advance(state, Done(), 0.0)
    assert (state.outcome, state.reason, acts) == (Outcome.IN_PROGRESS, "dies", (Act.FALL_BACK,))
    state = after(state, Done())
    assert (state.active, state.release, state.outcome) == (OLD, NEW, Outcome.FAILED)


def test_a_broken_only_version_does_not_wait_behind_another_goals_failures() -> None:
    state, now = at(Step.PLANNING), 0.0
    for _ in range(9):
        state = after(state, Failed(Fault.ENGINE_MISSING, "no engine"), Done(), now=now)
        now = state.retry_at
        state = after(state, Assigned(Goal(2, NEW)), now=now)
    state = after(state, Failed(Fault.ENGINE_MISSING, "no engine"), Done(), now=now)
    assert state.retry_at > now + 3600
    state = after(state, ActiveBroken(OLD, Fault.ARTIFACT_CORRUPT, "bad"), Assigned(Goal(2, NEW)), now=now + 1)
    assert (state.step, state.release) == (Step.PLANNING, OLD)


def test_two_versions_that_cannot_be_had_take_turns_and_their_time() -> None:
    """A full disk, a damaged active version, a newer goal: neither hides the other, and nothing is tried in a rush."""
    state = after(at(Step.PLANNING), ActiveBroken(OLD, Fault.ARTIFACT_CORRUPT, "bad"))
    tried, now = [], 0.0
    for _ in range(6):
        assert state.step is Step.PLANNING
        tried.append(state.release)
        state = after(state, Failed(Fault.DISK_FULL, "needs 9, has 1"), Done(), now=now)
        assert state.retry_at >= now + 60
        assert after(state, Assigned(Goal(2, NEW)), now=state.retry_at - 1).step is Step.IDLE
        now = state.retry_at
        state = after(state, Assigned(Goal(2, NEW)), now=now)
    assert tried == [NEW, OLD, NEW, OLD, NEW, OLD]


def test_late_news_of_a_version_that_is_no_longer_active_changes_nothing() -> None:
    assert after(TWO, ActiveBroken(OLD, Fault.ENGINE_FAILED, "died")) == TWO
    assert after(replace(SERVING, active=""), ActiveBroken("", Fault.ENGINE_FAILED, "died")).step is Step.IDLE


def test_a_version_that_comes_back_by_itself_is_not_installed_anew() -> None:
    broken = after(SERVING, ActiveBroken(OLD, Fault.ENGINE_FAILED, "it dies"))
    back = after(broken, ActiveServes(OLD))
    assert (back.outcome, back.broken) == (Outcome.FAILED, Fault.NONE)
    state, acts = lifecycle.advance(back, Assigned(Goal(1, OLD)), 0.0)
    assert (state.step, state.outcome, acts) == (Step.IDLE, Outcome.SUCCEEDED, ())
    assert after(broken, ActiveServes(NEW)) == broken


def test_falling_back_has_the_time_to_check_and_load_the_previous_version() -> None:
    state = after(TWO, ActiveBroken(NEW, Fault.ENGINE_FAILED, "it aborts"))
    needed = lifecycle.DEADLINES_S[Step.VERIFYING] + lifecycle.DEADLINES_S[Step.STARTING]
    assert lifecycle.wakes_at(state) == needed
    restarted, acts = lifecycle.restore(state, 50.0)
    assert (lifecycle.wakes_at(restarted), acts) == (50.0 + needed, (Act.FALL_BACK,))


def test_an_artifact_that_the_disk_damaged_before_its_verification_is_fetched_again_but_not_for_ever() -> None:
    state = at(Step.VERIFYING)
    damaged = Failed(Fault.ARTIFACT_CORRUPT, "model.gguf: changed since it was verified")
    for _ in range(lifecycle.MAX_REPAIRS):
        state, acts = lifecycle.advance(state, damaged, 0.0)
        assert (state.step, acts) == (Step.PLANNING, (Act.PLAN,))
        state = after(state, Done(), Done())
    state = after(state, damaged, Done())
    assert (state.step, state.outcome, state.fault) == (Step.IDLE, Outcome.FAILED, Fault.ARTIFACT_CORRUPT)


def test_refused_metadata_shows_in_the_status_until_it_is_good_again() -> None:
    stale = after(SERVING, Refused(Fault.METADATA_STALE, "expired yesterday"))
    assert (stale.fault, stale.outcome, stale.active) == (Fault.METADATA_STALE, Outcome.SUCCEEDED, OLD)
    assert after(stale, Assigned(Goal(1, OLD))).fault is Fault.NONE
    assert after(at(Step.STARTING), Refused(Fault.METADATA_STALE, "x")) == at(Step.STARTING)


def test_a_pair_that_is_not_in_the_table_raises() -> None:
    with pytest.raises(lifecycle.ImpossibleEvent, match="Done in step IDLE"):
        lifecycle.advance(SERVING, Done(), 0.0)


@pytest.mark.parametrize(
    ("step", "resumed"),
    [
        (Step.PLANNING, Step.PLANNING),
        (Step.DOWNLOADING, Step.PLANNING),
        (Step.VERIFYING, Step.VERIFYING),
        (Step.STARTING, Step.VERIFYING),
        (Step.PROBING, Step.VERIFYING),
        (Step.SWITCHING, Step.VERIFYING),
        (Step.DRAINING, Step.DRAINING),
    ],
)
def test_a_restart_resumes(step: Step, resumed: Step) -> None:
    state, acts = lifecycle.restore(at(step), 1000.0)
    assert state.step is resumed
    assert len(acts) == 1
    assert state.active == (NEW if step is Step.DRAINING else OLD)


def test_what_a_new_process_says_is_news() -> None:
    state, acts = lifecycle.restore(SERVING, 5.0)
    assert (replace(state, sequence=SERVING.sequence), acts) == (SERVING, ())
    assert state.sequence == SERVING.sequence + 1
    assert after(state, RunningChanged()) == replace(state, sequence=state.sequence + 1)


def test_a_release_that_takes_the_agent_down_is_not_started_for_ever() -> None:
    state = at(Step.STARTING)
    for _ in range(lifecycle.MAX_ATTEMPTS - 1):
        state, _ = lifecycle.restore(state, 0.0)
        state = after(state, Done())
        assert state.step is Step.STARTING
    state, acts = lifecycle.restore(state, 0.0)
    assert (state.step, acts) == (Step.REVERTING, (Act.REVERT,))
    state = after(state, Done())
    assert (state.outcome, state.held, state.active) == (Outcome.FAILED, (NEW,), OLD)


def test_restarts_during_a_download_are_counted_only_while_nothing_comes_in() -> None:
    state = at(Step.DOWNLOADING)
    for _ in range(10 * lifecycle.MAX_RESUMES):
        state, _ = lifecycle.restore(state, 0.0)
        state = after(state, Done(), Progressed())
    assert state.step is Step.DOWNLOADING
    for _ in range(lifecycle.MAX_RESUMES):
        state, _ = lifecycle.restore(state, 0.0)
        state = after(state, Done()) if state.step is Step.PLANNING else state
    assert state.step is Step.REVERTING


def test_a_paused_download_waits_for_as_long_as_it_takes_and_goes_on() -> None:
    state, acts = lifecycle.advance(at(Step.DOWNLOADING), DownloadsPaused(), 0.0)
    assert (state.step, state.paused, acts) == (Step.DOWNLOADING, True, (Act.CANCEL, Act.DOWNLOAD))
    assert lifecycle.wakes_at(state) == math.inf
    assert after(state, DownloadsPaused(), Progressed(), Tick(), now=1e9) == state
    going, acts = lifecycle.advance(state, DownloadsResumed(), 1e9)
    assert (going.step, going.paused, acts) == (Step.DOWNLOADING, False, (Act.CANCEL, Act.DOWNLOAD))
    assert lifecycle.wakes_at(going) == 1e9 + lifecycle.STALL_S
    assert after(going, DownloadsResumed(), now=1e9) == going


def test_a_download_that_is_told_to_wait_waits_says_why_and_has_its_time_afterwards() -> None:
    state = at(Step.DOWNLOADING)
    ends_at, night = state.deadline, 9 * 3600.0
    for asked in range(int(night / 600)):  # at most ten minutes at a time
        waited = lifecycle.advance(state, DownloadWaits(600.0, "not before 22:00"), 600.0 * asked)
        state, acts = waited
        assert acts == ()
        state = after(state, Tick(), now=600.0 * (asked + 1))
    assert (state.step, state.outcome, state.reason) == (Step.DOWNLOADING, Outcome.IN_PROGRESS, "not before 22:00")
    assert state.deadline == ends_at + night
    going_on = after(state, Progressed(), now=night + 1)
    assert going_on.reason == ""
    assert after(state, Tick(), now=night + lifecycle.STALL_S + 1).step is Step.REVERTING, "told nothing any more"


def test_what_a_download_waited_for_is_no_longer_said_when_it_is_done() -> None:
    waited = after(at(Step.DOWNLOADING), DownloadWaits(1.0, "busy"))
    assert after(waited, Done()).reason == ""


def test_a_pause_holds_up_downloads_only_and_survives_restarts() -> None:
    state = after(SERVING, DownloadsPaused())
    assert (state.step, state.outcome, state.sequence) == (Step.IDLE, Outcome.SUCCEEDED, SERVING.sequence + 1)
    state = at(Step.DOWNLOADING, state)
    for _ in range(2 * lifecycle.MAX_RESUMES):
        state, acts = lifecycle.restore(state, 5.0)
        assert (state.step, acts) == (Step.PLANNING, (Act.PLAN,))
        state = after(state, Done())
        assert (state.step, lifecycle.wakes_at(state)) == (Step.DOWNLOADING, math.inf)
    # What is here already needs no download, and so its act ends.
    assert at(Step.IDLE, after(state, Done())).active == NEW


@pytest.mark.parametrize("step", [*(step for step in WORK if step is not Step.DOWNLOADING), Step.SWITCHING])
def test_a_pause_disturbs_no_other_step(step: Step) -> None:
    state, acts = lifecycle.advance(at(step), DownloadsPaused(), 0.0)
    assert (replace(state, paused=False, sequence=at(step).sequence), acts) == (at(step), ())


def test_a_newer_generation_ends_a_paused_download() -> None:
    state, acts = lifecycle.advance(after(at(Step.DOWNLOADING), DownloadsPaused()), Assigned(Goal(3, OLD)), 0.0)
    assert acts == (Act.CANCEL, Act.REVERT)
    state = after(state, Done())
    assert (state.step, state.generation, state.outcome, state.paused) == (Step.IDLE, 3, Outcome.SUCCEEDED, True)


_digests = st.sampled_from(["", OLD, NEW, OTHER])
_events = st.one_of(
    st.builds(Assigned, st.builds(Goal, st.integers(1, 8), _digests)),
    st.builds(Refused, st.just(Fault.METADATA_STALE), st.just("old")),
    st.just(Done()),
    st.builds(Failed, st.sampled_from([fault for fault in Fault if fault is not Fault.NONE]), st.just("why")),
    st.just(Progressed()),
    st.just(Tick()),
    st.builds(HoldReleased, _digests),
    st.just(DownloadsPaused()),
    st.just(DownloadsResumed()),
    st.builds(ActiveBroken, _digests, st.sampled_from([Fault.ENGINE_FAILED, Fault.ARTIFACT_CORRUPT]), st.just("why")),
    st.builds(ActiveServes, _digests),
    st.just(RunningChanged()),
)


@given(st.lists(st.tuples(_events, st.floats(0, 2000), st.booleans()), max_size=60))
def test_whatever_happens_every_update_ends(happenings: list[tuple[Event, float, bool]]) -> None:
    state, now = SERVING, 0.0
    for event, passed, restarted in happenings:
        now += passed
        if restarted:
            state, _ = lifecycle.restore(state, now)
        if (state.step, type(event)) in lifecycle.TABLE:
            before = state
            state, acts = lifecycle.advance(state, event, now)
            started = [act for act in acts if act is not Act.CANCEL]
            assert len(started) <= (state.step is not Step.IDLE)
            if state.active != before.active:
                assert before.step is Step.SWITCHING or before.falling_back
        waiting = state.step is Step.DOWNLOADING and state.paused
        assert (state.step is Step.IDLE or waiting) == (lifecycle.wakes_at(state) == math.inf)
    state = after(state, DownloadsResumed(), now=now)
    for _ in range(40):  # nothing more happens but time
        if state.step is Step.IDLE:
            break
        now = lifecycle.wakes_at(state)
        state, _ = lifecycle.advance(state, Tick(), now)
    assert state.step is Step.IDLE
    assert state.outcome is not Outcome.IN_PROGRESS
    assert state.pending is None
