"""Crashes of a device in the middle of an update, at points that one whole update has shown to be there.

By SIGKILL, in a process that is ended exactly before an act; or by a loss of power, on a disk that is made from the
record, with what was not synced lost in one way or another.
"""

from __future__ import annotations

import copy
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.power import recording
from tests.power.device import Device, Ground, look
from tests.power.disk import Disk, Loss, tree
from tests.power.recording import Act, Kind

# What a process writes there is no part of what it must not forget: SQLite's index, which goes with the last process.
_INDEX: Final = "-shm"


@dataclass(frozen=True)
class Update:
    """One whole update, from the agent's start to its end, as it was recorded."""

    before: Disk
    acts: Sequence[Act]
    points: Sequence[int]  # the numbers of acts before which a crash is of its own kind

    def said(self) -> str:
        """How many points there are, by what is done there."""
        counted = Counter(self.acts[point].kind.name.lower() for point in self.points)
        return ", ".join(f"{number} {kind}" for kind, number in counted.most_common())

    def cut(self, into: Path, point: int, loss: Loss) -> None:
        """Make the disk as it is when the power is lost right before act `point`."""
        disk = copy.deepcopy(self.before)
        for act in self.acts[:point]:
            disk.do(act)
        disk.write(into, loss, point)

    def disks(self, into: Path, losses: Sequence[Loss], points: Sequence[int]) -> Iterator[tuple[int, Loss]]:
        """The same at each of these points, in each of these ways, one after the other in the folder `into`."""
        disk, wanted = copy.deepcopy(self.before), set(points)
        for number, act in enumerate(self.acts):
            if number in wanted:
                for loss in losses:
                    disk.write(into, loss, number)
                    yield number, loss
                    shutil.rmtree(into)
            disk.do(act)


def record(ground: Ground) -> Update:
    """Run an update to its end. Raises AssertionError when something was done to the disk that the record has not."""
    device, acts = ground.device("recorded"), ground.folder / "record"
    acts.unlink(missing_ok=True)
    before = Disk(device.state)
    device.start(recording.environment(device.state, acts))
    with device.ending():
        device.ready()
        device.updated()
        device.end()
    found = recording.read(acts, device.state)
    after, replayed = copy.deepcopy(before), ground.folder / "replayed"
    for act in found:
        after.do(act)
    after.write(replayed, Loss.NOTHING)
    expected, got = tree(device.state), tree(replayed)
    for path in expected.keys() | got.keys():
        assert got.get(path) == expected.get(path), f"{path}: changed in a way that recorder.c does not see"
    return Update(before, found, _points(found))


def _points(acts: Sequence[Act]) -> list[int]:
    """All but failures, writes to SQLite's index, and of writes in a row to one file all but the second and the last.

    A commit is such a row: header and page, header and page… Before the second, it is torn; before the last, nearly
    whole.
    """
    index = {act.inode for act in acts if act.kind is Kind.CREATE and act.path.endswith(_INDEX)}
    told = [n for n, act in enumerate(acts) if act.kind is not Kind.NOTHING and act.inode not in index]
    points = []
    for place, number in enumerate(told):
        around = [acts[n] for n in told[max(place - 2, 0) : place + 2]]
        in_a_row = [act.kind is Kind.WRITE and act.inode == acts[number].inode for act in around]
        within = acts[number].kind is Kind.WRITE and len(in_a_row) == 4 and all(in_a_row)
        if not within:
            points.append(number)
    return points


def killed(ground: Ground, name: str, point: int) -> Device | None:
    """A device whose agent got SIGKILL right before its act `point`; None when this update took fewer acts."""
    device = ground.device(name)
    device.start(recording.environment(device.state, device.folder / "record", point))
    with device.ending():
        if device.updated_or_ended():
            device.end()
    return device if device.ended() == -signal.SIGKILL else None


def unplugged(ground: Ground, update: Update, name: str, point: int, loss: Loss) -> Device:
    """A device whose power was lost right before the recorded act `point`."""
    device = ground.device(name)
    shutil.rmtree(device.state)
    update.cut(device.state, point, loss)
    return device


def seen(ground: Ground, update: Update, losses: Sequence[Loss], points: Sequence[int]) -> tuple[int, list[str]]:
    """How many disks were looked at, and what a device that starts on one of them would have lost."""
    looked, lost = 0, list[str]()
    for point, loss in update.disks(ground.folder / "seen", losses, points):
        looked += 1
        for what in look(ground.folder / "seen", ground):
            lost.append(f"before act {point} ({update.acts[point]}), {loss.value}: {what}")
    return looked, lost
