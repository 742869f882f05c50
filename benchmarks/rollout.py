"""Rollouts, measured: section [rollout] of the figures.

usage: python benchmarks/rollout.py [--only NAME …] [--runs N] [--seed S]

properties: whole rollouts from seeds, among simulated devices, with everything that can happen to them, in two
processes (tests/controller/rollout_world.py has the promises that are checked after every step). A promise that is
broken ends the measurement with its seed. rollout.without_final_state counts rollouts that did not end.
kills: rollouts on two real fleets of which everything is killed at random, see rollout_kills.py.
step: what one event costs a rollout of 10,000 devices, step and apply; the same with 100 devices shows that the cost
does not grow with the fleet.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the promises stand in `tests`

from edgewright_controller.gates import GatePolicy  # noqa: E402
from edgewright_controller.rollout import (  # noqa: E402
    DeviceReported,
    Event,
    Outcome,
    RolloutPolicy,
    RolloutSpec,
    RolloutState,
    RolloutTarget,
    Started,
    Tick,
    Window,
    apply_changes,
    begin,
    in_two_waves,
    step,
)
from tests.controller.rollout_world import NeverEnded, play  # noqa: E402

HOST: Final = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
RUNS: Final = 102_400
A_BATCH: Final = 800
DEVICES: Final = 10_000
ZONES: Final = ("UTC", "Europe/Berlin", "Asia/Tokyo", "America/New_York", "America/Sao_Paulo", "Australia/Sydney")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Measures rollouts; prints one JSON line for each figure.")
    parser.add_argument("--only", nargs="+", choices=sorted(MEASUREMENTS), default=sorted(MEASUREMENTS))
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--seed", type=int, default=1, help="where the seeds of the runs begin")
    given = parser.parse_args(arguments)
    for name in given.only:
        MEASUREMENTS[name](given)


def figure(name: str, value: float, unit: str, of: str, **against: str | float) -> None:
    """`against`: baseline and ratio, where there are any."""
    line = {"name": name, "value": round(value, 3), "unit": unit, "of": of, "baseline": "", "ratio": None, "host": HOST}
    print(json.dumps({**line, **against}), flush=True)


# ── Promises ──


def measure_properties(given: argparse.Namespace) -> None:
    first = given.seed * 1_000_000_000
    batches = [
        range(seed, min(seed + A_BATCH, first + given.runs)) for seed in range(first, first + given.runs, A_BATCH)
    ]
    ended: Counter[str] = Counter()
    never = 0
    with ProcessPoolExecutor(2) as pool:
        for counts, lost in pool.map(_played, batches):
            ended += Counter(counts)
            never += lost
    ways = ", ".join(f"{count} {phase}" for phase, count in sorted(ended.items()))
    figure("rollout.property_runs", ended.total() + never, "count", f"whole rollouts of up to 7 devices: {ways}")
    figure("rollout.without_final_state", never, "count", "of these, rollouts or devices in them")


def _played(seeds: range) -> tuple[dict[str, int], int]:
    ended: Counter[str] = Counter()
    never = 0
    for seed in seeds:
        try:
            ended[play(seed).value] += 1
        except NeverEnded as error:
            never += 1
            print(f"seed {seed}: {error}", file=sys.stderr, flush=True)
        except AssertionError as error:
            raise SystemExit(f"seed {seed}: a promise is broken: {error}") from error
    return dict(ended), never


# ── What a step costs ──


def measure_step(_given: argparse.Namespace) -> None:
    large, small = _reports(DEVICES), _reports(100)
    against: dict[str, str | float] = {"baseline": "the same with 100 devices", "ratio": round(large / small, 2)}
    figure("rollout.step_us", large, "us", f"{DEVICES} devices, one report", **against)
    figure("rollout.step_100_devices_us", small, "us", "100 devices, one report")
    idle = _ticks(_under_way(DEVICES))
    figure("rollout.idle_tick_us", idle, "us", f"{DEVICES} devices under way, nothing due")
    closed = _ticks(_under_way(DEVICES, windowed=True))
    figure(
        "rollout.closed_tick_us", closed, "us", f"{DEVICES} devices that wait for windows in {len(ZONES)} time zones"
    )


def _under_way(devices: int, *, windowed: bool = False) -> RolloutState:
    """The first device has succeeded, and the others have their offers, or wait for a Sunday in five days."""
    windows = (Window(frozenset({6}), 60, 300),) if windowed else ()
    targets = [
        RolloutTarget(f"dev-{n}", "a" * 64, "b" * 64, 1, windows if n else (), ZONES[n % len(ZONES)])
        for n in range(devices)
    ]
    policy = RolloutPolicy(gate=GatePolicy(max_failures=devices))
    state = begin(RolloutSpec("rollout-1", in_two_waves(targets, 1), policy), 0.0)
    for event in (Started(), DeviceReported("dev-0", 2, Outcome.SUCCEEDED)):
        _do(state, event, 1.0)
    return state


def _do(state: RolloutState, event: Event, now: float) -> None:
    changes, _actions = step(state, event, now)
    apply_changes(state, changes)


def _reports(devices: int) -> float:
    """Mean microseconds of a report; each device says once that it has begun and once how it ended."""
    state = _under_way(devices)
    events = [
        DeviceReported(f"dev-{number}", 2, outcome, step_name, reason="as measured")
        for outcome, step_name in ((Outcome.IN_PROGRESS, "downloading"), (Outcome.SUCCEEDED, "idle"))
        for number in range(1, devices)
    ]
    started = time.perf_counter()
    for number, event in enumerate(events):
        _do(state, event, 2.0 + number / 1000)
    spent = time.perf_counter() - started
    if not state.finished:
        raise SystemExit(f"the rollout of {devices} devices did not end: {state.reason}")
    return 1e6 * spent / len(events)


def _ticks(state: RolloutState) -> float:
    rounds = 2_000
    started = time.perf_counter()
    for number in range(rounds):
        _do(state, Tick(), 2.0 + number / 1000)
    return 1e6 * (time.perf_counter() - started) / rounds


# ── Kills ──


def measure_kills(given: argparse.Namespace) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "rollout_kills.py"), "--seed", str(given.seed)]
    subprocess.run(command, check=True)


MEASUREMENTS: Final[dict[str, Callable[[argparse.Namespace], None]]] = {
    "kills": measure_kills,
    "properties": measure_properties,
    "step": measure_step,
}


if __name__ == "__main__":
    main()
