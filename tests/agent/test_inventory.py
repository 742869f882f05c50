"""What a device says of its disk: what artifacts may take of it, in steps that are small where there is little."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_agent import inventory

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("free", "reserve", "told"),
    [
        (100 * GIB + 5 * MIB, 0, 100 * GIB),
        (150 * MIB + 1, 0, 148 * MIB),
        (2 * GIB, 1 * GIB, 1 * GIB),
        (100 * MIB, 512 * MIB, 0),
    ],
)
def test_the_disk_is_told_without_the_reserve(free: int, reserve: int, told: int) -> None:
    assert inventory.room(free, reserve) == told


def test_a_device_with_more_in_reserve_than_it_has_offers_none_of_it(tmp_path: Path) -> None:
    seen = inventory.look(tmp_path, {}, reserve=1 << 62)
    assert seen.disk_total_bytes > 0
    assert seen.disk_free_bytes == 0
