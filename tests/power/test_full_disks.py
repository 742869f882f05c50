"""A disk that is full, by a little or by all: what serves goes on serving, says why, and goes on with room again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.power import full_disk

SOAK = bool(os.environ.get("EDGEWRIGHT_SOAK"))


@pytest.mark.timeout(3600 if SOAK else 600)
def test_a_device_without_room_serves_says_so_and_goes_on_when_there_is_some(tmp_path: Path) -> None:
    positions = full_disk.positions(100) if SOAK else [("start", 0), ("blocks", 0)]
    found = full_disk.run(tmp_path, positions, soon=not SOAK)
    assert [(one.kind, one.free) for one in found] == positions
    assert [one.lost for one in found if one.lost] == []
    assert all(one.answers for one in found)
    # Where there was room all the same, nothing was shown.
    assert sum(bool(one.told) for one in found) >= (50 if SOAK else len(positions))
