"""Updates that are cut off, on full disks, with wrong bytes: delivery.crash_*, disk_full_* and corrupt* of the figures.

usage: python benchmarks/delivery_crash.py [--only crashes full corruptions] [--every N] [--positions N]
                                           [--corruptions N] [--agents N]

crashes: one whole update of a real agent is recorded; before each of its acts on the disk, another agent gets SIGKILL,
and another device loses its power, with unsynced bytes and names lost in one of five ways. A device that does not serve
a verified version within ten seconds of its restart, or does not end the update by itself, counts as a loss; so does
a disk with nothing to serve among all those that a loss of power at these points may leave, in all five ways.
full: updates on disks of which so many bytes are free, from none on. A device that leaves a question unanswered, does
not say why it does not go on, or does not go on by itself when there is room, counts as a loss.
corruptions: what a device reads before it loads a model, flipped, cut and made longer, and whole agents with a damaged
file. What is loaded though it is not what was there counts, and so does a fault that nobody thought of.
Each thing that is lost is said in words on standard error. `--every N` takes each Nth point only.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import os
import platform
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # what the tests have for this stands in `tests`
os.chdir(ROOT)  # so do the processes that it starts

from tests.power import crashes, full_disk  # noqa: E402
from tests.power.crashes import Update  # noqa: E402
from tests.power.device import Device, Ground  # noqa: E402
from tests.power.disk import Loss  # noqa: E402
from tests.power.room import room  # noqa: E402
from tests.power.saved_state import subjects, with_damage  # noqa: E402

HOST: Final = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
LOSSES: Final = (Loss.ALL, Loss.DATA, Loss.EMPTY, Loss.NAMES, Loss.SOME)
LIMIT_S: Final = 10.0
WORKERS: Final = 2


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description="Crashes, full disks, damage; prints one JSON line for each figure.")
    parser.add_argument("--only", nargs="+", choices=sorted(MEASUREMENTS), default=list(MEASUREMENTS))
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--positions", type=int, default=100)
    parser.add_argument("--corruptions", type=int, default=30_000)
    parser.add_argument("--agents", type=int, default=200, help="whole agents with a damaged file")
    given = parser.parse_args(arguments)
    for name in given.only:
        MEASUREMENTS[name](given)


def figure(name: str, value: float, unit: str, of: str) -> None:
    line = {"name": name, "value": round(value, 3), "unit": unit, "of": of, "baseline": "", "ratio": None, "host": HOST}
    print(json.dumps(line), flush=True)


def lost(what: str) -> None:
    print(f"lost: {what}", file=sys.stderr, flush=True)


# ── Crashes ──


def measure_crashes(given: argparse.Namespace) -> None:
    with room() as folder:
        ground = Ground(folder)
        try:
            update = crashes.record(ground)
            points = update.points[:: given.every]
            tried = [_Try(ground, update, point, LOSSES[n % len(LOSSES)]) for n, point in enumerate(points)]
            with ThreadPoolExecutor(WORKERS) as pool:
                took = list(pool.map(_Try.both, tried))
            looked, losses = crashes.seen(ground, update, LOSSES, points)
        finally:
            ground.close()
    for what in losses:
        lost(what)
    times = [seconds for one in took for seconds in one if seconds is not None]
    failed = len(losses) + sum(seconds is None for one in took for seconds in one)
    figure(
        "delivery.crash_points", len(points), "count", f"acts of an update, each in both ways: {update.said()} in all"
    )
    figure("delivery.crash_losses", failed, "count", f"of {2 * len(points)} restarts and {looked} disks looked at")
    figure("delivery.crash_slowest_s", max(times, default=0.0), "s", "from a restart to an answer, the longest")


class _Try:
    """One point, both ways; None: it was lost."""

    def __init__(self, ground: Ground, update: Update, point: int, loss: Loss) -> None:
        self._ground, self._update, self._point, self._loss = ground, update, point, loss

    def both(self) -> tuple[float | None, float | None]:
        return self._tried("SIGKILL", self._killed), self._tried(self._loss.value, self._unplugged)

    def _killed(self) -> Device:
        # The agents' threads do not take turns in the same way each time: the very last acts may come a few earlier.
        for point in range(self._point, self._point - 20, -1):
            if (device := crashes.killed(self._ground, f"killed-{self._point}", point)) is not None:
                return device
        raise AssertionError("the update took fewer acts")

    def _unplugged(self) -> Device:
        return crashes.unplugged(self._ground, self._update, f"unplugged-{self._point}", self._point, self._loss)

    def _tried(self, how: str, made: Callable[[], Device]) -> float | None:
        try:
            device = made()
            took = device.survives()
            assert took <= LIMIT_S, f"it took {took:.1f} s until it served"
        except (AssertionError, OSError) as error:
            lost(f"before act {self._point} ({self._update.acts[self._point]}), {how}: {error}")
            return None
        device.remove()
        return took


# ── Full disks ──


def measure_full(given: argparse.Namespace) -> None:
    positions = full_disk.positions(given.positions)
    with tempfile.TemporaryDirectory(prefix="edgewright-full-") as folder:
        found = full_disk.run(Path(folder), positions, soon=False)
    for one in found:
        for what in one.lost:
            lost(f"{one.free} bytes free ({one.kind}): {what}")
    answers, short = sum(one.answers for one in found), sum(bool(one.told) for one in found)
    of = f"updates with 0 to {max(free for _, free in positions):,} bytes free; {short} had no room, and said so"
    figure("delivery.disk_full_positions", len(found), "count", of)
    failed = sum(bool(one.lost) for one in found)
    figure("delivery.disk_full_losses", failed, "count", f"of these; {answers} questions were answered meanwhile")


# ── Damage ──


def measure_corruptions(given: argparse.Namespace) -> None:
    logging.disable(logging.WARNING)  # each refusal is told there
    tried = loaded = 0
    with room() as folder:
        ground = Ground(folder)
        try:
            (folder / "parts").mkdir()
            made = subjects(folder / "parts")
            for name, subject in made.items():
                for number in range(-(-given.corruptions // len(made))):
                    seed = f"{name} {number}"
                    tried += 1
                    loaded += _goes_wrong(f"{name}, damage {number}", functools.partial(subject, random.Random(seed)))
            for number in range(given.agents):
                device, spoilt = with_damage(ground, number)
                tried += 1
                loaded += _goes_wrong(f"an agent with a damaged {spoilt}, damage {number}", device.serves_on)
        finally:
            ground.close()
    of = f"{tried - given.agents} of {len(made)} kinds of things that are read, and {given.agents} whole agents"
    figure("delivery.corruptions_tried", tried, "count", of)
    figure("delivery.corrupt_loaded", loaded, "count", "of these: loaded, not served around, or a fault of the agent")


def _goes_wrong(what: str, act: Callable[[], object]) -> bool:
    try:
        act()
    except Exception as error:
        lost(f"{what}: {error!r}")
        return True
    return False


MEASUREMENTS: Final[dict[str, Callable[[argparse.Namespace], None]]] = {
    "corruptions": measure_corruptions,
    "full": measure_full,
    "crashes": measure_crashes,
}


if __name__ == "__main__":
    main()
