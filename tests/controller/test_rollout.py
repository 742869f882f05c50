"""A rollout, event by event."""

from __future__ import annotations

import pytest

from edgewright_controller.rollout import (
    Aborted,
    DevicePhase,
    DeviceReported,
    Outcome,
    Paused,
    Resumed,
    RolloutError,
    RolloutPhase,
    RolloutPolicy,
    RolloutSpec,
    RolloutTarget,
    Silenced,
    Started,
    Superseded,
    Tick,
    in_two_waves,
    seconds_until_due,
)
from tests.controller.rollout_driver import NEW, OLD, Driver, policy, spec

WAIT, OFFER, UPDATE, GOOD, BAD = (
    DevicePhase.WAITING,
    DevicePhase.OFFERED,
    DevicePhase.UPDATING,
    DevicePhase.SUCCEEDED,
    DevicePhase.FAILED,
)


NAMES = ("dev-0", "dev-1", "dev-2", "dev-3")


def started(devices: int = 3, first: int = 1, **wanted: float) -> Driver:
    driver = Driver(spec(devices, first, policy(**wanted)))  # type: ignore[arg-type] # names are checked by policy
    driver.do(Started())
    return driver


def test_first_wave_then_the_rest_then_success() -> None:
    driver = started()
    assert driver.phases() == [OFFER, WAIT, WAIT]
    assert driver.desired == {"dev-0": NEW}
    driver.says(0, Outcome.IN_PROGRESS)
    assert driver.phases() == [UPDATE, WAIT, WAIT]
    driver.says(0, Outcome.SUCCEEDED)
    assert driver.phases() == [GOOD, OFFER, OFFER]
    driver.says(1, Outcome.SUCCEEDED)
    driver.says(2, Outcome.SUCCEEDED)
    assert driver.phase is RolloutPhase.SUCCEEDED
    assert [finish.reason for finish in driver.finished] == ["3 of 3 devices succeeded"]


def test_a_failure_stops_further_waves_and_names_the_numbers() -> None:
    driver = started()
    driver.says(0, Outcome.FAILED, "probe capital: answered 'x'")
    assert driver.phases() == [BAD, DevicePhase.SKIPPED, DevicePhase.SKIPPED]
    assert driver.phase is RolloutPhase.FAILED
    assert driver.finished[0].reason == "1 of 1 device failed; at most 0 may"
    assert driver.device(0).reason == "probe capital: answered 'x'"
    assert driver.desired == {"dev-0": NEW}, "the device that failed serves the old one by itself"


def test_devices_under_way_finish_when_another_of_their_wave_fails() -> None:
    driver = started(first=3)
    driver.says(1, Outcome.FAILED)
    assert (driver.phase, driver.state.ending) == (RolloutPhase.RUNNING, RolloutPhase.FAILED)
    driver.says(0, Outcome.FAILED)
    driver.says(2, Outcome.SUCCEEDED)
    assert driver.phases() == [BAD, BAD, GOOD]
    assert driver.phase is RolloutPhase.FAILED
    assert driver.finished[0].reason == "2 of 3 devices failed; at most 0 may"


def test_failures_within_the_limit_let_it_go_on() -> None:
    driver = started(devices=4, first=2, max_failures=1)
    driver.says(0, Outcome.FAILED)
    driver.says(1, Outcome.SUCCEEDED)
    assert driver.phases() == [BAD, GOOD, OFFER, OFFER]
    driver.says(2, Outcome.SUCCEEDED)
    driver.says(3, Outcome.SUCCEEDED)
    assert driver.phase is RolloutPhase.SUCCEEDED


def test_a_wave_without_a_success_stops_it_whatever_the_limit() -> None:
    driver = started(devices=4, first=1, max_failures=3)
    driver.says(0, Outcome.FAILED)
    assert driver.phase is RolloutPhase.FAILED
    assert "none succeeded" in driver.finished[0].reason


def test_silence_beyond_the_deadline_is_a_failure_and_the_offer_is_taken_back() -> None:
    driver = started(deadline_s=100)
    driver.wait(90)
    assert driver.phases() == [OFFER, WAIT, WAIT]
    driver.wait(20)
    assert driver.device(0).phase is DevicePhase.TIMED_OUT
    assert driver.device(0).reason == "no answer within 100 s"
    assert driver.phase is RolloutPhase.FAILED
    assert driver.desired == {"dev-0": OLD}, "a device that comes back after weeks must not find the offer"


def test_reports_of_progress_do_not_move_the_deadline() -> None:
    driver = started(deadline_s=100)
    for _ in range(4):
        driver.wait(30)
        driver.says(0, Outcome.IN_PROGRESS)
    assert driver.device(0).phase is DevicePhase.TIMED_OUT


def test_reports_of_another_generation_or_device_change_nothing() -> None:
    driver = started()
    for generation in (1, 5, 7):
        assert not driver.says(0, Outcome.FAILED, generation=generation)
    assert not driver.do(DeviceReported("stranger", 6, Outcome.FAILED))
    assert not driver.says(1, Outcome.SUCCEEDED), "it was not offered anything yet"
    assert driver.says(0, Outcome.SUCCEEDED, generation=6)


def test_a_report_that_comes_twice_counts_once() -> None:
    driver = started(devices=3, first=2)
    driver.says(0, Outcome.SUCCEEDED)
    assert not driver.says(0, Outcome.SUCCEEDED)
    assert not driver.says(0, Outcome.IN_PROGRESS)
    assert driver.phases() == [GOOD, OFFER, WAIT]
    driver.says(1, Outcome.FAILED)
    assert not driver.says(1, Outcome.FAILED)


def test_a_pause_holds_the_next_wave_until_it_is_resumed() -> None:
    driver = started()
    driver.do(Paused(by="operator.admin"))
    driver.says(0, Outcome.SUCCEEDED)
    assert (driver.phase, driver.phases()) == (RolloutPhase.PAUSED, [GOOD, WAIT, WAIT])
    driver.do(Resumed())
    assert (driver.phase, driver.phases()) == (RolloutPhase.RUNNING, [GOOD, OFFER, OFFER])


def test_a_failure_during_a_pause_still_stops_it() -> None:
    driver = started()
    driver.do(Paused())
    driver.says(0, Outcome.FAILED)
    assert driver.phase is RolloutPhase.FAILED


def test_a_pause_that_nobody_ends_ends_by_itself_and_keeps_what_was_reached() -> None:
    driver = started(patience_s=300)
    driver.do(Paused())
    driver.says(0, Outcome.SUCCEEDED)
    driver.wait(330)
    assert (driver.phase, driver.phases()[0]) == (RolloutPhase.ABORTED, GOOD)
    assert driver.desired == {"dev-0": NEW}


def test_a_rollout_that_nobody_starts_ends() -> None:
    driver = Driver(spec(2, 1, policy(patience_s=300)))
    driver.wait(330)
    assert driver.phase is RolloutPhase.ABORTED
    assert driver.desired == {}


def test_abort_takes_back_what_is_under_way_and_keeps_what_is_done() -> None:
    driver = started(devices=3, first=2)
    driver.says(0, Outcome.SUCCEEDED)
    driver.do(Aborted(by="operator.admin"))
    assert (driver.phase, driver.phases()) == (
        RolloutPhase.REVERTING,
        [GOOD, DevicePhase.REVERTING, DevicePhase.SKIPPED],
    )
    assert driver.desired == {"dev-0": NEW, "dev-1": OLD}
    assert not driver.says(1, Outcome.SUCCEEDED, generation=6), "that was of the offer, not of the way back"
    driver.says(1, Outcome.SUCCEEDED)
    assert (driver.phase, driver.device(1).phase) == (RolloutPhase.ABORTED, DevicePhase.REVERTED)
    assert driver.finished[0].reason == "aborted by operator.admin"


def test_abort_with_revert_takes_everything_back() -> None:
    driver = started(devices=4, first=3, max_failures=2)
    driver.says(0, Outcome.SUCCEEDED)
    driver.says(1, Outcome.FAILED)
    driver.do(Aborted(revert=True))
    assert driver.desired == {"dev-0": OLD, "dev-1": OLD, "dev-2": OLD}
    driver.says(0, Outcome.SUCCEEDED)
    driver.wait(150)
    assert driver.phases() == [DevicePhase.REVERTED, BAD, DevicePhase.TIMED_OUT, DevicePhase.SKIPPED]
    assert driver.phase is RolloutPhase.ABORTED


def test_an_abort_that_keeps_can_be_made_one_that_reverts() -> None:
    driver = started(devices=2, first=2)
    driver.says(0, Outcome.SUCCEEDED)
    driver.do(Aborted())
    assert driver.desired == {"dev-0": NEW, "dev-1": OLD}
    driver.do(Aborted(revert=True))
    assert driver.desired == {"dev-0": OLD, "dev-1": OLD}


def test_too_many_failures_revert_those_done_when_the_policy_says_so() -> None:
    driver = started(devices=3, first=2, revert=True)
    driver.says(0, Outcome.SUCCEEDED)
    driver.says(1, Outcome.FAILED)
    assert driver.phase is RolloutPhase.REVERTING
    driver.says(0, Outcome.SUCCEEDED)
    assert (driver.phase, driver.device(0).phase) == (RolloutPhase.FAILED, DevicePhase.REVERTED)
    assert set(driver.desired.values()) == {OLD}


def test_a_newer_rollout_takes_over_all_devices() -> None:
    driver = started()
    driver.do(Superseded(by="rollout-2"))
    assert driver.phase is RolloutPhase.SUPERSEDED
    assert set(driver.phases()) == {DevicePhase.SKIPPED}
    assert driver.desired == {"dev-0": NEW}, "the newer rollout says what comes next"
    assert not driver.says(0, Outcome.SUCCEEDED)


def test_a_newer_rollout_takes_over_some_devices_and_the_rest_goes_on() -> None:
    driver = started(devices=4, first=2)
    driver.says(0, Outcome.SUCCEEDED)
    driver.do(Superseded(by="rollout-2", devices=frozenset({"dev-0", "dev-1", "dev-2", "elsewhere"})))
    assert driver.phases() == [GOOD, DevicePhase.SKIPPED, DevicePhase.SKIPPED, OFFER]
    driver.do(Aborted(revert=True))
    assert driver.desired == {"dev-0": NEW, "dev-1": NEW, "dev-3": OLD}, "it touches only what is its own"


def test_nobody_waits_for_a_device_that_cannot_answer_and_it_does_not_come_back_to_a_bad_release() -> None:
    driver = Driver(spec(3, 3, policy(max_failures=1)))
    driver.do(Started())
    driver.do(Silenced("dev-0", "its certificates were revoked"))
    gone = driver.state.devices["dev-0"]
    assert (gone.phase, gone.reason, driver.phase) == (
        DevicePhase.TIMED_OUT,
        "its certificates were revoked",
        RolloutPhase.RUNNING,
    )
    driver.do(Silenced("dev-0", "again"))
    driver.do(DeviceReported("dev-1", driver.generations["dev-1"], Outcome.FAILED))
    assert driver.state.ending is RolloutPhase.FAILED
    driver.do(DeviceReported("dev-2", driver.generations["dev-2"], Outcome.SUCCEEDED))
    assert (driver.phase, driver.desired["dev-0"]) == (RolloutPhase.FAILED, OLD)
    assert not driver.do(Silenced("dev-2", "late")), "a rollout that has ended stays as it is"


def test_a_silent_device_that_is_taken_over_is_left_to_the_newer_rollout() -> None:
    driver = started(devices=4, first=2, deadline_s=100, max_failures=1)
    driver.says(0, Outcome.SUCCEEDED)
    driver.wait(120)
    assert driver.phases() == [GOOD, DevicePhase.TIMED_OUT, OFFER, OFFER]
    driver.says(2, Outcome.FAILED)
    driver.do(Superseded(by="rollout-2", devices=frozenset({"dev-1", "dev-3"})))
    assert driver.phase is RolloutPhase.FAILED
    assert driver.desired == dict.fromkeys(NAMES, NEW), "dev-1 would have been told to go back"


def test_soak_time_passes_before_the_next_wave() -> None:
    driver = started(soak_s=60)
    driver.says(0, Outcome.SUCCEEDED)
    assert (driver.phase, driver.phases()) == (RolloutPhase.WAITING, [GOOD, WAIT, WAIT])
    driver.wait(30)
    assert driver.phase is RolloutPhase.WAITING
    driver.wait(30)
    assert (driver.phase, driver.phases()) == (RolloutPhase.RUNNING, [GOOD, OFFER, OFFER])


@pytest.mark.parametrize("jump", [10 * 365 * 86400.0, -10 * 365 * 86400.0])
def test_a_clock_ten_years_off_makes_nobody_silent_and_deadlines_still_hold(jump: float) -> None:
    driver = started(deadline_s=100)
    driver.do(Tick(), jump)
    assert driver.phases() == [OFFER, WAIT, WAIT]
    driver.wait(120)
    assert driver.device(0).phase is DevicePhase.TIMED_OUT


def test_time_while_the_controller_was_down_is_not_the_devices_silence() -> None:
    driver = started(deadline_s=100)
    driver.restart()
    driver.now += 7200
    driver.do(Tick())
    assert driver.phases() == [OFFER, WAIT, WAIT]
    driver.says(0, Outcome.SUCCEEDED)
    assert driver.phases() == [GOOD, OFFER, OFFER]


def test_what_has_ended_refuses_commands_and_ignores_the_rest() -> None:
    driver = started(devices=1)
    driver.says(0, Outcome.SUCCEEDED)
    with pytest.raises(RolloutError, match=r"rollout-1 has ended \(succeeded\); there is nothing to resume"):
        driver.do(Resumed())
    with pytest.raises(RolloutError, match="nothing to pause"):
        driver.do(Paused())
    with pytest.raises(RolloutError, match="nothing to abort"):
        driver.do(Aborted())
    with pytest.raises(RolloutError, match="started already"):
        driver.do(Started())
    assert not driver.do(Tick(), 1000)
    assert not driver.do(Superseded("rollout-2"))


def test_a_command_in_the_wrong_place_says_what_is_possible() -> None:
    driver = started()
    with pytest.raises(RolloutError, match="is running; it cannot resume, only pause or abort"):
        driver.do(Resumed())
    driver = started(first=2)
    driver.says(0, Outcome.FAILED)
    with pytest.raises(RolloutError, match="is ending already"):
        driver.do(Paused())


def test_rollouts_that_make_no_sense_are_refused() -> None:
    one = RolloutTarget("dev-0", NEW, OLD, 0)
    assert RolloutSpec("r", ((one,),)).waves
    with pytest.raises(RolloutError, match="selects no device"):
        RolloutSpec("r", ())
    with pytest.raises(RolloutError, match="wave 2 selects no device"):
        RolloutSpec("r", ((one,), ()))
    with pytest.raises(RolloutError, match="dev-0 is in it twice"):
        RolloutSpec("r", ((one,), (one,)))
    with pytest.raises(RolloutError, match="device_deadline_s"):
        RolloutPolicy(device_deadline_s=0)
    with pytest.raises(RolloutError, match="at least one"):
        in_two_waves([one], 0)
    assert in_two_waves([one], 5) == ((one,),)


def test_the_runner_is_told_when_to_tick() -> None:
    driver = started(deadline_s=25)
    assert seconds_until_due(driver.state, driver.now) == 10
    driver.do(Tick(), 20)
    assert seconds_until_due(driver.state, driver.now) == 5
    driver.do(Tick(), 5)
    assert driver.phase is RolloutPhase.FAILED
    assert seconds_until_due(driver.state, driver.now) is None
