"""Rollouts under kills, counted: rollout.kills and rollout.kill_losses of the figures.

usage: python benchmarks/rollout_kills.py [--kills N] [--minutes M] [--seed S] [--devices N]

Real rollouts on two fleets, while the controller, its broker and the processes of devices get SIGKILL at random: the
demo's three agents with real engines, then fifty simulated devices over real gRPC and MQTT. After each round everything
comes back, and whatever is not as the ledger says it should be counts as a loss; each is said in words on standard
error. It ends after so many kills, or so many minutes. With the demo's artifacts not built yet, that comes first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # what the tests have for this stands in `tests`
os.chdir(ROOT)  # so do the processes that it starts

from tests.artifacts import build_all  # noqa: E402
from tests.end_to_end.demo_trial import KINDS, demo_trial  # noqa: E402
from tests.simulated_fleet.ground import ground  # noqa: E402
from tests.simulated_fleet.killer import Pauses  # noqa: E402

HOST: Final = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
PROCESSES: Final = 5
DEMO_KILLS: Final = 20


def main(arguments: Sequence[str] | None = None) -> None:
    """Kill, and print."""
    parser = argparse.ArgumentParser(description="Kills what rollouts need; prints one JSON line for each figure.")
    parser.add_argument("--kills", type=int, default=220)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--devices", type=int, default=50)
    given = parser.parse_args(arguments)
    end_at = time.monotonic() + 60 * given.minutes
    artifacts = asyncio.run(
        build_all(ROOT / ".cache" / "demo" / "smollm2", ROOT / "manifests" / "demo.toml", ROOT / ".cache" / "tests")
    )
    counted = _Counted()
    with tempfile.TemporaryDirectory(prefix="edgewright-kills-") as folder:
        with demo_trial(Path(folder) / "demo", artifacts, given.seed) as demo:

            def play_demo(kind: str) -> list[str]:
                return demo.play(kind)[1]

            counted.play("demo", KINDS, play_demo, demo.kills, most=DEMO_KILLS, end_at=end_at)
        with ground(Path(folder) / "simulated", given.devices, PROCESSES, given.seed) as fleet:
            chance = random.Random(given.seed)

            def play(kind: str) -> list[str]:
                return fleet.play(kind, chance, Pauses())[1]

            most = given.kills - counted.kills.total()
            kinds = random.Random(given.seed).sample(fleet.rounds.kinds, len(fleet.rounds.kinds))
            counted.play("simulated", kinds, play, fleet.kills, most=most, end_at=end_at)
    counted.tell(given.devices)


class _Counted:
    """Kills by fleet and kind, rounds by fleet, and losses."""

    def __init__(self) -> None:
        self.kills: Counter[str] = Counter()
        self._rounds: Counter[str] = Counter()
        self._losses = 0

    def play(
        self,
        fleet: str,
        kinds: Sequence[str],
        play: Callable[[str], list[str]],
        kills: Counter[str],
        *,
        most: int,
        end_at: float,
    ) -> None:
        """Rounds of these kinds in turn, until `kills` are enough or the time has come."""
        number = 0
        while kills.total() < most and time.monotonic() < end_at:
            kind = kinds[number % len(kinds)]
            number += 1
            lost = play(kind)
            self._losses += len(lost)
            for words in lost:
                print(f"{fleet}, round {number} ({kind}): lost: {words}", file=sys.stderr, flush=True)
        self._rounds[fleet] = number
        self.kills.update({f"{fleet} {kind}": count for kind, count in kills.items()})

    def tell(self, devices: int) -> None:
        """The figures."""
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.kills.items()))
        rounds = f"{self._rounds['demo']} rounds of the demo's fleet, {self._rounds['simulated']} of {devices} devices"
        _figure("rollout.kills", self.kills.total(), f"{kinds}; {rounds}")
        _figure("rollout.kill_losses", self._losses, "rollouts, devices, statuses, reports and audit, after each round")


def _figure(name: str, value: float, of: str) -> None:
    line = {"name": name, "value": value, "unit": "count", "of": of, "baseline": "", "ratio": None, "host": HOST}
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
