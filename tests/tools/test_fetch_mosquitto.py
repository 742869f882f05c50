from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.agent.real_mosquitto import ROOT
from tools.fetch_mosquitto import installed_broker, runs

TOOL = ROOT / "tools" / "fetch_mosquitto.py"


def fetch(folder: Path, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, TOOL, folder], env={"PATH": path}, capture_output=True, text=True, timeout=120, check=False
    )


def test_what_is_there_already_is_named_and_left_alone() -> None:
    program = installed_broker() or ROOT / ".tools/mosquitto/usr/sbin/mosquitto"
    assert program.exists(), "run `make mosquitto`"
    before = program.stat().st_mtime_ns
    again = fetch(ROOT / ".tools", os.environ["PATH"])
    assert (again.returncode, again.stdout) == (0, f"mosquitto: {program}\n")
    assert program.stat().st_mtime_ns == before


def test_an_installed_broker_is_preferred_to_fetching(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "mosquitto"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = fetch(tmp_path / "tools", str(program.parent))
    assert (found.returncode, found.stdout) == (0, f"mosquitto: {program}\n")
    assert not (tmp_path / "tools").exists()


def test_where_packages_cannot_be_fetched_one_line_says_how_to_install_it(tmp_path: Path) -> None:
    if installed_broker():
        assert fetch(tmp_path / "tools", str(tmp_path)).returncode == 0
        return
    missing = fetch(tmp_path / "tools", str(tmp_path))
    assert missing.returncode == 1
    assert missing.stdout == ""
    assert len(missing.stderr.splitlines()) == 1
    assert "brew install mosquitto" in missing.stderr


def test_an_unpacked_broker_that_misses_a_library_does_not_count_as_running(tmp_path: Path) -> None:
    assert not runs(tmp_path)
    if not installed_broker():
        home = ROOT / ".tools/mosquitto"
        assert runs(home)
        program = tmp_path / "usr/sbin/mosquitto"
        program.parent.mkdir(parents=True)
        program.symlink_to(home / "usr/sbin/mosquitto")
        assert not runs(tmp_path)
