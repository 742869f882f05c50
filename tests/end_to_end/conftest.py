"""A real fleet of one device for the end-to-end tests: the controller, its broker and an agent as separate processes.

The same code starts them as starts the demo, so these tests have no other way in than an operator has.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright_controller.client import Fleet
from edgewright_controller.demo.fleet import DemoFleet
from tests.end_to_end.room import Room


@pytest.fixture(scope="module")
def room(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Room]:
    """A started fleet whose one device serves the small model."""
    folder = tmp_path_factory.mktemp("fleet")
    started = DemoFleet(folder, {"jetson-01": "gguf"})
    try:
        started.start()
        with Fleet(started.access) as fleet:
            made = Room(started, fleet, demo_model)
            first = made.apply(made.manifest())
            assert first.succeeded, first.summary
            yield made
    finally:
        started.stop()
