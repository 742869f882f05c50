from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright_agent.outbox.spool import Spool, SpoolFailed, SpoolLimits
from edgewright_contract import envelope
from edgewright_contract.envelope import EnvelopeRefused
from edgewright_contract.v1 import telemetry_pb2


def said(body: str, wall_ms: int = 1_000, synced: bool = True, pad: int = 0) -> telemetry_pb2.Envelope:
    message = telemetry_pb2.Envelope(
        schema=1, device_id="d-1", boot_id=b"b" * 16, wall_ms=wall_ms, clock_synced=synced, session=1
    )
    if body == "telemetry":
        message.telemetry.requests = 1
        message.telemetry.model = "m" * min(pad, 256)
    elif body == "event":
        message.event.detail = "x" * pad
    else:
        message.update.reason = "x" * pad
    return message


def parsed(spool: Spool, seq: int) -> telemetry_pb2.Envelope:
    stored = spool.get(seq)
    assert stored is not None
    return telemetry_pb2.Envelope.FromString(stored.payload)


def test_numbers_rise_by_one_and_go_on_after_a_restart(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.sqlite")
    assert spool.add([said("telemetry"), said("event")]) == [1, 2]
    epoch = spool.epoch
    spool.close()
    spool = Spool.open(tmp_path / "spool.sqlite")
    assert spool.epoch == epoch
    assert spool.add([said("event")]) == [3]
    assert parsed(spool, 3).seq == 3
    assert parsed(spool, 3).spool_epoch == epoch
    assert spool.depth() == 3


def test_a_number_is_not_used_again_after_everything_was_stored(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.sqlite")
    spool.add([said("event")] * 3)
    spool.settle(3)
    spool.close()
    spool = Spool.open(tmp_path / "spool.sqlite")
    assert (spool.depth(), spool.settled) == (0, 3)
    assert spool.add([said("event")]) == [4]
    assert parsed(spool, 4).dropped_before == 0


def test_a_watermark_from_the_future_or_the_past_does_no_harm(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.sqlite")
    spool.add([said("event")] * 3)
    spool.settle(2)
    spool.settle(1)
    assert spool.after(0, 10) == [3]
    assert spool.settled == 2
    spool.settle(1_000)
    assert spool.settled == 3
    assert spool.add([said("event")]) == [4]
    assert spool.after(0, 10) == [4]


def test_sessions_rise_across_restarts_and_over_what_was_used_unsaved(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.sqlite")
    assert [spool.next_session(), spool.next_session()] == [1, 2]
    spool.close()
    spool = Spool.open(tmp_path / "spool.sqlite")
    assert spool.next_session() == 3
    assert spool.next_session(used=9) == 10
    assert spool.next_session() == 11


def test_a_full_spool_drops_old_telemetry_first_and_events_last(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.sqlite", SpoolLimits(max_bytes=400_000))
    spool.add([said("event", pad=200)] * 5 + [said("update", pad=200)] * 5)
    for _ in range(60):
        spool.add([said("telemetry", pad=200)] * 50)
    assert spool.used_bytes() <= 400_000
    left = spool.after(0, 10_000)
    assert left[:10] == list(range(1, 11)), "what is worth more than telemetry stays"
    assert left[-1] == 3010, "the newest stays"
    for _ in range(20):
        spool.add([said("event", pad=1900)] * 20)
    assert spool.used_bytes() <= 400_000
    leaves = [parsed(spool, seq).WhichOneof("body") for seq in spool.after(0, 10_000)]
    assert set(leaves) == {"event"}
    assert spool.add([said("event")]) == [3411]


def test_what_was_dropped_is_told_by_the_next_that_is_left(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.sqlite", SpoolLimits(max_age_s=100))
    spool.add([said("event", 500_000), said("telemetry", 1_000), said("telemetry", 2_000), said("event", 500_000)])
    assert parsed(spool, 4).dropped_before == 0
    spool.expire(now_ms=500_000)
    assert spool.after(0, 10) == [1, 4]
    assert parsed(spool, 4).dropped_before == 2
    assert parsed(spool, 1).dropped_before == 0
    spool.settle(1)
    assert parsed(spool, 4).dropped_before == 2


def test_numbers_lost_before_they_could_be_saved_are_told_too(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.sqlite")
    assert spool.add([said("event")]) == [1]
    assert spool.add([said("event")], lost=5) == [7]
    assert parsed(spool, 7).dropped_before == 5


def test_rows_made_by_an_unsynchronised_clock_do_not_grow_old(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.sqlite", SpoolLimits(max_age_s=100))
    spool.add([said("event", 1_000), said("event", 1_000, synced=False)])
    spool.expire(now_ms=10_000_000)
    assert spool.after(0, 10) == [2]


def test_what_the_controller_would_refuse_is_never_saved(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool.sqlite")
    with pytest.raises(EnvelopeRefused):
        spool.add([said("event"), said("event", pad=envelope.MAX_TEXT_BYTES + 1)])
    assert spool.depth() == 0
    assert spool.add([said("event")]) == [1]


@pytest.mark.parametrize("damage", [b"rubbish" * 1000, b""])
def test_a_file_that_is_no_spool_is_put_aside_for_a_new_epoch(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "spool.sqlite"
    spool = Spool.open(path)
    spool.add([said("event")])
    old = spool.epoch
    spool.close()
    path.write_bytes(damage)
    spool = Spool.open(path)
    assert spool.epoch != old
    assert spool.add([said("event")]) == [1]


def test_pages_overwritten_in_the_middle_are_noticed_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    spool = Spool.open(path)
    old = spool.epoch
    spool.add([said("event", pad=1500)] * 50)
    spool.close()
    data = bytearray(path.read_bytes())
    data[8192:16384] = os.urandom(8192)
    path.write_bytes(data)
    spool = Spool.open(path)
    assert spool.epoch != old
    assert path.with_name("spool.sqlite.broken").exists()


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(SpoolFailed, match="missing"):
        Spool.open(tmp_path / "missing" / "spool.sqlite")


def test_a_full_disk_is_said_so_and_the_spool_goes_on_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "spool.sqlite"
    spool = Spool.open(path)
    spool.add([said("event")])
    spool._database.execute(f"PRAGMA max_page_count={spool.used_bytes() // 4096 + 1}")
    with pytest.raises(SpoolFailed, match="full"):
        spool.add([said("event", pad=1900)] * 100)
    spool._database.execute("PRAGMA max_page_count=1000000")
    assert spool.add([said("event")]) == [2], "a refused batch uses no number"


_WRITER = """
import sys
from pathlib import Path
from edgewright_agent.outbox.spool import Spool
from tests.agent.test_spool import said
spool = Spool.open(Path(sys.argv[1]))
while True:
    print(spool.add([said("event", pad=500)] * 3)[-1], flush=True)
"""


def test_nothing_that_was_saved_is_lost_by_a_kill(tmp_path: Path, soak: int) -> None:
    path, highest = tmp_path / "spool.sqlite", 0
    for turn in range(5 * soak):
        writer = subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        for _ in range(turn % 7 + 1):
            highest = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        for line in writer.stdout:
            highest = int(line) if line.endswith(b"\n") else highest
        writer.stdout.close()
        spool = Spool.open(path)
        seqs = spool.after(0, 1_000_000)
        assert seqs == list(range(1, len(seqs) + 1))
        assert len(seqs) >= highest
        spool.close()
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
