"""When a rollout offers, and when it stops waiting: windows, limits, deadlines of steps and of the whole."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from edgewright_controller.rollout import (
    DevicePhase,
    Outcome,
    Resumed,
    Retried,
    RolloutError,
    RolloutPhase,
    RolloutPolicy,
    Silenced,
    Skipped,
    Started,
    Tick,
    Window,
    seconds_until_due,
)
from edgewright_controller.rollout.model import Paused
from tests.controller.rollout_driver import NEW, OLD, Driver, policy, spec

WAIT, OFFER, UPDATE, GOOD, SILENT, SKIPPED = (
    DevicePhase.WAITING,
    DevicePhase.OFFERED,
    DevicePhase.UPDATING,
    DevicePhase.SUCCEEDED,
    DevicePhase.TIMED_OUT,
    DevicePhase.SKIPPED,
)
DAILY = frozenset(range(7))
NIGHT = (Window(DAILY, 60, 5 * 60),)  # 01:00 to 05:00
TEN_YEARS = 10 * 365 * 86400.0


def at(driver: Driver, hour: int, minute: int = 0) -> None:
    """Set the wall clock, before the start."""
    driver.now = datetime(2026, 3, 3, hour, minute, tzinfo=timezone.utc).timestamp()


# ── Windows ──


def test_the_deadlines_of_a_device_that_downloads_at_night_wait_for_the_night() -> None:
    night = (Window(DAILY, 22 * 60, 6 * 60),)
    limits = policy(deadline_s=3600, steps={"download": 1800, "stage": 600}, max_failures=9)
    driver = Driver(spec(2, 2, limits, windows={1: ((), "UTC", night)}))
    at(driver, 12)
    driver.do(Started())
    for device in (0, 1):
        driver.says(device, Outcome.IN_PROGRESS, step="downloading")
    driver.wait((10 * 60 + 29) * 60)  # until 22:29
    assert driver.phases() == [SILENT, UPDATE]
    driver.wait(120)
    assert driver.phases() == [SILENT, SILENT], "half an hour of the night is all that a download has"


def test_a_device_that_downloads_at_night_has_its_whole_time_and_no_more() -> None:
    night = (Window(DAILY, 22 * 60, 6 * 60),)
    driver = Driver(spec(1, 1, policy(deadline_s=3600, max_failures=9), windows={0: ((), "UTC", night)}))
    at(driver, 12)
    driver.do(Started())
    driver.says(0, Outcome.IN_PROGRESS, step="downloading")
    driver.wait((10 * 60 + 59) * 60)
    assert driver.device(0).phase is UPDATE
    driver.wait(120)
    assert driver.device(0).phase is SILENT


def test_a_device_is_offered_nothing_outside_its_window() -> None:
    driver = Driver(spec(3, 3, windows={1: (NIGHT, "UTC"), 2: (NIGHT, "Asia/Tokyo")}))
    at(driver, 0, 30)
    driver.do(Started())
    assert driver.phases() == [OFFER, WAIT, WAIT]
    driver.says(0, Outcome.SUCCEEDED)
    assert driver.phases() == [GOOD, WAIT, WAIT]
    driver.wait(1800)
    assert driver.phases() == [GOOD, OFFER, WAIT]
    driver.says(1, Outcome.SUCCEEDED)
    driver.restart()
    at(driver, 15, 59)  # in Tokyo it is 00:59 of the next day
    driver.do(Tick())
    assert driver.phases() == [GOOD, GOOD, WAIT]
    driver.do(Tick(), 60)
    assert driver.phases() == [GOOD, GOOD, OFFER]
    driver.says(2, Outcome.SUCCEEDED)
    assert driver.phase is RolloutPhase.SUCCEEDED


def test_the_runner_is_told_when_a_window_opens() -> None:
    driver = Driver(spec(1, 1, windows={0: (NIGHT, "UTC")}))
    at(driver, 0, 59)
    driver.do(Started(), 56)
    assert (driver.phases(), seconds_until_due(driver.state, driver.now)) == ([WAIT], 4)
    driver.do(Tick(), 4)
    assert driver.phases() == [OFFER]


def test_a_silent_device_does_not_find_the_offer_outside_its_window() -> None:
    driver = Driver(spec(3, 3, policy(max_failures=2), windows={0: (NIGHT, "UTC"), 1: (NIGHT, "UTC")}))
    at(driver, 4, 58)
    driver.do(Started())
    driver.do(Silenced("dev-1", "its certificates were revoked"))
    driver.wait(60)
    driver.says(2, Outcome.SUCCEEDED)
    driver.wait(60)
    assert (driver.phases(), driver.phase) == ([SILENT, SILENT, GOOD], RolloutPhase.SUCCEEDED)
    assert driver.desired == {"dev-0": OLD, "dev-1": OLD, "dev-2": NEW}


def test_the_way_back_waits_for_no_window() -> None:
    driver = Driver(spec(2, 2, policy(), windows={0: (NIGHT, "UTC")}))
    at(driver, 4, 59)
    driver.do(Started())
    at(driver, 12)
    driver.do(Skipped(frozenset({"dev-0"})))
    assert driver.desired["dev-0"] == OLD


def test_a_retry_waits_for_the_window_again() -> None:
    driver = Driver(spec(2, 2, policy(max_failures=1), windows={0: (NIGHT, "UTC")}))
    at(driver, 2)
    driver.do(Started())
    driver.says(0, Outcome.FAILED)
    at(driver, 12)
    driver.do(Retried())
    assert driver.phases() == [WAIT, OFFER]
    at(driver, 25 - 24)
    driver.do(Tick())
    assert driver.phases() == [OFFER, OFFER]


def test_a_window_that_stays_closed_ends_the_rollout_after_its_patience() -> None:
    driver = Driver(spec(2, 1, policy(patience_s=600), windows={1: (NIGHT, "UTC")}))
    at(driver, 6)
    driver.do(Started())
    driver.says(0, Outcome.SUCCEEDED)
    assert driver.phases() == [GOOD, WAIT]
    driver.wait(630)
    assert (driver.phase, driver.phases()) == (RolloutPhase.ABORTED, [GOOD, SKIPPED])
    assert driver.finished[0].reason == "nothing happened for 600 s: 1 devices had no open window"
    assert driver.desired == {"dev-0": NEW}


def test_a_zone_that_the_host_has_lost_is_a_window_that_stays_closed() -> None:
    driver = Driver(spec(2, 2, policy(patience_s=600), windows={1: (NIGHT, "Mars/Olympus")}))
    at(driver, 2)
    driver.do(Started())
    driver.says(0, Outcome.SUCCEEDED)
    assert seconds_until_due(driver.state, driver.now) == 10
    driver.wait(630)
    assert driver.phase is RolloutPhase.ABORTED


@pytest.mark.parametrize("jump", [TEN_YEARS, -TEN_YEARS, 1e12, -1e12])
def test_a_wall_clock_far_off_does_no_harm_to_windows(jump: float) -> None:
    driver = Driver(spec(2, 2, policy(patience_s=600), windows={1: (NIGHT, "Europe/Berlin")}))
    at(driver, 12)
    driver.do(Started())
    driver.do(Tick(), jump)
    driver.says(0, Outcome.SUCCEEDED)
    driver.wait(1500)
    assert driver.phase in (RolloutPhase.ABORTED, RolloutPhase.FAILED)


# ── The limit ──


def offered(driver: Driver) -> int:
    return len(driver.desired)


def test_devices_are_offered_at_the_speed_that_is_set() -> None:
    driver = Driver(spec(200, 200, policy(per_minute=30, deadline_s=9000)))
    driver.do(Started())
    after = []
    for second in range(1, 121):
        driver.do(Tick(), 1.0)
        after.append(offered(driver))
        assert offered(driver) <= 30 * second / 60 + 1 + 5, "what ticks may make up for is 10 s' worth"
    assert after[119] - after[59] == 30
    driver.restart()
    driver.do(Tick(), 1.0)
    assert offered(driver) <= after[119] + 1


def test_after_a_gap_there_is_no_rush() -> None:
    driver = Driver(spec(200, 200, policy(per_minute=60, deadline_s=90000)))
    driver.do(Started())
    before = offered(driver)
    driver.do(Tick(), 3600)
    assert offered(driver) - before <= 11
    driver.do(Paused())
    driver.wait(300)
    before = offered(driver)
    driver.do(Resumed())
    assert 1 <= offered(driver) - before <= 11


def test_the_runner_is_told_when_the_next_offer_has_its_turn() -> None:
    driver = Driver(spec(3, 3, policy(per_minute=12)))
    driver.do(Started())
    assert (offered(driver), seconds_until_due(driver.state, driver.now)) == (1, 5)
    driver.do(Tick(), 5)
    assert offered(driver) == 2
    driver.says(0, Outcome.SUCCEEDED)
    driver.says(1, Outcome.SUCCEEDED)
    assert not driver.finished, "one is still to come"
    driver.do(Tick(), 5)
    driver.says(2, Outcome.SUCCEEDED)
    assert driver.phase is RolloutPhase.SUCCEEDED


def test_a_first_failure_within_the_limit_does_not_stop_a_slow_wave_as_if_it_had_ended() -> None:
    driver = Driver(spec(3, 3, policy(per_minute=12, max_failures=1)))
    driver.do(Started())
    driver.says(0, Outcome.FAILED)
    assert driver.state.ending is None
    driver.do(Tick(), 5)
    driver.do(Tick(), 5)
    driver.says(1, Outcome.SUCCEEDED)
    driver.says(2, Outcome.SUCCEEDED)
    assert driver.phase is RolloutPhase.SUCCEEDED


def test_offers_go_on_in_order_after_a_restart() -> None:
    driver = Driver(spec(6, 6, policy(per_minute=6, max_failures=1)))
    driver.do(Started())
    for _ in range(2):
        driver.do(Tick(), 10)
    driver.says(0, Outcome.FAILED)
    driver.do(Retried())
    driver.restart()
    driver.do(Tick(), 10)
    assert driver.phases() == [OFFER, OFFER, OFFER, WAIT, WAIT, WAIT]


# ── Deadlines ──


def started(devices: int = 2, **wanted: object) -> Driver:
    driver = Driver(spec(devices, devices, policy(**wanted)))  # type: ignore[arg-type] # names are checked by policy
    driver.do(Started())
    return driver


def test_each_step_has_its_deadline_and_the_reason_names_it() -> None:
    driver = started(deadline_s=1000, max_failures=1, steps={"check_in": 60, "download": 300, "prove": 40})
    driver.says(0, Outcome.IN_PROGRESS, step="planning")
    driver.wait(60)
    assert driver.phases() == [UPDATE, SILENT]
    assert driver.device(1).reason == "no check-in within 60 s"
    driver.says(0, Outcome.IN_PROGRESS, step="downloading")
    driver.wait(270)
    assert not driver.says(0, Outcome.IN_PROGRESS, step="downloading"), "it is still at the same step"
    driver.wait(30)
    assert driver.device(0).phase is SILENT
    assert driver.device(0).reason == "downloading for 300 s, as long as it may take (download), without news"


def test_no_step_outlasts_the_device_deadline() -> None:
    driver = started(deadline_s=100, max_failures=1, steps={"download": 90})
    driver.wait(60)
    driver.says(0, Outcome.IN_PROGRESS, step="downloading")
    driver.restart()
    driver.wait(40)
    assert driver.device(0).reason == "no answer within 100 s; the last that it said was downloading"


def test_a_step_that_comes_after_another_has_a_time_of_its_own() -> None:
    driver = started(1, deadline_s=1000, steps={"check_in": 30, "start": 60, "prove": 60})
    driver.says(0, Outcome.IN_PROGRESS, step="starting")
    driver.wait(30)
    driver.says(0, Outcome.IN_PROGRESS, step="proving")
    driver.wait(50)
    driver.says(0, Outcome.IN_PROGRESS, step="draining")
    driver.wait(300)
    driver.says(0, Outcome.SUCCEEDED)
    assert driver.phase is RolloutPhase.SUCCEEDED


def test_the_whole_rollout_has_a_deadline_in_a_pause_too() -> None:
    driver = started(whole_s=200, patience_s=9000, deadline_s=90)
    driver.says(0, Outcome.SUCCEEDED)
    driver.do(Paused())
    driver.says(1, Outcome.IN_PROGRESS)
    driver.wait(60)
    driver.says(1, Outcome.FAILED)
    driver = started(whole_s=200, patience_s=9000, deadline_s=500)
    driver.says(0, Outcome.SUCCEEDED)
    driver.do(Paused())
    driver.wait(210)
    assert driver.phases() == [GOOD, DevicePhase.REVERTING]
    driver.says(1, Outcome.SUCCEEDED)
    assert driver.phase is RolloutPhase.ABORTED
    assert driver.finished[0].reason == "not done within its deadline of 200 s"


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"step_deadlines_s": {"nap": 5.0}}, "step_deadlines_s.nap: a device has no such step; it has check_in, plan"),
        ({"step_deadlines_s": {"plan": 0.0}}, "step_deadlines_s.plan: 0.0 is not a number of seconds above 0"),
        ({"deadline_s": -1.0}, "deadline_s: -1.0 is not a number"),
        ({"patience_s": float("nan")}, "patience_s: nan is not a number"),
        ({"devices_per_minute": 0}, "devices_per_minute: 0 would never offer anything"),
    ],
)
def test_policies_that_make_no_sense_are_refused(wanted: dict[str, object], says: str) -> None:
    with pytest.raises(RolloutError, match=says):
        RolloutPolicy(**wanted)  # type: ignore[arg-type] # a table of mixed fields
