"""What one event costs a rollout of 10,000 devices: step and apply, after everything else was set up.

Prints one JSON line for each figure. No network, no disk. `rollout.step_us` is the mean over reports that end devices;
a rollout of 100 devices beside it shows that the cost does not grow with the fleet.
"""

from __future__ import annotations

import json
import os
import platform
import time

from edgewright_controller.gates import GatePolicy
from edgewright_controller.rollout import (
    DeviceReported,
    Event,
    Outcome,
    RolloutPolicy,
    RolloutSpec,
    RolloutState,
    RolloutTarget,
    Started,
    Tick,
    apply_changes,
    begin,
    in_two_waves,
    step,
)

DEVICES = 10_000


def main() -> None:
    """Measure, and print."""
    large, small = _reports(DEVICES), _reports(100)
    _figure("rollout.step_us", large, "us", f"{DEVICES} devices, one report")
    _figure("rollout.step_100_devices_us", small, "us", "100 devices, one report")
    _figure("rollout.idle_tick_us", _ticks(DEVICES), "us", f"{DEVICES} devices under way, nothing due")


def _under_way(devices: int) -> RolloutState:
    targets = [RolloutTarget(f"dev-{number}", "a" * 64, "b" * 64, 1) for number in range(devices)]
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
        DeviceReported(f"dev-{number}", 2, outcome, reason="as measured")
        for outcome in (Outcome.IN_PROGRESS, Outcome.SUCCEEDED)
        for number in range(1, devices)
    ]
    started = time.perf_counter()
    for number, event in enumerate(events):
        _do(state, event, 2.0 + number / 1000)
    spent = time.perf_counter() - started
    if not state.finished:
        raise SystemExit(f"the rollout of {devices} devices did not end: {state.reason}")
    return 1e6 * spent / len(events)


def _ticks(devices: int) -> float:
    state = _under_way(devices)
    rounds = 2_000
    started = time.perf_counter()
    for number in range(rounds):
        _do(state, Tick(), 2.0 + number / 1000)
    return 1e6 * (time.perf_counter() - started) / rounds


def _figure(name: str, value: float, unit: str, of: str) -> None:
    host = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(json.dumps({"name": name, "value": round(value, 2), "unit": unit, "of": of, "host": host}))


if __name__ == "__main__":
    main()
