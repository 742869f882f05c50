"""When a certificate is renewed, and what is said when it or the clock is wrong."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from edgewright_agent.certificate_life import JITTER, Life, What, due, renews_at, trouble

BEGAN = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
MONTH = Life(BEGAN, BEGAN + timedelta(days=30))
YEAR = Life(BEGAN, BEGAN + timedelta(days=365))


def test_a_device_renews_at_half_of_the_life_and_always_at_the_same_moment() -> None:
    moment = renews_at("jetson-01", MONTH)
    assert moment == renews_at("jetson-01", MONTH)
    assert abs(moment - BEGAN - timedelta(days=15)) <= timedelta(days=30) * JITTER
    assert due("jetson-01", MONTH, moment - timedelta(seconds=1)) is What.WAIT
    assert due("jetson-01", MONTH, moment) is What.RENEW


def test_a_fleet_that_enrolled_at_once_renews_over_days() -> None:
    days = {(renews_at(f"jetson-{number:03}", MONTH) - BEGAN).days for number in range(200)}
    assert days == {12, 13, 14, 15, 16, 17}


def test_the_former_certificates_of_a_year_are_exchanged_at_once() -> None:
    assert due("jetson-01", YEAR, BEGAN) is What.RENEW


def test_after_the_end_only_the_enrolment_listens() -> None:
    assert due("jetson-01", MONTH, MONTH.not_after - timedelta(seconds=1)) is What.RENEW
    assert due("jetson-01", MONTH, MONTH.not_after) is What.RETURN


@pytest.mark.parametrize("year", [1970, 2000, 2025])
def test_a_clock_before_what_has_surely_passed_is_said_with_what_to_do(year: int) -> None:
    now = BEGAN + timedelta(days=3)
    assert trouble(MONTH, BEGAN, now) == ""
    told = trouble(MONTH, now, now.replace(year=year))
    assert f"clock says {year}-03-04 12:00 UTC, but it is 2026-03-04 12:00 at least: set the clock" in told
    assert due("jetson-01", MONTH, now.replace(year=year)) is What.WAIT


def test_the_certificates_own_beginning_is_a_floor_too() -> None:
    told = trouble(MONTH, datetime(1970, 1, 1, tzinfo=timezone.utc), BEGAN - timedelta(days=1))
    assert "set the clock" in told


def test_clocks_that_differ_by_minutes_are_no_trouble() -> None:
    assert trouble(MONTH, BEGAN, BEGAN - timedelta(minutes=9)) == ""


def test_an_end_is_said_with_the_clock_by_which_it_came() -> None:
    told = trouble(MONTH, BEGAN, datetime(2026, 5, 1, tzinfo=timezone.utc))
    assert "certificate ended on 2026-03-31, if its clock (2026-05-01) is right" in told
