"""One device for all of these tests: to make it takes an enrolment and two updates.

What is recorded, and disks of their own, are Linux's. Elsewhere these tests are left out, in plain sight.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.power.device import Ground
from tests.power.room import room

collect_ignore = [] if sys.platform == "linux" else ["test_disk.py", "test_power_cuts.py", "test_full_disks.py"]


def pytest_report_header() -> str:
    """Say what is left out, at the top of the report."""
    return f"left out, for they need Linux: {', '.join(collect_ignore)}" if collect_ignore else ""


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    with room() as folder:
        made = Ground(folder)
        yield made
        made.close()
