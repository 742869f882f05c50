"""What an engine says, kept within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_agent.engines import child_log
from edgewright_agent.engines.child_log import ChildLog


def test_the_last_lines_are_kept_also_an_unfinished_one(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "logs" / "e.log")
    log.write(b"".join(b"line %d\n" % number for number in range(100)) + b"unfinis")
    log.write(b"hed")
    assert log.last_lines()[-2:] == ("line 99", "unfinished")
    assert len(log.last_lines()) == child_log.LAST_LINES
    assert log.path.read_bytes().endswith(b"line 99\nunfinished")


def test_the_files_stay_within_two_times_the_bound(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "e.log")
    for _ in range(50):
        log.write(b"x" * 99_999 + b"\n")
    files = list(tmp_path.iterdir())
    assert sorted(file.name for file in files) == ["e.log", "e.log.1"]
    assert sum(file.stat().st_size for file in files) <= 2 * child_log.MAX_FILE_BYTES


def test_a_line_without_end_takes_no_memory_without_end(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "e.log")
    for _ in range(200):
        log.write(b"x" * 65_536)
    assert len(log.last_lines()) == 1
    assert len(log.last_lines()[0]) <= 500


def test_a_log_that_cannot_be_written_keeps_the_last_lines(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "e.log")
    log.path.mkdir()  # whatever is in the way
    log.write(b"hello\n")
    assert log.last_lines() == ("hello",)
    assert log.lost_bytes == 6


@pytest.mark.parametrize("raw", [b"\xff\xfe\n", b"\x00\n"])
def test_bytes_that_are_no_text_are_shown_somehow(tmp_path: Path, raw: bytes) -> None:
    log = ChildLog(tmp_path / "e.log")
    log.write(raw)
    assert len(log.last_lines()) == 1


def test_the_secret_between_agent_and_engine_is_not_in_the_lines(tmp_path: Path) -> None:
    log = ChildLog(tmp_path / "e.log", "s3cr3t")
    log.write(b"begun\nenvironment: EDGEWRIGHT_ENGINE_SECRET=s3c")
    log.write(b"r3t, HOME=/\nand s3cr3t")
    assert log.last_lines() == ("begun", "environment: EDGEWRIGHT_ENGINE_SECRET=[hidden], HOME=/", "and [hidden]")
