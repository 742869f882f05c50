"""kill -9 of a process that writes: nothing that was acknowledged is lost, nothing is half there."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

from edgewright_controller.ledger import Ledger, devices
from tests.controller import ledger_crash_child

CHILD = Path(ledger_crash_child.__file__)


def _until_killed(path: Path, prefix: str, lines: int) -> set[str]:
    """What the child acknowledged before it was killed, which is once it has said `lines` lines."""
    with subprocess.Popen([sys.executable, str(CHILD), str(path), prefix], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(lines)]
        child.kill()
        said += child.stdout.readlines()
        child.wait(10)
    # The last line may have been cut; a whole one was acknowledged.
    return {line.strip() for line in said if line.endswith("\n")}


def test_killed_at_any_moment_nothing_acknowledged_is_lost(tmp_path: Path, soak: int) -> None:
    path, acknowledged, chance = tmp_path / "ledger.sqlite", set[str](), random.Random(4)
    for kill in range(6 * soak):
        fresh = _until_killed(path, f"k{kill}", chance.randint(1, 120))
        assert fresh, "the child must have written something for the kill to mean anything"
        acknowledged |= fresh
        ledger = Ledger.open(path)
        try:
            there = {row.id for row in ledger.read_now(devices.every)}
            given = set(ledger.read_now(devices.desired))
            sound = ledger.read_now(lambda c: c.exec_driver_sql("PRAGMA integrity_check").scalar())
        finally:
            ledger.close()
        assert acknowledged <= there, f"lost after kill {kill}"
        assert there == given, "a write is there as a whole or not at all"
        assert sound == "ok"
