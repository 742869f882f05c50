"""How devices do with a new release beside their own previous one, summed up for a judgement.

Each device is compared with itself: what it should show now is what it showed in the days before, corrected for the
hour of the day by what all of the devices showed. Its evidence is the log likelihood ratio of a sequential test: a
regression by `ratio` against none. Where the formulas come from, and what each constant is for, is in
docs/decisions/0016.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, log
from typing import Final

from edgewright_controller.gates.model import Comparison, HealthPolicy, HealthSamples

# Sound releases that one measure may stop: 1 in 200. It holds however often the question is asked.
FALSE_STOPS: Final = 1 / 200
ENOUGH: Final = log(1 / FALSE_STOPS)

HOURS: Final = 24
MIN_BEFORE: Final = 20  # requests of a device's previous release, or it is not compared
MIN_WINDOWS: Final = 5  # in which it decoded, before and after, or its speed is not compared
# The hypothesis is not `ratio` but this power of it: a regression by `ratio` is found also on a day on which all goes
# a little better than on the day before.
TESTED: Final = 0.75
FLOOR: Final = 0.001  # a share of errors below this is taken for this
SPREAD: Final = 0.1  # variance of one device's rate from one day to the next, relative
COMMON_SPREAD: Final = 0.005  # the same of what changes for all devices together
MOST_AT_ONCE: Final = 4.0  # times what is due: more errors of one device in ten minutes are not believed
MOST_BEFORE: Final = 4.0  # standard deviations above what is due, in an hour of before
HOUR_WEIGHT: Final = 8.0  # as many errors speak for an hour like any other
SPEED_SPREAD: Final = 0.04  # variance of the logarithm of a device's speed from one day to the next
COMMON_SPEED_SPREAD: Final = 0.01


@dataclass(frozen=True)
class Slice:
    """Some minutes of one device with one release. `hour`: of the day where the device stands, 0 to 23. Of the
    `windows` in which it decoded, `log_speed` sums the logarithms of tokens per second, `log_speed_2` their squares."""

    hour: int
    requests: int
    errors: int
    windows: int = 0
    log_speed: float = 0.0
    log_speed_2: float = 0.0


@dataclass(frozen=True)
class Level:
    """What one device showed with its previous release. `rate`: errors for a request, at an hour like any other;
    `known`: how many errors that is known from. Speed is None when too little is known of it; `speed_variance` is of
    the mean of `log_speed`."""

    requests: int
    errors: int
    known: float
    rate: float
    log_speed: float | None = None
    speed_variance: float = 0.0


@dataclass(frozen=True)
class Baseline:
    """What to compare with. `shape`: by hour of the day, how many times the usual rate of errors is usual then;
    `known`: errors that this is known from. `clump`: variance of the number of errors over its mean, at least 1; more
    where one cause makes many requests fail."""

    levels: Mapping[str, Level]
    shape: tuple[float, ...]
    known: tuple[float, ...]
    clump: float


def baseline(before: Mapping[str, Sequence[Slice]]) -> Baseline:
    """What devices showed with their previous releases; those of which too little is known are left out.

    Devices that have no new release yet help to know the hours of the day; a Slice is an hour, or less.
    """
    before = {name: slices for name, slices in before.items() if sum(one.requests for one in slices) >= MIN_BEFORE}
    shape, _ = _shape(before)
    usual = {name: _rate(slices, shape) for name, slices in before.items()}
    believed = {name: [_believed(one, usual[name] * shape[one.hour]) for one in before[name]] for name in before}
    shape, known = _shape(believed)
    levels = {name: _level(before[name], believed[name], shape) for name in before}
    # What was cut says how bad a moment was, and nothing of how errors come otherwise.
    whole = {
        name: [one for one, was in zip(believed[name], before[name], strict=True) if one == was] for name in before
    }
    return Baseline(levels, shape, known, _clump(whole, levels, shape))


def _believed(one: Slice, rate: float) -> Slice:
    """Without what came all at once, of which a device has its share in any three days."""
    due = one.requests * rate
    return replace(one, errors=min(one.errors, int(due + MOST_BEFORE * (due**0.5 + 1))))


def _shape(before: Mapping[str, Sequence[Slice]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    requests, errors = [0] * HOURS, [0] * HOURS
    for slices in before.values():
        for one in slices:
            requests[one.hour] += one.requests
            errors[one.hour] += one.errors
    usual = sum(errors) / sum(requests) if before else 0.0
    expected = [usual * count for count in requests]
    known = tuple(_around(expected, hour) + HOUR_WEIGHT for hour in range(HOURS))
    return tuple((_around(errors, hour) + HOUR_WEIGHT) / known[hour] for hour in range(HOURS)), known


def _rate(slices: Sequence[Slice], shape: Sequence[float]) -> float:
    usual_hours = sum(one.requests * shape[one.hour] for one in slices)
    return max((sum(one.errors for one in slices) + 0.5) / usual_hours, FLOOR)


def _level(told: Sequence[Slice], believed: Sequence[Slice], shape: Sequence[float]) -> Level:
    mean, variance = _speed(told) or (None, 0.0)
    return Level(
        requests=sum(one.requests for one in told),
        errors=sum(one.errors for one in told),
        known=sum(one.errors for one in believed) + 0.5,
        rate=_rate(believed, shape),
        log_speed=mean,
        speed_variance=variance,
    )


def _around(values: Sequence[float], hour: int) -> float:
    """What an hour of the day and its two neighbours have together."""
    return values[hour - 1] + values[hour] + values[(hour + 1) % HOURS]


def _clump(before: Mapping[str, Sequence[Slice]], levels: Mapping[str, Level], shape: Sequence[float]) -> float:
    squares = means = 0.0
    for name, slices in before.items():
        for one in slices:
            due = one.requests * levels[name].rate * shape[one.hour]
            squares += (one.errors - due) ** 2
            means += due
    return max(1.0, squares / means) if means else 1.0


def _speed(slices: Sequence[Slice]) -> tuple[float, float] | None:
    """The mean of the logarithm of tokens per second, and the variance of that mean."""
    windows = sum(one.windows for one in slices)
    if windows < MIN_WINDOWS:
        return None
    mean = sum(one.log_speed for one in slices) / windows
    spread = max(0.0, sum(one.log_speed_2 for one in slices) / windows - mean * mean)
    return mean, spread / (windows - 1)


def compare(known: Baseline, after: Mapping[str, Sequence[Slice]], policy: HealthPolicy) -> HealthSamples:
    """What devices show with the new release, beside what `known` says of each."""
    compared = {name: slices for name, slices in after.items() if name in known.levels}
    requests = sum(one.requests for slices in compared.values() for one in slices)
    if not policy.on or requests < policy.min_requests:
        return HealthSamples(requests=requests)
    tested = policy.ratio**TESTED
    return HealthSamples(_errors(known, compared, tested), _speeds(known, compared, tested), requests)


def _errors(known: Baseline, after: Mapping[str, Sequence[Slice]], ratio: float) -> Comparison:
    weights, hours, clump = [], set(), known.clump
    errors = requests = errors_before = requests_before = 0
    believed = expected = known_of_all = squares = 0.0
    for name, slices in after.items():
        level = known.levels[name]
        mine = due_of_all = 0.0
        for one in slices:
            due = one.requests * level.rate * known.shape[one.hour]
            # What comes all at once says that something happened there, not how the release is.
            mine += min(one.errors, MOST_AT_ONCE * due + 2 * clump)
            due_of_all += due
            errors += one.errors
            requests += one.requests
            hours.add(one.hour)
        certain = 1 / (clump / level.known + SPREAD)
        weights.append(likelihood_ratio(mine / clump, due_of_all / clump, certain, ratio))
        errors_before += level.errors
        known_of_all += level.known
        squares += due_of_all * due_of_all
        requests_before += level.requests
        believed += mine
        expected += due_of_all
    # What differs from day to day at each device evens out, the less the more of the errors are due to few of them.
    spread = SPREAD * squares / expected**2 + COMMON_SPREAD
    certain = 1 / (clump / known_of_all + clump / sum(known.known[hour] for hour in hours) + spread)
    together = likelihood_ratio(believed / clump, expected / clump, certain, ratio)
    weight = min(_sum(weights), together)
    return Comparison(weight, len(weights), errors_before / requests_before, errors / requests)


def likelihood_ratio(errors: float, expected: float, certain: float, ratio: float) -> float:
    """Log likelihood ratio of `errors` when `ratio` times `expected` come, against when `expected` come.

    Errors are Poisson, around a mean that is itself known as from `certain` errors (gamma); with `certain` the errors
    before, this is the binomial of errors before and after, given their sum.
    """
    return errors * log(ratio) - (errors + certain) * log((certain + ratio * expected) / (certain + expected))


def _speeds(known: Baseline, after: Mapping[str, Sequence[Slice]], ratio: float) -> Comparison | None:
    weights, slower, before, now = [], [], 0.0, 0.0
    for name, slices in after.items():
        level, speed = known.levels[name], _speed(slices)
        if level.log_speed is None or speed is None:
            continue
        mean, variance = speed
        slower.append(max(-2 * log(ratio), min(2 * log(ratio), level.log_speed - mean)))
        weights.append(_slower(level.log_speed - mean, level.speed_variance + variance + SPEED_SPREAD, ratio))
        before += level.log_speed
        now += mean
    if not weights:
        return None
    count = len(weights)
    together = _slower(sum(slower) / count, COMMON_SPEED_SPREAD + SPEED_SPREAD / count, ratio)
    return Comparison(min(_sum(weights), together), count, exp(before / count), exp(now / count))


def _slower(slower: float, variance: float, ratio: float) -> float:
    """Log likelihood ratio of a normal mean of log `ratio` against one of 0."""
    return log(ratio) * (slower - log(ratio) / 2) / variance


def _sum(weights: Sequence[float]) -> float:
    """One device of several neither stops a release nor saves it: it counts for at most half of what it takes."""
    if len(weights) == 1:
        return weights[0]
    return sum(max(-ENOUGH / 2, min(ENOUGH / 2, weight)) for weight in weights)
