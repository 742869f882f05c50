"""Simulated fleets that answer requests, before and while a release goes out, and the gate that watches them.

What is assumed: requests come at random times; a request fails with the device's own rate, which differs from device
to device; speed is lognormal about the device's own. Each pattern adds one kind of trouble that a sound release meets
too. A device reports every 30 s, a third of a minute after another one; the gate is asked every 15 s, always, and by
the code that the controller runs. A release goes to 1, then to 10, then to all 20 devices; it is watched after each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import cos, exp, log, pi
from random import Random
from typing import Final

from edgewright_controller.gates import (
    Activations,
    GatePolicy,
    Ruling,
    Samples,
    Slice,
    Verdict,
    baseline,
    compare,
    judge,
)

DEVICES: Final = 20
WAVES: Final = (1, 10, 20)
STEP_S: Final = 15.0
REPORT_S: Final = 30.0
SLICE_S: Final = 600.0
DAY_S: Final = 86_400.0
DAYS: Final = 3


@dataclass(frozen=True)
class Traffic:
    """What a fleet goes through, whatever the release.

    per_hour: requests to one device. errors: the share that fails, on average.
    levels: how much that share differs between devices, as the standard deviation of its logarithm.
    daily, common, sliced: coefficients of variation of the rate of errors: of one device from day to day, of all of
    them together from day to day, of one device from ten minutes to ten minutes.
    clump: how many requests fail together, on average.
    swing, busy: by which share the rate of errors, and requests, rise and fall over the day; speed by a fifth of swing.
    bursts: on a random device, at a random time of the rollout, half of all requests fail for ten minutes; on every
    fourth device it was so once on each day before.
    speed_…: the same of speed, and its spread from window to window.
    """

    per_hour: float = 240.0
    errors: float = 0.02
    levels: float = 0.5
    daily: float = 0.1
    common: float = 0.1
    sliced: float = 0.0
    clump: float = 1.0
    swing: float = 0.0
    busy: float = 0.0
    bursts: bool = False
    speed_levels: float = 0.3
    speed_daily: float = 0.1
    speed_spread: float = 0.25
    soak_s: float = 3600.0


@dataclass(frozen=True)
class Release:
    """What the new release does to a device."""

    errors: float = 1.0
    slower: float = 1.0


PATTERNS: Final = {
    "steady": Traffic(),
    "rare errors": Traffic(per_hour=600, errors=0.008),
    "overdispersed devices": Traffic(levels=0.8, daily=0.25, sliced=0.5),
    "errors in clumps": Traffic(per_hour=480, clump=3.0),
    "day and night": Traffic(per_hour=480, swing=0.5, busy=0.8),
    "bursts on one device": Traffic(bursts=True),
    "few requests": Traffic(per_hour=6),
    "all of it": Traffic(per_hour=480, daily=0.2, sliced=0.4, clump=1.5, swing=0.5, busy=0.8, bursts=True),
}


@dataclass
class _Device:
    rate: float
    today: float
    speed: float
    phase: float
    failing: int = 0
    slices: list[Slice] = field(default_factory=list)
    now: int = -1  # the number of the last slice
    values: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Course:
    """How a rollout went. `seconds`: until it stopped, or was through."""

    verdict: Verdict
    seconds: float
    devices: int


def course(traffic: Traffic, release: Release, random: Random, policy: GatePolicy | None = None) -> Course:
    """One rollout from its first wave to its end, judged by the gate."""
    policy = policy or GatePolicy(soak_s=traffic.soak_s)
    began = random.uniform(0, DAY_S) + 10 * DAY_S
    burst_at = began + random.uniform(0, len(WAVES) * traffic.soak_s)
    burst_on = random.randrange(DEVICES)
    common = _multiplier(random, traffic.common)
    devices = [_device(traffic, random, number, common) for number in range(DEVICES)]
    before = {f"dev-{number}": _days(traffic, device, began, random) for number, device in enumerate(devices)}
    known = baseline(before)
    now, verdict = began, Verdict(Ruling.WAIT, ())
    for updated in WAVES:
        after = {f"dev-{number}": device.slices for number, device in enumerate(devices[:updated])}
        opened = now
        while True:
            now += STEP_S
            for number, device in enumerate(devices[:updated]):
                if (now - began) % REPORT_S == device.phase:
                    burst = traffic.bursts and number == burst_on and burst_at <= now < burst_at + SLICE_S
                    _window(traffic, device, release, now, random, burst=burst)
            health = compare(known, after, policy.health)
            samples = Samples(Activations(succeeded=updated, last_at=opened), health)
            verdict = judge(samples, policy, now)
            if verdict.ruling is not Ruling.WAIT:
                break
        if verdict.ruling is Ruling.REVERT:
            return Course(verdict, now - began, updated)
    return Course(verdict, now - began, DEVICES)


def _device(traffic: Traffic, random: Random, number: int, common: float) -> _Device:
    rate = min(0.5, traffic.errors * exp(random.gauss(-(traffic.levels**2) / 2, traffic.levels)))
    today = common * _multiplier(random, traffic.daily)
    return _Device(rate, today, 20 * exp(random.gauss(0, traffic.speed_levels)), STEP_S * (number % 2))


def _days(traffic: Traffic, device: _Device, until: float, random: Random) -> list[Slice]:
    """The days before: the same as `_window` draws, an hour at a time."""
    days = [_day(traffic, device, until - number * DAY_S, random) for number in range(DAYS)]
    device.speed *= exp(random.gauss(0, traffic.speed_daily))
    return [one for day in days for one in day]


def _day(traffic: Traffic, device: _Device, until: float, random: Random) -> list[Slice]:
    that_day = _multiplier(random, traffic.daily)
    speed_that_day = random.gauss(0, traffic.speed_daily)
    burst = random.randrange(24) if traffic.bursts and random.random() < 1 / 4 else None
    hours = []
    for hour in range(24):
        at = until - DAY_S + 3600.0 * (hour + 0.5)
        requests = poisson(traffic.per_hour * _busy(traffic, at), random)
        sliced = sum(_multiplier(random, traffic.sliced) for _ in range(6)) / 6
        errors = _errors(traffic, requests * device.rate * that_day * sliced * _swing(traffic, at), random)
        errors += poisson(requests / 12, random) if hour == burst else 0
        windows = round(3600 / REPORT_S * (1 - exp(-requests * REPORT_S / 3600)))
        usual = _usual_log_speed(traffic, device, at) + speed_that_day
        speeds = usual * windows + traffic.speed_spread * windows**0.5 * random.gauss(0, 1)
        squares = windows * (traffic.speed_spread**2 + usual * usual) + 2 * usual * (speeds - usual * windows)
        hours.append(_slice(int(at // SLICE_S), [requests, min(errors, requests), windows, speeds, squares]))
    return hours


def _window(traffic: Traffic, device: _Device, release: Release, now: float, random: Random, *, burst: bool) -> None:
    if device.now != int(now // SLICE_S):
        device.now = int(now // SLICE_S)
        device.values = [0, 0, 0, 0.0, 0.0, _multiplier(random, traffic.sliced)]
        device.slices.append(_slice(device.now, device.values))
    values = device.values
    requests = poisson(traffic.per_hour * REPORT_S / 3600 * _busy(traffic, now), random)
    if not requests:
        return
    rate = device.rate * device.today * values[5] * _swing(traffic, now) * release.errors
    errors = (
        _errors(traffic, requests * rate, random) if not burst else sum(random.random() < 0.5 for _ in range(requests))
    )
    speed = _usual_log_speed(traffic, device, now) + random.gauss(0, traffic.speed_spread) - log(release.slower)
    # What fails together may reach into the next report.
    device.failing += errors
    errors = min(device.failing, requests)
    device.failing -= errors
    for place, value in enumerate((requests, errors, 1, speed, speed * speed)):
        values[place] += value
    device.slices[-1] = _slice(device.now, values)


def _errors(traffic: Traffic, mean: float, random: Random) -> int:
    """Errors that come in clumps of geometric size."""
    if traffic.clump == 1:
        return poisson(mean, random)
    count = 0
    for _ in range(poisson(mean / traffic.clump, random)):
        count += 1
        while random.random() < 1 - 1 / traffic.clump:
            count += 1
    return count


def _usual_log_speed(traffic: Traffic, device: _Device, at: float) -> float:
    return log(device.speed) - traffic.swing / 5 * cos(2 * pi * (at / DAY_S - 0.6))


def _swing(traffic: Traffic, at: float) -> float:
    return 1 + traffic.swing * cos(2 * pi * (at / DAY_S - 0.6))


def _busy(traffic: Traffic, at: float) -> float:
    return 1 + traffic.busy * cos(2 * pi * (at / DAY_S - 0.6))


def _multiplier(random: Random, variation: float) -> float:
    return random.gammavariate(1 / variation**2, variation**2) if variation else 1.0


def _slice(number: int, values: list[float]) -> Slice:
    hour = int(number * SLICE_S % DAY_S // 3600)
    return Slice(hour, int(values[0]), int(values[1]), int(values[2]), values[3], values[4])


def poisson(mean: float, random: Random) -> int:
    """A Poisson number; a normal one is near enough above 100."""
    if mean > 100:
        return max(0, round(random.gauss(mean, mean**0.5)))
    count, left = 0, random.random()
    limit = exp(-mean)
    while left > limit:
        left *= random.random()
        count += 1
    return count
