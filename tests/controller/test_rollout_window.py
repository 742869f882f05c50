"""When a device's maintenance windows open, also where its clock is set forward or back."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_controller.rollout.window import Window, is_open, longest_gap, next_opening, words

BERLIN = "Europe/Berlin"  # forward on 2026-03-29 at 02:00 to 03:00, back on 2026-10-25 at 03:00 to 02:00
DAILY = frozenset(range(7))
MON, TUE, WED, THU, FRI, SAT, SUN = (frozenset({day}) for day in range(7))
NIGHT = Window(MON | TUE, 60, 300)
# Half an hour at Lord Howe, a day that Apia never had, one minute after midnight at St. John's, a month in Casablanca.
ZONES = (
    "UTC",
    BERLIN,
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/St_Johns",
    "Africa/Casablanca",
    "Asia/Kathmandu",
)


def at(text: str, zone: str = BERLIN, fold: int = 0) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


def opens(window: Window, after: str, zone: str = BERLIN) -> str:
    opening = next_opening([window], zone, at(after, zone))
    assert opening is not None
    return datetime.fromtimestamp(opening, ZoneInfo(zone)).isoformat()


def test_a_window_is_open_from_its_start_until_before_its_end() -> None:
    assert not is_open([NIGHT], BERLIN, at("2026-11-30T01:00") - 1)  # a Monday
    assert is_open([NIGHT], BERLIN, at("2026-11-30T01:00"))
    assert is_open([NIGHT], BERLIN, at("2026-11-30T05:00") - 1)
    assert not is_open([NIGHT], BERLIN, at("2026-11-30T05:00"))
    assert not is_open([NIGHT], BERLIN, at("2026-12-02T01:00"))


def test_the_zone_is_the_devices_own() -> None:
    assert is_open([NIGHT], "Asia/Tokyo", at("2026-11-30T01:00", "Asia/Tokyo"))
    assert not is_open([NIGHT], BERLIN, at("2026-11-30T01:00", "Asia/Tokyo"))


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_starts() -> None:
    late = Window(SAT, 22 * 60, 4 * 60)
    assert is_open([late], BERLIN, at("2026-11-28T22:00"))  # a Saturday
    assert is_open([late], BERLIN, at("2026-11-29T03:59"))
    assert not is_open([late], BERLIN, at("2026-11-29T04:00"))
    assert not is_open([late], BERLIN, at("2026-11-28T03:00"))
    assert opens(late, "2026-11-29T04:00") == "2026-12-05T22:00:00+01:00"


def test_a_whole_day_is_a_window_too() -> None:
    sunday = Window(SUN, 0, 1440)
    assert opens(sunday, "2026-11-28T12:00") == "2026-11-29T00:00:00+01:00"
    assert is_open([sunday], BERLIN, at("2026-11-29T23:59"))
    assert not is_open([sunday], BERLIN, at("2026-11-30T00:00"))


def test_no_windows_are_always_open() -> None:
    assert is_open([], BERLIN, 5.0)
    assert next_opening([], BERLIN, 5.0) == 5.0


def test_the_next_opening_is_of_whichever_window_comes_first() -> None:
    opening = next_opening([NIGHT, Window(FRI, 600, 660)], BERLIN, at("2026-11-25T00:00"))  # a Wednesday
    assert opening == at("2026-11-27T10:00")


def test_a_clock_set_forward_into_a_window_opens_it() -> None:
    assert opens(Window(SUN, 150, 240), "2026-03-29T01:59") == "2026-03-29T03:00:00+02:00"


def test_a_window_that_the_clock_jumps_over_opens_a_week_later() -> None:
    assert opens(Window(SUN, 120, 180), "2026-03-28T12:00") == "2026-04-05T02:00:00+02:00"


def test_a_clock_set_back_into_a_window_opens_it_again() -> None:
    window = Window(SUN, 90, 150)  # 01:30 to 02:30
    assert is_open([window], BERLIN, at("2026-10-25T02:29"))
    assert not is_open([window], BERLIN, at("2026-10-25T02:59"))
    assert opens(window, "2026-10-25T02:30") == "2026-10-25T02:00:00+01:00"
    quarter = Window(SUN, 135, 150)  # 02:15 to 02:30
    assert opens(quarter, "2026-10-25T02:30") == "2026-10-25T02:15:00+01:00"


def test_a_day_that_a_zone_never_had_is_passed_over() -> None:
    friday = Window(FRI, 60, 300)  # Apia went from Thursday, 2011-12-29, to Saturday, 2011-12-31
    assert opens(friday, "2011-12-29T12:00", "Pacific/Apia") == "2012-01-06T01:00:00+14:00"


def test_far_years_have_summer_time_too() -> None:
    assert opens(Window(SUN, 150, 240), "2199-03-31T01:00") == "2199-03-31T03:00:00+02:00"
    assert opens(NIGHT, "9998-11-28T12:00") == "9998-11-30T01:00:00+01:00"


@pytest.mark.parametrize("now", [-1e18, -1e10, 3e11, 1e18, float("inf"), float("nan")])
def test_a_clock_beyond_all_calendars_opens_nothing(now: float) -> None:
    assert not is_open([NIGHT], BERLIN, now)
    assert next_opening([NIGHT], BERLIN, now) is None


@pytest.mark.parametrize(
    ("days", "start", "end", "why"),
    [
        (frozenset(), 60, 120, "without a day"),
        (frozenset({7}), 60, 120, "0 to 6"),
        (MON, 60, 60, "ends when it starts"),
        (MON, 1440, 60, "outside a day"),
        (MON, 60, 1441, "outside a day"),
        (MON, -1, 60, "outside a day"),
    ],
)
def test_a_window_that_never_opens_is_none(days: frozenset[int], start: int, end: int, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Window(days, start, end)


def test_an_unknown_zone_is_an_error() -> None:
    with pytest.raises(ZoneInfoNotFoundError):
        is_open([NIGHT], "Europe/Atlantis", 0.0)


def test_the_longest_gap_goes_round_the_week() -> None:
    assert longest_gap([]) == 0
    assert longest_gap([Window(DAILY, 0, 1440)]) == 0
    assert longest_gap([Window(DAILY, 60, 300)]) == 20 * 3600
    assert longest_gap([NIGHT]) == (5 * 24 + 20) * 3600  # Tuesday 05:00 to Monday 01:00
    assert longest_gap([Window(SUN, 22 * 60, 4 * 60)]) == 7 * 24 * 3600 - 6 * 3600
    assert longest_gap([Window(DAILY, 720, 60), Window(DAILY, 30, 720)]) == 0


def test_windows_are_told_in_words() -> None:
    assert words([NIGHT, Window(SUN, 1320, 240)]) == "mon, tue 01:00 to 05:00; sun 22:00 to 04:00"
    assert words([Window(DAILY, 0, 1440)]) == "daily 00:00 to 24:00"
    assert words([]) == "at any time"


@st.composite
def windows(draw: st.DrawFn) -> Window:
    start = draw(st.integers(0, 1439))
    lasts = draw(st.integers(1, 1439))
    return Window(draw(st.frozensets(st.integers(0, 6), min_size=1)), start, (start + lasts) % 1440)


# Days on which one of the zones sets its clock, and any day of eight thousand years.
CHANGES = [
    at(day, "UTC")
    for day in ("2026-03-28", "2026-10-24", "2011-12-29", "2026-04-04", "2006-10-28", "2026-02-14", "2037-10-03")
]
INSTANTS = st.one_of(
    st.sampled_from(CHANGES).flatmap(lambda day: st.integers(int(day), int(day) + 2 * 86400)),
    st.integers(int(at("1950-01-01", "UTC")), int(at("9990-01-01", "UTC"))),
)


@given(st.lists(windows(), min_size=1, max_size=3), st.sampled_from(ZONES), INSTANTS)
def test_the_next_opening_is_open_and_nothing_before_it_is(several: list[Window], zone: str, now: int) -> None:
    opening = next_opening(several, zone, float(now))
    assert opening is not None
    assert is_open(several, zone, opening)
    assert opening == now or not is_open(several, zone, now)
    minutes = range(now // 60 + 1, int(opening) // 60)
    # Each minute of the last hours, where the clocks are set, and some of the days before.
    looked_at = [*minutes[-600:], *minutes[:600], *minutes[::37]]
    assert not any(is_open(several, zone, minute * 60.0) for minute in looked_at)
    assert opening == now or not is_open(several, zone, opening - 1)


@given(windows(), st.integers(0, 8000 * 365))
def test_no_gap_is_longer_than_the_longest_where_no_clock_is_set(window: Window, day: int) -> None:
    now = at("1980-01-01", "UTC") + day * timedelta(days=1).total_seconds()
    opening = next_opening([window], "UTC", now)
    assert opening is not None
    assert opening - now <= longest_gap([window])
