"""Maintenance windows: when a device may be offered something, by the clock on its own wall. Pure.

A window is what that clock shows, not a stretch of time: where the clock is set forward over a whole window, that
window does not open on that day; where it is set back, what it shows twice is open twice. So nothing is ever offered
outside the hours that somebody wrote down.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import cache, lru_cache
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MINUTES_OF_DAY: Final = 24 * 60
_WEEK: Final = 7 * MINUTES_OF_DAY
_DAY_S: Final = 24 * 3600.0
# Calendars end, and a clock may show anything; between these two every instant has a date everywhere.
_FIRST: Final = datetime(1901, 1, 1, tzinfo=UTC).timestamp()
_LAST: Final = datetime(9998, 12, 1, tzinfo=UTC).timestamp()
# Days ahead in which every window opens, then the same with several of its days lost to a clock set forward.
_HORIZONS: Final = (8, 29)
_NO_TIME_S: Final = 0.001  # what is left over when such numbers are subtracted


@dataclass(frozen=True)
class Window:
    """Open from `start_minute` of each of `days` until before `end_minute`; one that ends before it starts lasts until
    the day after.

    Days count from Monday, 0. Minutes count from midnight; the end may be 1440, the end of the day. Raises ValueError
    for a window that never opens.
    """

    days: frozenset[int]
    start_minute: int
    end_minute: int

    def __post_init__(self) -> None:
        if not self.days:
            raise ValueError("a window without a day never opens")
        if not self.days <= frozenset(range(7)):
            raise ValueError(f"a window's days are 0 to 6, not {sorted(self.days)}")
        if not (0 <= self.start_minute < MINUTES_OF_DAY and 0 <= self.end_minute <= MINUTES_OF_DAY):
            raise ValueError(f"a window from minute {self.start_minute} to {self.end_minute} is outside a day")
        if self.start_minute == self.end_minute:
            raise ValueError(f"a window that ends when it starts, at minute {self.start_minute}, never opens")

    def shows(self, weekday: int, minute: int) -> bool:
        """Whether it is open when a clock shows this day and minute."""
        if self.start_minute < self.end_minute:
            return weekday in self.days and self.start_minute <= minute < self.end_minute
        return (weekday in self.days and minute >= self.start_minute) or (
            (weekday - 1) % 7 in self.days and minute < self.end_minute
        )


@cache
def zones() -> frozenset[str]:
    """The names of all time zones: "UTC", "Europe/Berlin"."""
    return frozenset(available_timezones())


def is_open(windows: Sequence[Window], zone: str, now: float) -> bool:
    """Whether one of `windows` is open in `zone` (an IANA name) at `now` (Unix seconds). No windows: always.

    Raises zoneinfo.ZoneInfoNotFoundError for an unknown zone.
    """
    if not windows:
        return True
    if not _FIRST <= now <= _LAST:
        return False
    shown = datetime.fromtimestamp(now, ZoneInfo(zone))
    weekday, minute = shown.weekday(), shown.hour * 60 + shown.minute
    return any(window.shows(weekday, minute) for window in windows)


def next_opening(windows: Sequence[Window], zone: str, now: float) -> float | None:
    """The first instant from `now` on at which one of `windows` is open; both in Unix seconds. None: never.

    Raises zoneinfo.ZoneInfoNotFoundError for an unknown zone.
    """
    if is_open(windows, zone, now):
        return now
    if not _FIRST <= now <= _LAST:
        return None
    for days in _HORIZONS:
        openings = [t for t in _candidates(windows, ZoneInfo(zone), now, days) if t > now and is_open(windows, zone, t)]
        if openings:
            return min(openings)
    return None


def longest_gap(windows: Sequence[Window]) -> float:
    """The longest time, in seconds, during which none of `windows` is open in a week without a change of the clock."""
    if not windows:
        return 0.0
    opened: list[tuple[int, int]] = []  # minutes of the week
    for window in windows:
        lasts = (window.end_minute - window.start_minute) % MINUTES_OF_DAY or MINUTES_OF_DAY
        opened += [(start := day * MINUTES_OF_DAY + window.start_minute, start + lasts) for day in window.days]
    opened.sort()
    longest, until = 0, max(end for _, end in opened) - _WEEK  # what reaches over from the week before
    for start, end in opened:
        longest, until = max(longest, start - until), max(until, end)
    return longest * 60.0


@lru_cache(maxsize=1024)  # all devices of a wave ask the same
def lasts(windows: tuple[Window, ...], zone: str, now: float, open_s: float) -> float:
    """Seconds from `now` (Unix) until `windows` have been open for `open_s` seconds together; `open_s` without windows.

    A window that never opens again counts as open: what waits for it must end, too. Raises
    zoneinfo.ZoneInfoNotFoundError for an unknown zone.
    """
    at, left = now, open_s
    while windows and left > _NO_TIME_S:
        opening = next_opening(windows, zone, at)
        if opening is None:
            break
        at = _closing(windows, zone, opening, left)
        left -= at - opening
    return at - now + max(left, 0.0)


def _closing(windows: Sequence[Window], zone: str, opened: float, most: float) -> float:
    """Until when it stays open, at most `most` seconds after `opened`; to the minute, which is how windows count."""
    at = opened
    while at < opened + most and is_open(windows, zone, at):
        at = (at // 60 + 1) * 60
    return min(at, opened + most)


def words(windows: Sequence[Window]) -> str:
    """`mon, tue 01:00 to 05:00; sun 22:00 to 04:00`, for a person."""
    return "; ".join(f"{_days(window.days)} {_span(window)}" for window in windows) or "at any time"


def _candidates(windows: Sequence[Window], zone: ZoneInfo, now: float, days: int) -> Iterator[float]:
    """Every instant of the next `days` at which a window may begin to be open: when the clock shows its start, be it
    for the first or the second time, and when the clock is set."""
    today = datetime.fromtimestamp(now, zone).date()
    for ahead in range(-1, days + 1):
        day = today + timedelta(days=ahead)
        for window in windows:
            if day.weekday() in window.days:
                shown = datetime.combine(day, time(*divmod(window.start_minute, 60)), zone)
                yield shown.timestamp()
                yield shown.replace(fold=1).timestamp()
    for ahead in range(days):
        begins = now + ahead * _DAY_S
        if _offset(zone, begins) != _offset(zone, begins + _DAY_S):
            yield _set_at(zone, begins, begins + _DAY_S)


def _set_at(zone: ZoneInfo, before: float, after: float) -> float:
    """When the clock was set between these two instants, to the second."""
    first, last = int(before), int(after) + 1
    offset = _offset(zone, first)
    while last - first > 1:
        middle = (first + last) // 2
        if _offset(zone, middle) == offset:
            first = middle
        else:
            last = middle
    return float(last)


def _offset(zone: ZoneInfo, at: float) -> timedelta | None:
    return datetime.fromtimestamp(at, zone).utcoffset()


def _days(days: frozenset[int]) -> str:
    return "daily" if len(days) == 7 else ", ".join(DAYS[day] for day in sorted(days))


def _span(window: Window) -> str:
    start, end = ("{:02}:{:02}".format(*divmod(minute, 60)) for minute in (window.start_minute, window.end_minute))
    return f"{start} to {end}"
