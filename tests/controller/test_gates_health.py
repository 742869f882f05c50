"""Health is summed up from what devices show: with enough of it, from more than one of them, and never from nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_controller.gates import HealthPolicy, HealthSamples, Ruling, Slice, baseline, compare
from edgewright_controller.gates.health import ENOUGH, likelihood_ratio
from tests.controller.gate_traffic import PATTERNS, Release, course

POLICY = HealthPolicy()


def day(errors: int = 2, requests: int = 100, speed: float = 3.0) -> list[Slice]:
    """A day, the same at every hour; a window for each ten requests."""
    return [Slice(hour, requests, errors, 10, 10 * speed, 10 * (speed * speed + 0.04)) for hour in range(24)]


def hours(*errors: int, requests: int = 100, speed: float = 3.0) -> list[Slice]:
    return [Slice(12, requests, count, 10, 10 * speed, 10 * (speed * speed + 0.04)) for count in errors]


def found(after: Mapping[str, Sequence[Slice]], *, before: Sequence[Slice] | None = None) -> HealthSamples:
    return compare(baseline({name: before or day() for name in after}), after, POLICY)


def weight(after: Mapping[str, Sequence[Slice]]) -> float:
    errors = found(after).errors
    assert errors is not None
    return errors.weight


def test_with_nothing_known_of_the_spread_it_is_the_binomial_of_errors_before_and_after() -> None:
    # 12 errors in 1,000 requests before, 9 in 250 after: of 21 errors each is of after with 250 in 1,250 without a
    # regression, with 2 · 250 in 1,500 at a twofold one; the coefficients are the same and fall out.
    with_one, with_none = (1 / 3) ** 9 * (2 / 3) ** 12, (1 / 5) ** 9 * (4 / 5) ** 12
    assert pytest.approx(with_one / with_none) == 2.718281828459045 ** likelihood_ratio(9, 12 * 250 / 1000, 12, 2.0)


def test_twice_the_errors_on_all_devices_is_enough_and_the_same_errors_speak_against_it() -> None:
    same = {f"dev-{number}": hours(2, 2, 2) for number in range(20)}
    twice = {f"dev-{number}": hours(4, 4, 4) for number in range(20)}
    assert weight(same) < -ENOUGH
    assert weight(twice) > ENOUGH
    told = found(twice).errors
    assert told is not None
    assert (told.devices, told.before, told.after) == (20, 0.02, 0.04)


def test_half_the_speed_is_enough_and_the_same_speed_speaks_against_it() -> None:
    slow, same = (found({f"dev-{n}": hours(2, 2, speed=speed) for n in range(20)}).speed for speed in (2.3, 3.0))
    assert slow is not None
    assert same is not None
    assert slow.weight > ENOUGH
    assert same.weight < -ENOUGH
    assert (round(slow.before, 1), round(slow.after, 1)) == (20.1, 10.0)


def test_too_few_requests_say_nothing() -> None:
    few = found({f"dev-{number}": [Slice(12, 9, 9)] for number in range(11)})
    assert few == HealthSamples(requests=99)
    assert found({}) == HealthSamples()
    assert found({"dev-1": hours(50, 50)}, before=[Slice(3, 19, 0)]) == HealthSamples(), "too little of before"
    unknown = compare(baseline({}), {"dev-1": hours(50, 50)}, POLICY)
    assert unknown == HealthSamples()
    assert compare(baseline({"dev-1": day()}), {"dev-1": hours(9, 9)}, HealthPolicy(on=False)).errors is None


def test_what_never_decodes_has_no_speed() -> None:
    assert found({"dev-1": [Slice(12, 200, 4)]}).speed is None


def test_what_is_usual_at_an_hour_is_no_regression_then() -> None:
    before = [Slice(hour, 100, 8 if 10 <= hour <= 14 else 2) for hour in range(24)]
    noon = {f"dev-{number}": [Slice(12, 100, 8)] * 2 for number in range(20)}
    usual, at_night = found(noon, before=before).errors, found(noon, before=day()).errors
    assert usual is not None
    assert at_night is not None
    assert usual.weight < -ENOUGH
    assert at_night.weight > ENOUGH


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6), st.integers(0, 5), st.integers(2, 20))
def test_more_errors_never_speak_for_a_release(errors: list[int], place: int, devices: int) -> None:
    others = {f"dev-{number}": hours(2, 3) for number in range(1, devices)}
    more = list(errors)
    more[place % len(errors)] += 1
    assert weight({"dev-0": hours(*more), **others}) >= weight({"dev-0": hours(*errors), **others}) - 1e-9


@given(st.lists(st.integers(0, 100), min_size=1, max_size=30), st.floats(-5, 5), st.integers(1, 20))
def test_one_device_of_several_does_not_decide(errors: list[int], speed: float, others: int) -> None:
    after = {f"dev-{number}": hours(2, 2, 2) for number in range(others)}
    one = found({"bad": hours(*errors, speed=speed), **after})
    assert one.errors is not None
    assert one.speed is not None
    assert max(one.errors.weight, one.speed.weight) < ENOUGH


def test_a_device_alone_decides_when_it_goes_on_and_not_by_one_bad_moment() -> None:
    assert weight({"dev-1": hours(2, 100, 2, 2, 2)}) < ENOUGH
    assert weight({"dev-1": hours(*[20] * 10)}) > ENOUGH


@st.composite
def any_slice(draw: st.DrawFn) -> Slice:
    """What the ledger may hold, from the most absurd of devices."""
    windows, speed = draw(st.integers(0, 1000)), draw(st.floats(-7, 14))
    counts = draw(st.integers(0, 10**9)), draw(st.integers(0, 10**9))
    return Slice(draw(st.integers(0, 23)), max(counts), counts[1], windows, windows * speed, windows * speed * speed)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.lists(any_slice(), max_size=3)))
def test_no_numbers_break_it(slices: dict[str, list[Slice]]) -> None:
    health = compare(baseline(slices), slices, POLICY)
    for measure in (health.errors, health.speed):
        assert measure is None or abs(measure.weight) < 1e12


@pytest.mark.parametrize("pattern", ["steady", "errors in clumps", "bursts on one device", "few requests"])
def test_a_sound_release_is_not_stopped(pattern: str) -> None:
    for seed in range(2):
        assert course(PATTERNS[pattern], Release(), Random(seed)).verdict.ruling is Ruling.PROMOTE


@pytest.mark.parametrize("regression", [Release(errors=2.0), Release(slower=2.0)])
def test_a_twofold_regression_is_stopped(regression: Release) -> None:
    for pattern in ("steady", "errors in clumps"):
        assert course(PATTERNS[pattern], regression, Random(7)).verdict.ruling is Ruling.REVERT
