"""How often the gate stops a sound release, and how often it lets one pass that is twice as bad, at 20 devices.

Prints one JSON line for each figure. Fleets are simulated (`tests/controller/gate_traffic.py` says what is assumed);
the gate is the one that the controller runs, asked every 15 s of every rollout. `rollout.gate_false_halts_percent` and
`rollout.gate_missed_percent` are those of the worst pattern of traffic; each pattern's own stand beside them. In
"few requests" health has too little to go by and says so, which is counted, and is not a miss; "all of it" puts every
trouble together, to see how the rule gives way, and is told but not taken for the two.

usage: python benchmarks/rollout_gate.py [--rollouts 400] [--processes 2]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from random import Random
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from edgewright_controller.gates import Ruling
from tests.controller.gate_traffic import DEVICES, PATTERNS, Release, course

SOUND: Final = Release()
TWOFOLD: Final = {"errors": Release(errors=2.0), "time for a token": Release(slower=2.0)}
FEW: Final = "few requests"
STRESS: Final = "all of it"
SHARE: Final = 2  # of the sound releases, which need to be many, so many times fewer bad ones are tried
CHUNK: Final = 10


def main() -> None:
    """Simulate, and print."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rollouts", type=int, default=400, help="sound ones of each pattern")
    options.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    given = options.parse_args()
    bad = max(1, given.rollouts // SHARE)
    with ProcessPoolExecutor(given.processes) as pool:
        sound = {pattern: _stopped(pool, pattern, SOUND, given.rollouts) for pattern in PATTERNS}
        for pattern, stopped in sound.items():
            what = f"{pattern}: {stopped} of {given.rollouts} sound releases"
            _figure("rollout.gate_false_halts_of_pattern_percent", 100 * stopped / given.rollouts, what)
        missed = {}
        for kind, release in TWOFOLD.items():
            for pattern in PATTERNS:
                passed = bad - _stopped(pool, pattern, release, bad)
                name = "let_pass_unseen" if pattern == FEW else "missed_of_pattern"
                _figure(
                    f"rollout.gate_{name}_percent", 100 * passed / bad, f"{pattern}: {passed} of {bad}, twice {kind}"
                )
                if pattern not in (FEW, STRESS):
                    missed[pattern, kind] = passed
    (pattern, kind), most = max(missed.items(), key=lambda one: one[1])
    worst = max((one for one in sound if one != STRESS), key=lambda one: sound[one])
    of = f"{DEVICES} devices, asked every 15 s"
    _figure("rollout.gate_false_halts_percent", 100 * sound[worst] / given.rollouts, f"{of}; worst: {worst}")
    _figure("rollout.gate_missed_percent", 100 * most / bad, f"{of}; worst: {pattern}, twice {kind}")


def _stopped(pool: ProcessPoolExecutor, pattern: str, release: Release, rollouts: int) -> int:
    seeds = range(rollouts)
    chunks = [seeds[first : first + CHUNK] for first in range(0, rollouts, CHUNK)]
    return sum(pool.map(_count, *zip(*((pattern, release, chunk) for chunk in chunks), strict=True)))


def _count(pattern: str, release: Release, seeds: Sequence[int]) -> int:
    """How many of these rollouts the gate stopped."""
    courses = (course(PATTERNS[pattern], release, Random(f"{pattern}, {release}, {seed}")) for seed in seeds)
    return sum(one.verdict.ruling is Ruling.REVERT for one in courses)


def _figure(name: str, value: float, of: str) -> None:
    host = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    figure = {"name": name, "value": round(value, 3), "unit": "percent", "of": of, "host": host}
    sys.stdout.write(json.dumps(figure) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
