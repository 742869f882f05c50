"""Flipped bits, cut and longer files: nothing wrong is loaded, and no damage is a fault that nobody thought of."""

from __future__ import annotations

import os
import random

import pytest

from tests.power.corruption import damaged
from tests.power.device import Ground
from tests.power.room import room
from tests.power.saved_state import subjects, with_damage

SOAK = bool(os.environ.get("EDGEWRIGHT_SOAK"))


def test_damage_is_never_none() -> None:
    for seed in range(300):
        chance = random.Random(seed)
        whole = chance.randbytes(chance.randrange(50))
        assert damaged(whole, chance) != whole


@pytest.mark.timeout(3600)
def test_what_is_damaged_is_refused_or_had_again() -> None:
    with room() as folder:
        for name, tried in subjects(folder).items():
            for number in range(2500 if SOAK else 40):
                try:
                    tried(random.Random(f"{name} {number}"))
                except Exception as error:
                    raise AssertionError(f"{name}, damage {number}: {error!r}") from error


@pytest.mark.timeout(3600 if SOAK else 600)
def test_an_agent_with_a_damaged_file_serves_a_verified_version(ground: Ground) -> None:
    for seed in range(300 if SOAK else 2):
        device, spoilt = with_damage(ground, seed)
        version = device.serves_on()
        assert version in ("v0", "v1", "v2"), spoilt
