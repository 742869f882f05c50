"""Real rollouts while the controller, its broker and the devices are killed at random: nothing is lost.

Here a few devices and a few kills; `make soak` does it with fifty, for long.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.simulated_fleet.ground import ground
from tests.simulated_fleet.killer import Pauses

SEED = 20


@pytest.mark.timeout(3000)
def test_rollouts_end_and_nothing_is_lost_whoever_is_killed(tmp_path: Path, soak: int) -> None:
    long = soak > 1
    devices, processes, rounds = (50, 5, soak) if long else (6, 2, 1)
    chance = random.Random(SEED)
    with ground(tmp_path, devices, processes, SEED) as fleet:
        for number in range(rounds):
            kinds = fleet.rounds.kinds
            kind = kinds[number % len(kinds)]
            done, lost = fleet.play(kind, chance, Pauses(most_s=40.0 if long else 5.0))
            assert not lost, (number, kind, done.heard, dict(fleet.kills), lost)
        assert fleet.kills.total() >= 2 * rounds
