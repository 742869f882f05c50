"""What a rollout waits for, as an operator reads it."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from edgewright_controller.gates import Comparison, HealthSamples
from edgewright_controller.rollout import (
    Aborted,
    AfterWave,
    Approved,
    Evidence,
    Outcome,
    Paused,
    RolloutPhase,
    Started,
    Then,
    Window,
    seconds_until_due,
)
from edgewright_controller.service.waits_for import waits_for
from edgewright_controller.span import span
from tests.controller.rollout_driver import Driver, policy, spec

DAILY = frozenset(range(7))
NIGHT = (Window(DAILY, 60, 300),)


def started(devices: int = 3, first: int = 1, **wanted: float) -> Driver:
    driver = Driver(spec(devices, first, policy(**wanted)))  # type: ignore[arg-type] # names are checked by policy
    driver.do(Started())
    return driver


def said(driver: Driver, later: float = 0.0) -> tuple[str, float | None]:
    wait = waits_for(driver.state, driver.now + later)
    return wait.words, wait.seconds


def test_answers_of_devices_under_way_and_when_the_first_is_silent() -> None:
    driver = started(first=2)
    assert said(driver) == ("2 devices to answer; the first is called silent in 2 min", 100.0)
    driver.says(0, Outcome.SUCCEEDED)
    assert said(driver, later=40) == ("1 device to answer; it is called silent in 60 s", 60.0)
    assert said(driver, later=10**9)[1] == 40.0, "no clock that was set makes a device silent"


def test_a_wave_that_is_watched_and_the_end() -> None:
    driver = started(devices=2, first=1, soak_s=720.0)
    driver.says(0, Outcome.SUCCEEDED)
    assert said(driver) == ("wave 1 to be watched for 12 min more", 720.0)
    driver.do(Aborted(by="alice"))
    assert driver.phase is RolloutPhase.ABORTED
    assert said(driver) == ("", None)


def test_a_wave_that_looks_worse_is_watched_longer_and_heard_of_once_a_second() -> None:
    driver = started(devices=2, first=1, soak_s=720.0)
    driver.says(0, Outcome.SUCCEEDED)
    driver.do(Evidence(HealthSamples(Comparison(0.5, 1, before=0.02, after=0.03), requests=500)))
    driver.wait(800)
    assert said(driver) == ("wave 1, which looks worse than before, to show it or not: 23 min more at most", 1360.0)
    assert seconds_until_due(driver.state, driver.now) == 1.0
    driver.wait(1400)
    assert driver.state.wave == 2


def test_a_pause_and_an_approval_say_until_when() -> None:
    driver = Driver(spec(2, 1, policy(patience_s=7200.0), (AfterWave(then=Then.APPROVAL),)))
    driver.do(Started())
    driver.says(0, Outcome.SUCCEEDED)
    assert driver.phase is RolloutPhase.APPROVAL
    until = datetime.fromtimestamp(driver.now + 7200, timezone.utc)
    assert said(driver) == (
        f"approval until {until:%Y-%m-%d %H:%M} UTC; then it ends, and devices keep what they have",
        7200.0,
    )
    driver.do(Approved("alice"))
    assert said(driver)[0].startswith("1 device to answer")
    driver.do(Paused("alice"))
    assert said(driver)[0].startswith("resume until ")


def test_the_way_back() -> None:
    driver = started(devices=3, first=2)
    driver.says(0, Outcome.SUCCEEDED)
    driver.do(Aborted(revert=True, by="alice"))
    assert driver.phase is RolloutPhase.REVERTING
    assert said(driver) == ("2 devices to return to what they had; the first is called silent in 2 min", 100.0)


@pytest.mark.parametrize(
    ("now", "words", "seconds"),
    [
        # 23:00 in Berlin, where it is winter.
        (datetime(2026, 1, 15, 22, tzinfo=timezone.utc), "wave 1 opens for dev-0 at 01:00 Europe/Berlin", 7200.0),
        # 12:00 in Berlin, where it is summer.
        (datetime(2026, 7, 15, 10, tzinfo=timezone.utc), "wave 1 opens for dev-0 at 01:00 Europe/Berlin", 46800.0),
    ],
)
def test_a_window_in_the_devices_own_time_zone(now: datetime, words: str, seconds: float) -> None:
    driver = Driver(spec(1, 1, policy(), windows={0: (NIGHT, "Europe/Berlin")}))
    driver.now = now.timestamp()
    driver.do(Started())
    assert said(driver) == (words, seconds)


def test_a_window_that_is_days_away_has_its_date_and_others_are_counted() -> None:
    friday = (Window(frozenset({4}), 60, 300),)
    windows = {0: (friday, "UTC"), 1: (friday, "UTC"), 2: (NIGHT, "America/New_York")}
    driver = Driver(spec(2, 2, policy(), windows=windows))
    driver.now = datetime(2026, 1, 12, 12, tzinfo=timezone.utc).timestamp()
    driver.do(Started())
    assert (
        said(driver)[0]
        == "wave 1 opens for dev-0 at 01:00 UTC on 2026-01-16; 1 device more waits for a window or a turn"
    )
    driver = Driver(spec(3, 3, policy(), windows=windows))
    driver.now = datetime(2026, 1, 12, 12, tzinfo=timezone.utc).timestamp()
    driver.do(Started())
    assert said(driver)[0].startswith("wave 1 opens for dev-2 at 01:00 America/New_York; 2 devices more wait for")


def test_a_turn_by_the_limit_also_while_others_are_under_way() -> None:
    driver = started(devices=3, first=3, per_minute=1)
    words, seconds = said(driver)
    assert words == "1 device to answer; it is called silent in 2 min; wave 1: 2 devices to be offered it, 1 a minute"
    assert seconds == 100.0
    driver.says(0, Outcome.SUCCEEDED)
    assert said(driver) == ("wave 1: 2 devices to be offered it, 1 a minute", 60.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (59.2, "60 s"),
        (100, "2 min"),
        (720, "12 min"),
        (721, "13 min"),
        (6000, "1 h 40 min"),
        (7200, "2 h"),
        (2 * 86400, "2 d"),
        (7 * 86400 - 60, "7 d"),
        (30 * 3600.5, "30 h 1 min"),
    ],
)
def test_spans_are_never_shorter_than_they_are(seconds: float, words: str) -> None:
    assert span(seconds) == words
