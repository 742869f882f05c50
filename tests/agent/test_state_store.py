from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgewright_agent.database import StateDamaged
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.lifecycle_state import Fault, Goal, Lifecycle, Outcome, Step
from edgewright_agent.state_store import KnownRelease, StateStore
from edgewright_contract.release import Probe, Release
from edgewright_contract.targets import ImageTarget

RELEASE = Release(
    model="smollm2",
    profile="jetson",
    runtime="gguf",
    artifact="a" * 64,
    accelerator="cpu",
    memory_bytes=1 << 28,
    options={"context": 1024, "flash": True},
    probes=(Probe("greets", "Hello", expect_regex="[a-z]"),),
)
TARGET = ImageTarget("model", "smollm2", "gguf-cpu", "gguf", "a" * 64, 300, "b" * 64, 70)
BUSY = Lifecycle(
    step=Step.DOWNLOADING,
    generation=7,
    release=RELEASE.digest,
    outcome=Outcome.IN_PROGRESS,
    fault=Fault.CANCELLED,
    reason="ü",
    wanted=RELEASE.digest,
    broken=Fault.ENGINE_FAILED,
    broken_reason="it dies",
    active="c" * 64,
    previous="d" * 64,
    held=("e" * 64,),
    pending=Goal(8, "f" * 64, 60.0),
    paused=True,
    attempts=2,
    sequence=41,
)


def test_a_new_device_starts_with_nothing(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "agent.sqlite")
    assert store.load() == Lifecycle()
    assert store.known("a" * 64) is None


def test_what_was_saved_is_there_after_opening_again(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "agent.sqlite")
    store.save(BUSY, KnownRelease(RELEASE, TARGET))
    store.close()
    again = StateStore(tmp_path / "agent.sqlite")
    assert again.load() == BUSY
    assert again.known(RELEASE.digest) == KnownRelease(RELEASE, TARGET)


def test_times_of_the_last_boot_are_not_taken_over(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "agent.sqlite")
    store.save(replace(BUSY, deadline=5.0, stalls_at=6.0, retry_at=7.0))
    assert store.load() == replace(BUSY, retry_at=0.0)


def test_releases_that_nothing_names_are_forgotten(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "agent.sqlite")
    store.save(BUSY, KnownRelease(RELEASE, TARGET))
    store.forget_unused()
    assert store.known(RELEASE.digest) is not None
    pending = Goal(8, RELEASE.digest)
    store.save(replace(BUSY, release="", wanted="", pending=pending))
    store.forget_unused()
    assert store.known(RELEASE.digest) is not None
    store.save(replace(BUSY, release="", wanted=""))
    store.forget_unused()
    assert store.known(RELEASE.digest) is None


@pytest.mark.parametrize("document", ["{", '{"step": 99, "outcome": 0, "fault": 0, "retries": false}', "[]"])
def test_a_damaged_row_is_reported_and_not_taken_for_a_new_device(tmp_path: Path, document: str) -> None:
    store = StateStore(tmp_path / "agent.sqlite")
    store.save(BUSY)
    assert store.load() == BUSY
    other = sqlite3.connect(tmp_path / "agent.sqlite")
    other.execute("UPDATE lifecycle SET document = ?", (document,))
    other.commit()
    with pytest.raises(StateDamaged, match=r"agent\.sqlite"):
        store.load()


def test_a_file_that_is_no_database_is_reported(tmp_path: Path) -> None:
    (tmp_path / "agent.sqlite").write_bytes(b"rubbish" * 1000)
    with pytest.raises(StateDamaged, match=r"agent\.sqlite: .*enrol"):
        StateStore(tmp_path / "agent.sqlite")


_WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
from edgewright_agent.lifecycle_state import Lifecycle
from edgewright_agent.state_store import StateStore
store, state = StateStore(Path(sys.argv[1])), Lifecycle()
while True:
    state = replace(state, sequence=state.sequence + 1)
    store.save(state)
    print(state.sequence, flush=True)
"""


def test_sigkill_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    file, least = tmp_path / "agent.sqlite", 0
    for round_ in range(5):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(file)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(3 + 7 * round_):
            least = int(writer.stdout.readline())
        os.kill(writer.pid, signal.SIGKILL)
        least = max([least, *(int(line) for line in writer.stdout.read().split("\n")[:-1])])
        writer.wait(10)
        store = StateStore(file)
        assert store.load().sequence >= least
        store.close()


def test_the_journal_remembers_blocks_by_bundle_and_index(tmp_path: Path) -> None:
    journal = DownloadJournal(tmp_path / "agent.sqlite")
    assert journal.done("a" * 64, "b" * 64) == set()
    journal.record("a" * 64, "b" * 64, {0, 7, 8, 1000})
    journal.close()
    journal = DownloadJournal(tmp_path / "agent.sqlite")
    assert journal.done("a" * 64, "b" * 64) == {0, 7, 8, 1000}
    assert journal.done("a" * 64, "c" * 64) == set()  # cut differently: the numbers mean other bytes
    journal.record("a" * 64, "b" * 64, [])
    assert journal.done("a" * 64, "b" * 64) == set()
    journal.record("a" * 64, "b" * 64, [1])
    journal.clear("a" * 64)
    assert journal.done("a" * 64, "b" * 64) == set()


def test_a_document_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    StateStore(tmp_path / "agent.sqlite").save(BUSY)
    row = sqlite3.connect(tmp_path / "agent.sqlite").execute("SELECT document FROM lifecycle").fetchone()
    assert json.loads(row[0])["generation"] == 7


def test_a_bit_that_changed_in_a_row_is_noticed(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "agent.sqlite")
    store.save(BUSY, KnownRelease(RELEASE, TARGET))
    other = sqlite3.connect(tmp_path / "agent.sqlite", isolation_level=None)
    for table, column, was, became in (
        ("lifecycle", "document", '"generation": 7', '"generation": 5'),
        ("lifecycle", "document", '"sha256"', '"sha257"'),
        ("releases", "release", '"context":1024', '"context":1025'),
        ("releases", "target", '"release_epoch": 0', '"release_epoch": 4'),
    ):
        (whole,) = other.execute(f"SELECT {column} FROM {table}").fetchone()
        assert was in whole
        other.execute(f"UPDATE {table} SET {column} = ?", (whole.replace(was, became),))
        with pytest.raises(StateDamaged, match="enrol again"):
            store.load() if table == "lifecycle" else store.known(RELEASE.digest)
        other.execute(f"UPDATE {table} SET {column} = ?", (whole,))
    assert (store.load(), store.known(RELEASE.digest)) == (BUSY, KnownRelease(RELEASE, TARGET))


def test_a_journal_of_another_kind_counts_for_nothing(tmp_path: Path) -> None:
    journal = DownloadJournal(tmp_path / "agent.sqlite")
    journal.record("a" * 64, "b" * 64, {1})
    other = sqlite3.connect(tmp_path / "agent.sqlite", isolation_level=None)
    other.execute("DROP TABLE download_blocks")
    other.execute("CREATE TABLE download_blocks (bundle, block_index, done)")
    other.execute("INSERT INTO download_blocks VALUES (?, ?, 17)", ("a" * 64, "b" * 64))
    assert journal.done("a" * 64, "b" * 64) == set()
