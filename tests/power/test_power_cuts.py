"""An update that ends at any moment, with the process or with the power: a verified version serves, and it goes on.

The moments are not a list that somebody made: one whole update is recorded, and each of its acts on the disk is one.
`make test` takes some of them, `make soak` all, and benchmarks/delivery_crash.py counts them.
"""

from __future__ import annotations

import os
import random

import pytest

from tests.power import crashes
from tests.power.crashes import Update
from tests.power.device import Ground
from tests.power.disk import Loss
from tests.power.recording import Kind

SOAK = bool(os.environ.get("EDGEWRIGHT_SOAK"))
pytestmark = pytest.mark.timeout(3600 if SOAK else 600)
LOSSES = (Loss.ALL, Loss.DATA, Loss.EMPTY, Loss.NAMES, Loss.SOME)


@pytest.fixture(scope="module")
def update(ground: Ground) -> Update:
    return crashes.record(ground)


def test_the_record_has_all_that_an_update_does(ground: Ground, update: Update) -> None:
    assert len(update.points) >= 60
    done = [(act.kind, act.path, act.other) for act in update.acts]
    new, old = f"artifacts/{ground.new}", f"artifacts/{ground.first}"
    for expected in (
        (Kind.CREATE, "agent.sqlite-wal", ""),
        (Kind.CREATE, "spool.sqlite-wal", ""),
        (Kind.MKDIR, f"partial/{ground.new}/files", ""),
        (Kind.LINK, f"artifacts/{ground.old}/tokenizer.json", f"partial/{ground.new}/files/tokenizer.json"),
        (Kind.CREATE, f"partial/{ground.new}/files/model.gguf", ""),
        (Kind.RENAME, f"partial/{ground.new}/files", new),
        (Kind.RENAME, old, f"artifacts/.removed-{ground.first}"),
        (Kind.UNLINK, f"{old}.bundle", ""),
        (Kind.UNLINK, "agent.sqlite-wal", ""),
    ):
        assert expected in done
    assert {act.kind for act in update.acts} >= {Kind.SYNC, Kind.WRITE, Kind.RESIZE, Kind.CHMOD, Kind.RMDIR}


def test_every_disk_that_a_loss_of_power_may_leave_has_a_version_to_serve(ground: Ground, update: Update) -> None:
    looked, lost = crashes.seen(ground, update, LOSSES, update.points[:: 1 if SOAK else 23])
    assert lost == []
    assert looked >= 50


@pytest.mark.parametrize("batch", range(20 if SOAK else 1))
def test_an_agent_that_is_killed_before_any_act_serves_and_ends_the_update(
    ground: Ground, update: Update, batch: int
) -> None:
    """In `make soak`: at every point in turn, and a thousand times at random."""
    chance = random.Random(batch)
    points = [chance.choice(update.points)]
    if SOAK:
        points = [*update.points[batch::20], *(chance.randrange(len(update.acts)) for _ in range(50))]
    for point in points:
        device = crashes.killed(ground, "killed", point)
        assert device is not None or point > len(update.acts) - 40, f"no act {point} in this update"
        if device is not None:
            device.survives()


@pytest.mark.parametrize("batch", range(len(LOSSES) if SOAK else 1))
def test_a_device_that_loses_its_power_before_any_act_serves_and_ends_the_update(
    ground: Ground, update: Update, batch: int
) -> None:
    for number, point in enumerate(
        update.points if SOAK else [update.points[-1], random.Random(6).choice(update.points)]
    ):
        loss = LOSSES[(number + batch) % len(LOSSES)]
        crashes.unplugged(ground, update, "unplugged", point, loss).survives()
