"""How fast a download is, told by what came of late."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent.pace import WINDOW_S, Pace
from edgewright_agent.quantities import size_in_words, span_in_words

MB = 1_000_000


def heard(*news: tuple[float, int]) -> Pace:
    pace = Pace()
    for now, done in news:
        pace = pace.after(done, now)
    return pace


def test_nothing_is_said_before_something_was_seen() -> None:
    assert (Pace().bytes_per_s(9.0), Pace().remaining_s(MB, 9.0)) == (0.0, 0)
    assert heard((0.0, 5 * MB)).bytes_per_s(1.0) == 0.0, "what was there before is not what came"
    assert heard((0.0, 0), (1.0, MB)).bytes_per_s(1.0) == 0.0


def test_a_steady_line_is_told_as_it_is() -> None:
    pace = heard(*((float(second), second * MB) for second in range(300)))
    assert pace.bytes_per_s(299.0) == MB
    assert pace.remaining_s(400 * MB, 299.0) == 101
    assert pace.remaining_s(299 * MB, 299.0) == 0, "all of it is there"


def test_what_was_there_after_a_restart_makes_no_line_fast() -> None:
    assert heard((0.0, 900 * MB), (10.0, 910 * MB)).bytes_per_s(10.0) == MB


def test_it_follows_a_line_that_changes() -> None:
    fast = [(float(second), second * 10 * MB) for second in range(100)]
    slow = [(99.0 + second, 990 * MB + second * MB) for second in range(1, 200)]
    assert heard(*fast, *slow).bytes_per_s(298.0) == pytest.approx(MB, rel=0.01)


def test_silence_makes_it_slower_and_then_unknown() -> None:
    pace = heard((0.0, 0), (10.0, 10 * MB))
    assert pace.bytes_per_s(20.0) == MB / 2
    assert pace.bytes_per_s(10.0 + 3 * WINDOW_S) == 0.0
    assert pace.remaining_s(20 * MB, 10.0 + 3 * WINDOW_S) == 0


def test_a_download_that_begins_anew_is_measured_anew() -> None:
    pace = heard((0.0, 0), (10.0, 100 * MB), (11.0, 0), (21.0, 10 * MB))
    assert pace.bytes_per_s(21.0) == MB


def test_what_would_take_for_ever_is_not_told() -> None:
    assert heard((0.0, 0), (60.0, 1)).remaining_s(10**12, 60.0) == 0


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 10 * MB)), max_size=50), st.integers(0, 10**9))
def test_it_is_never_absurd_and_stays_small(steps: list[tuple[float, int]], total: int) -> None:
    pace, now, done = Pace(), 0.0, 0
    for seconds, more in steps:
        now, done = now + seconds, done + more
        pace = pace.after(done, now)
        assert pace.heard[-1] == (now, done)
        assert all(at >= now - WINDOW_S for at, _ in pace.heard[1:])
        assert 0 <= pace.bytes_per_s(now) <= done / 2.0
        assert pace.remaining_s(total, now) >= 0


def test_words() -> None:
    assert [size_in_words(n) for n in (0, 999, 1500, 98_360_000, 2 * 10**12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "98.4 MB",
        "2.0 TB",
    ]
    assert [span_in_words(n) for n in (9, 100, 720, 6001)] == ["9 s", "2 min", "12 min", "1 h 41 min"]
