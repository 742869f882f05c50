"""The recorder and the disk find what they are made for: writers that a loss of power would catch."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.power import recording
from tests.power.disk import Disk, Loss, tree
from tests.power.recording import Act, Kind

OLD, NEW = b"old " * 300, b"new " * 500
HEAD = "import os, sqlite3, sys\nfrom pathlib import Path\nplace = Path(sys.argv[1])\n"
CARELESS = "(place / 'new').write_bytes(b'new ' * 500)\nos.replace(place / 'new', place / 'file')\n"
CAREFUL = "from edgewright_contract import durable\ndurable.write(place / 'file', b'new ' * 500)\n"
SQLITE = """
base = sqlite3.connect(place / "base.sqlite", isolation_level=None)
base.execute("PRAGMA journal_mode=WAL")
base.execute("PRAGMA synchronous={level}")
base.execute("CREATE TABLE t (n INTEGER)")
for n in range(5):
    base.execute("INSERT INTO t VALUES (?)", (n,))
    (place / f"done-{n}").touch()
os._exit(0)
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "place"
    made.mkdir()
    (made / "file").write_bytes(OLD)
    return made


def recorded(place: Path, program: str, crash_at: int | None = None) -> tuple[Disk, list[Act], int]:
    """The disk before, the acts of a program, and its exit code."""
    before, record = Disk(place), place.parent / "record"
    record.unlink(missing_ok=True)
    command = [sys.executable, "-c", HEAD + program, str(place)]
    code = subprocess.run(command, env=recording.environment(place, record, crash_at), check=False).returncode
    return before, recording.read(record, place), code


def outcomes(place: Path, program: str) -> set[bytes]:
    """What may stand in `file` after a loss of power at any moment of the program, in any way."""
    disk, acts, code = recorded(place, program)
    assert code == 0
    found = set()
    for number, act in enumerate([*acts, None]):
        for loss in Loss:
            for seed in range(3):
                left = place.parent / f"left-{number}-{loss.name}-{seed}"
                disk.write(left, loss, seed)
                found.add((left / "file").read_bytes())
        if act is not None:
            disk.do(act)
    return found


def test_a_rename_without_a_sync_is_found_to_lose_the_file(place: Path) -> None:
    found = outcomes(place, CARELESS)
    assert {OLD, NEW, b"", bytes(len(NEW))} <= found


def test_the_write_rule_leaves_the_old_bytes_or_the_new_ones(place: Path) -> None:
    assert outcomes(place, CAREFUL) == {OLD, NEW}


@pytest.mark.parametrize(("level", "loses"), [("FULL", False), ("OFF", True)])
def test_a_commit_of_sqlite_survives_only_when_it_was_synced(place: Path, level: str, loses: bool) -> None:
    import sqlite3

    disk, acts, _code = recorded(place, SQLITE.replace("{level}", level))
    lost = []
    for number, act in enumerate(acts):
        disk.do(act)
        committed = act.path.removeprefix("done-") if act.kind is Kind.CREATE and "done-" in act.path else ""
        if committed:
            left = place.parent / f"left-{number}"
            disk.write(left, Loss.ALL)
            try:
                rows = [row[0] for row in sqlite3.connect(left / "base.sqlite").execute("SELECT n FROM t")]
            except sqlite3.DatabaseError:
                rows = []
            lost += [committed] if rows != list(range(int(committed) + 1)) else []
    assert bool(lost) is loses, lost


def test_a_crash_comes_exactly_before_the_act_that_was_named(place: Path) -> None:
    _before, whole, _code = recorded(place, CAREFUL)
    for point in range(len(whole)):
        (place / "file").write_bytes(OLD)
        for leftover in place.glob(".file*"):
            leftover.unlink()
        before, acts, code = recorded(place, CAREFUL, crash_at=point)
        assert (code, len(acts)) == (-signal.SIGKILL, point)
        for act in acts:
            before.do(act)
        before.write(place.parent / f"after-{point}", Loss.NOTHING)
        assert tree(place.parent / f"after-{point}") == tree(place)
    assert {act.kind for act in whole} >= {Kind.CREATE, Kind.WRITE, Kind.SYNC, Kind.RENAME}


def test_links_folders_and_names_that_are_used_again_are_followed(place: Path) -> None:
    program = """
(place / "a" / "b").mkdir(parents=True)
os.link(place / "file", place / "a" / "b" / "other")
os.symlink("b/other", place / "a" / "soft")
with open(place / "a" / "b" / "other", "r+b") as file:
    file.seek(5)
    file.write(b"here")
    file.truncate(100)
(place / "a" / "b" / "other").chmod(0o400)
handle = os.open(place / "a", os.O_RDONLY)
os.rename("b", "c", src_dir_fd=handle, dst_dir_fd=handle)
(place / "file").unlink()
(place / "file").write_bytes(b"another")
(place / "gone").mkdir()
(place / "gone").rmdir()
handle = os.open(place / "file", os.O_RDWR | os.O_APPEND)
os.write(handle, b" one")
os.posix_fallocate(handle, 0, 5000)
os.sendfile(handle := os.open(place / "copy", os.O_RDWR | os.O_CREAT), os.open(place / "file", os.O_RDONLY), 0, 4000)
os.copy_file_range(os.open(place / "file", os.O_RDONLY), handle, 11, 0, 9000)
"""
    disk, acts, code = recorded(place, program)
    assert code == 0
    for act in acts:
        disk.do(act)
    disk.write(place.parent / "left", Loss.NOTHING)
    assert tree(place.parent / "left") == tree(place)
    assert (place / "a" / "c" / "other").stat().st_nlink == 1
    assert len(acts) > 15
