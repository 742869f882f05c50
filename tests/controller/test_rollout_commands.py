"""What an operator can say to a rollout in the middle, and devices that leave it."""

from __future__ import annotations

import pytest

from edgewright_controller.rollout import (
    Aborted,
    AfterWave,
    Approved,
    DevicePhase,
    Left,
    LiftHold,
    Outcome,
    Paused,
    Resumed,
    Retried,
    RolloutError,
    RolloutPhase,
    Skipped,
    Started,
    Superseded,
    Then,
    step,
)
from tests.controller.rollout_driver import NEW, OLD, Driver, policy, spec

WAIT, OFFER, UPDATE, GOOD, BAD, SILENT, SKIPPED, BACK, WAS_BACK = (
    DevicePhase.WAITING,
    DevicePhase.OFFERED,
    DevicePhase.UPDATING,
    DevicePhase.SUCCEEDED,
    DevicePhase.FAILED,
    DevicePhase.TIMED_OUT,
    DevicePhase.SKIPPED,
    DevicePhase.REVERTING,
    DevicePhase.REVERTED,
)
RUNNING, WATCHED, APPROVAL, PAUSED = (
    RolloutPhase.RUNNING,
    RolloutPhase.WAITING,
    RolloutPhase.APPROVAL,
    RolloutPhase.PAUSED,
)


def started(devices: int = 3, first: int = 1, after: tuple[AfterWave, ...] = (), **wanted: float) -> Driver:
    driver = Driver(spec(devices, first, policy(**wanted), after))  # type: ignore[arg-type] # names are checked by policy
    driver.do(Started())
    return driver


def these(*numbers: int) -> frozenset[str]:
    return frozenset(f"dev-{number}" for number in numbers)


# ── Approval, and pauses that were planned ──


def test_a_wave_that_needs_approval_waits_for_it() -> None:
    driver = started(after=(AfterWave(then=Then.APPROVAL),))
    driver.says(0, Outcome.SUCCEEDED)
    assert (driver.phase, driver.phases()) == (APPROVAL, [GOOD, WAIT, WAIT])
    assert driver.state.reason == "wave 1 of 2 succeeded; the next needs approval"
    driver.restart()
    with pytest.raises(RolloutError, match="rollout-1 waits for approval; it cannot resume, only approve or abort"):
        driver.do(Resumed())
    with pytest.raises(RolloutError, match="cannot pause, only approve or abort"):
        driver.do(Paused())
    driver.do(Approved(by="operator.ann"))
    assert (driver.phase, driver.phases()) == (RUNNING, [GOOD, OFFER, OFFER])
    with pytest.raises(RolloutError, match="is running; it cannot approve, only pause or abort"):
        driver.do(Approved())


def test_an_approval_that_never_comes_ends_the_rollout_and_keeps_what_was_reached() -> None:
    driver = started(after=(AfterWave(then=Then.APPROVAL),), patience_s=300)
    driver.says(0, Outcome.SUCCEEDED)
    driver.wait(330)
    assert (driver.phase, driver.phases()) == (RolloutPhase.ABORTED, [GOOD, SKIPPED, SKIPPED])
    assert driver.finished[0].reason == "waiting for approval for 300 s without a decision"
    assert driver.desired == {"dev-0": NEW}


def test_the_wave_is_watched_before_approval_is_asked_for() -> None:
    driver = started(after=(AfterWave(60, Then.APPROVAL),))
    driver.says(0, Outcome.SUCCEEDED)
    assert driver.phase is WATCHED
    driver.wait(60)
    assert driver.phase is APPROVAL


def test_a_failure_while_approval_is_awaited_stops_it() -> None:
    driver = started(after=(AfterWave(then=Then.APPROVAL),))
    driver.says(0, Outcome.SUCCEEDED)
    driver.says(0, Outcome.FAILED, "the engine died")
    assert (driver.phase, driver.phases()) == (RolloutPhase.FAILED, [BAD, SKIPPED, SKIPPED])


def test_a_planned_pause_is_a_pause() -> None:
    driver = started(after=(AfterWave(then=Then.PAUSE),))
    driver.says(0, Outcome.SUCCEEDED)
    assert (driver.phase, driver.state.reason) == (PAUSED, "wave 1 of 2 succeeded")
    driver.restart()
    driver.do(Resumed())
    assert (driver.phase, driver.phases()) == (RUNNING, [GOOD, OFFER, OFFER])


def test_an_operators_pause_does_not_count_as_the_planned_one() -> None:
    driver = started(after=(AfterWave(then=Then.APPROVAL),))
    driver.do(Paused())
    driver.says(0, Outcome.SUCCEEDED)
    assert driver.phase is PAUSED
    driver.do(Resumed())
    assert (driver.phase, driver.phases()) == (APPROVAL, [GOOD, WAIT, WAIT])


def test_approval_after_the_last_wave_is_waited_for_too() -> None:
    driver = started(2, 2, (AfterWave(then=Then.APPROVAL),))
    driver.says(0, Outcome.SUCCEEDED)
    driver.says(1, Outcome.SUCCEEDED)
    assert driver.phase is APPROVAL
    driver.do(Approved())
    assert driver.phase is RolloutPhase.SUCCEEDED


def test_an_approval_has_nothing_to_let_begin_once_the_rest_has_left() -> None:
    driver = started(2, 1, (AfterWave(then=Then.APPROVAL),))
    driver.says(0, Outcome.SUCCEEDED)
    driver.do(Left("dev-1", "cordoned", waiting_only=True))
    assert driver.phase is RolloutPhase.SUCCEEDED


def test_the_last_wave_is_watched_too_and_a_device_that_falls_back_then_stops_it() -> None:
    driver = started(2, 2, (AfterWave(60),), revert=True)
    driver.says(0, Outcome.SUCCEEDED)
    driver.says(1, Outcome.SUCCEEDED)
    assert driver.phase is WATCHED
    driver.wait(30)
    driver.says(0, Outcome.FAILED, "it broke after ten minutes")
    assert driver.phases() == [BAD, BACK]
    driver.says(1, Outcome.SUCCEEDED)
    assert (driver.phase, driver.desired) == (RolloutPhase.FAILED, {"dev-0": OLD, "dev-1": OLD})


def test_a_wave_of_which_nobody_tried_it_needs_approval_for_the_next() -> None:
    driver = started()
    driver.do(Left("dev-0", "decommissioned"))
    assert (driver.phase, driver.phases()) == (APPROVAL, [SKIPPED, WAIT, WAIT])
    assert driver.state.reason == "no device of wave 1 of 2 has tried it; the next needs approval"
    driver.do(Approved())
    assert driver.phases() == [SKIPPED, OFFER, OFFER]


# ── Retry ──


def test_a_retry_offers_anew_lifts_the_hold_first_and_forgets_the_failure() -> None:
    driver = started(3, 2, max_failures=1)
    driver.says(1, Outcome.FAILED, "no luck")
    _, actions = step(driver.state, Retried(these(1), by="operator.ann"), driver.now)
    assert [type(action).__name__ for action in actions] == ["LiftHold", "SetDesired", "Hint"]
    assert actions[0] == LiftHold("dev-1", NEW)
    driver.do(Retried(these(1), by="operator.ann"))
    assert driver.phases() == [OFFER, OFFER, WAIT]
    assert not driver.says(1, Outcome.SUCCEEDED, generation=6), "that was of the first try"
    driver.says(1, Outcome.SUCCEEDED)
    driver.says(0, Outcome.FAILED)
    assert driver.phases() == [BAD, GOOD, OFFER], "one may fail, and the one before was forgotten"
    driver.says(2, Outcome.SUCCEEDED)
    assert driver.phase is RolloutPhase.SUCCEEDED


def test_a_retry_without_names_is_of_all_that_failed_or_fell_silent() -> None:
    driver = started(4, 3, max_failures=3, deadline_s=100)
    driver.do(Skipped(these(2)))
    driver.says(2, Outcome.SUCCEEDED)
    driver.says(0, Outcome.FAILED)
    with pytest.raises(RolloutError, match="dev-1 is offered in rollout rollout-1; only one that failed"):
        driver.do(Retried(these(1)))
    driver.do(Retried())
    assert driver.phases() == [OFFER, OFFER, WAS_BACK, WAIT]
    driver.says(0, Outcome.SUCCEEDED)
    driver.wait(120)
    assert driver.phases() == [GOOD, SILENT, WAS_BACK, OFFER]
    driver.do(Retried())
    assert driver.phases() == [GOOD, OFFER, WAS_BACK, OFFER]


def test_what_was_retried_in_a_pause_is_offered_when_it_ends() -> None:
    driver = started(3, 2, max_failures=1)
    driver.says(0, Outcome.FAILED)
    driver.do(Paused())
    driver.do(Retried())
    assert (driver.phase, driver.phases()) == (PAUSED, [WAIT, OFFER, WAIT])
    driver.restart()
    driver.do(Resumed())
    assert driver.phases() == [OFFER, OFFER, WAIT]


def test_a_retry_while_approval_is_awaited_asks_again_afterwards() -> None:
    driver = started(3, 2, (AfterWave(then=Then.APPROVAL),), max_failures=1)
    driver.says(0, Outcome.FAILED)
    driver.says(1, Outcome.SUCCEEDED)
    assert driver.phase is APPROVAL
    driver.do(Retried())
    assert (driver.phase, driver.phases()) == (RUNNING, [OFFER, GOOD, WAIT])
    driver.says(0, Outcome.SUCCEEDED)
    assert (driver.phase, driver.phases()) == (APPROVAL, [GOOD, GOOD, WAIT])


def test_a_skipped_device_can_be_retried_by_its_name_and_waits_for_its_wave() -> None:
    driver = started()
    driver.do(Skipped(these(2)))
    assert driver.phases() == [OFFER, WAIT, SKIPPED]
    driver.do(Retried(these(2)))
    assert (driver.phase, driver.phases()) == (RUNNING, [OFFER, WAIT, WAIT])
    driver.says(0, Outcome.SUCCEEDED)
    assert driver.phases() == [GOOD, OFFER, OFFER]


def test_a_retry_that_cannot_be_says_what_can() -> None:
    driver = started(2, 2)
    with pytest.raises(RolloutError, match="no device failed or fell silent; there is nothing to retry"):
        driver.do(Retried())
    with pytest.raises(RolloutError, match="has no device 'dev-9'; `edgewright rollout show` lists its devices"):
        driver.do(Retried(these(9)))
    driver.says(0, Outcome.FAILED)
    with pytest.raises(
        RolloutError, match=r"is ending already .*; retry once it has ended, which begins a new rollout"
    ):
        driver.do(Retried())
    driver.says(1, Outcome.SUCCEEDED)
    with pytest.raises(RolloutError, match=r"has ended \(failed\); there is nothing to retry"):
        driver.do(Retried())


# ── Skip ──


def test_a_skipped_device_goes_back_and_is_no_failure() -> None:
    driver = started(3, 2)
    driver.do(Skipped(these(0, 2), by="operator.ann"))
    assert (driver.phases(), driver.desired) == ([BACK, OFFER, SKIPPED], {"dev-0": OLD, "dev-1": NEW})
    driver.says(1, Outcome.SUCCEEDED)
    assert driver.phase is RUNNING, "one is still on its way back"
    driver.says(0, Outcome.SUCCEEDED)
    assert (driver.phase, driver.phases()) == (RolloutPhase.SUCCEEDED, [WAS_BACK, GOOD, SKIPPED])
    assert driver.finished[0].reason == "1 of 1 devices succeeded"


@pytest.mark.parametrize("failed", [True, False])
def test_a_skipped_device_that_does_not_come_back_is_no_failure_either(failed: bool) -> None:
    driver = started(3, 2, deadline_s=100)
    driver.do(Skipped(these(0)))
    driver.says(1, Outcome.SUCCEEDED)
    assert driver.phases() == [BACK, GOOD, OFFER]
    driver.says(2, Outcome.SUCCEEDED)
    if failed:
        driver.says(0, Outcome.FAILED, "no room")
    else:
        driver.wait(120)
    assert (driver.phase, driver.phases()) == (RolloutPhase.SUCCEEDED, [SKIPPED, GOOD, GOOD])
    assert driver.device(0).reason.startswith("skipped; on its way back: ")


def test_nobody_waits_for_a_device_that_is_skipped_twice() -> None:
    driver = started(2, 2)
    driver.says(1, Outcome.SUCCEEDED)
    driver.do(Skipped(these(0)))
    driver.do(Skipped(these(0)))
    assert (driver.phase, driver.phases()) == (RolloutPhase.SUCCEEDED, [SKIPPED, GOOD])
    assert driver.desired["dev-0"] == OLD


def test_a_device_that_failed_and_is_skipped_counts_no_longer_and_does_not_keep_the_offer() -> None:
    driver = started(3, 2, max_failures=1)
    driver.says(0, Outcome.FAILED)
    driver.do(Skipped(these(0)))
    assert driver.desired["dev-0"] == OLD
    driver.says(1, Outcome.SUCCEEDED)
    driver.says(2, Outcome.FAILED)
    assert driver.phase is RolloutPhase.SUCCEEDED


def test_a_skip_that_cannot_be_says_what_can() -> None:
    driver = started(2, 2)
    driver.says(0, Outcome.SUCCEEDED)
    with pytest.raises(RolloutError, match="dev-0 is succeeded in rollout rollout-1; only one that waits"):
        driver.do(Skipped(these(0)))
    with pytest.raises(RolloutError, match="name the devices to skip"):
        driver.do(Skipped(frozenset()))
    driver.do(Superseded("rollout-2", these(1)))
    with pytest.raises(RolloutError, match=r"has ended \(succeeded\); there is nothing to skip"):
        driver.do(Skipped(these(1)))


# ── Devices that leave ──


def test_a_cordoned_device_leaves_only_while_it_waits() -> None:
    driver = started()
    driver.do(Left("dev-2", "cordoned: disk is being replaced", waiting_only=True))
    assert not driver.do(Left("dev-0", "cordoned", waiting_only=True)), "it has its offer already"
    assert driver.phases() == [OFFER, WAIT, SKIPPED]
    assert driver.device(2).detached
    with pytest.raises(RolloutError, match=r"dev-2 is no longer in rollout rollout-1 \(cordoned: disk is"):
        driver.do(Retried(these(2)))


def test_a_cordoned_device_that_was_silent_does_not_come_back_to_its_offer() -> None:
    driver = started(4, 3, max_failures=3, deadline_s=100)
    driver.says(0, Outcome.SUCCEEDED)
    driver.says(1, Outcome.FAILED, "no room", again=True)
    driver.wait(120)
    assert driver.phases() == [GOOD, BAD, SILENT, OFFER]
    for name in these(0, 1, 2, 3):
        driver.do(Left(name, "cordoned", waiting_only=True))
    assert driver.phases() == [GOOD, BAD, SILENT, OFFER]
    assert driver.desired == {"dev-0": NEW, "dev-1": OLD, "dev-2": OLD, "dev-3": NEW}


def test_a_decommissioned_device_leaves_wherever_it_is_and_is_no_failure() -> None:
    driver = started(3, 2)
    driver.says(0, Outcome.SUCCEEDED)
    driver.do(Left("dev-0", "decommissioned"))
    driver.do(Left("dev-1", "decommissioned"))
    assert (driver.phase, driver.phases()) == (RUNNING, [GOOD, SKIPPED, OFFER])
    assert driver.desired["dev-1"] == OLD, "it must not find the offer, should it ever enrol anew"
    driver.do(Aborted(revert=True))
    assert driver.desired["dev-0"] == NEW, "it is not the rollout's any more"


def test_a_rollout_that_everybody_left_ends() -> None:
    driver = started(2, 1)
    driver.do(Left("dev-1", "decommissioned"))
    driver.do(Left("dev-0", "decommissioned"))
    assert driver.phase is RolloutPhase.ABORTED
    assert driver.finished[0].reason == "every device has left it"
    assert not driver.do(Left("dev-0", "again"))


# ── What devices say after they ended ──


def test_a_device_that_comes_late_has_it_after_all() -> None:
    driver = started(3, 2, deadline_s=100, max_failures=1)
    driver.says(0, Outcome.SUCCEEDED)
    driver.wait(120)
    assert driver.phases() == [GOOD, SILENT, OFFER]
    driver.says(1, Outcome.SUCCEEDED)
    assert driver.phases() == [GOOD, GOOD, OFFER]


def test_a_device_that_will_try_again_by_itself_may_not_once_the_rollout_was_stopped() -> None:
    driver = started(2, 2)
    driver.says(0, Outcome.FAILED, "no room", again=True)
    driver.says(1, Outcome.FAILED, "it answered nonsense")
    assert driver.phase is RolloutPhase.FAILED
    assert driver.desired == {"dev-0": OLD, "dev-1": NEW}, "dev-1 holds it, and its status goes on saying why"
