"""Telemetry is added up as it is stored: once, by what served, and without what says nothing of either version."""

from __future__ import annotations

from math import exp, inf, log, nan
from pathlib import Path
from typing import Any

import pytest

from edgewright_contract.v1 import telemetry_pb2
from edgewright_controller.gates import Slice
from edgewright_controller.ledger import Ledger, device_health, telemetry
from edgewright_controller.ledger.device_health import DAY_SLICES, SLICE_MS, Compared
from tests.controller.ledger_rows import EPOCH, OTHER_EPOCH, opened

DEVICE, OLD, NEW = "jetson-01", "a" * 64, "b" * 64
HOUR_MS = 6 * SLICE_MS
NOON = 20_000 * 24 * HOUR_MS + 12 * HOUR_MS
COMPARED = Compared(DEVICE, 7, NEW, OLD, NOON)


def near(value: float) -> Any:
    return pytest.approx(value)


def told(
    seq: int,
    *,
    generation: int = 7,
    artifact: str = NEW,
    device: str = DEVICE,
    epoch: bytes = EPOCH,
    **measured: float,
) -> telemetry_pb2.Envelope:
    """A window of telemetry with ten requests."""
    body = telemetry_pb2.Telemetry(**{"requests": 10, **measured})  # type: ignore[arg-type] # a table of mixed fields
    return telemetry_pb2.Envelope(
        schema=1,
        device_id=device,
        spool_epoch=epoch,
        seq=seq,
        generation=generation,
        artifact_digest=bytes.fromhex(artifact),
        telemetry=body,
    )


def store(ledger: Ledger, *envelopes: telemetry_pb2.Envelope, at: int = NOON) -> int:
    return ledger.write_now(lambda c: telemetry.store(c, [(one.device_id, one, at) for one in envelopes]))


def after(ledger: Ledger, now_ms: int = NOON + HOUR_MS) -> list[Slice]:
    return ledger.read_now(lambda c: device_health.after(c, [COMPARED], lambda _, hour: hour % 24, now_ms))[DEVICE]


def before(ledger: Ledger) -> list[Slice]:
    found = ledger.read_now(lambda c: device_health.before(c, [COMPARED], lambda _, hour: hour % 24))
    return sorted(found.get(DEVICE, []), key=lambda one: one.hour)


def test_windows_of_the_same_ten_minutes_are_added_up(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        store(ledger, told(1, errors=1, decode_tokens_per_s=exp(2)), told(2, decode_tokens_per_s=exp(4)))
        store(ledger, told(3, errors=2))
        store(ledger, told(4), at=NOON + SLICE_MS)
        assert after(ledger) == [Slice(12, 30, 3, 2, near(6), near(20)), Slice(12, 10, 0)]


def test_what_arrives_twice_is_counted_once(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        assert store(ledger, told(1), told(3), told(3)) == 2
        assert store(ledger, told(3), told(4), told(4), told(1, epoch=OTHER_EPOCH)) == 2, "3 was stored above a gap"
        assert store(ledger, told(2), told(3)) == 1
        assert store(ledger, told(1), told(4)) == 0, "below the mark"
        assert after(ledger) == [Slice(12, 50, 0)]
        assert ledger.read_now(telemetry.total) == 5


def test_a_window_that_says_nothing_of_one_version_is_left_out(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        store(ledger, told(1))
        kept = after(ledger)
        store(ledger, told(2, unsettled=True), told(3, requests=0), told(4, generation=0), told(5, artifact=""))
        store(ledger, told(6, artifact=OLD), told(7, generation=6), told(8, device="mac-01"))
        assert after(ledger) == kept == [Slice(12, 10, 0)]


def test_before_is_the_three_days_before_the_new_version_by_the_hour(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        old = {"generation": 6, "artifact": OLD}
        for seq, minutes_ago in enumerate((73 * 60, 71 * 60 + 30, 90, 70, 65, 20), 1):
            store(ledger, told(seq, **old, errors=seq), at=NOON - minutes_ago * 60_000)  # type: ignore[arg-type] # mixed fields
        store(ledger, told(7, generation=6), at=NOON - 60_000)
        store(ledger, told(8, generation=7, artifact=OLD), at=NOON + 60_000)
        assert before(ledger) == [Slice(10, 30, 12), Slice(11, 10, 6), Slice(12, 10, 2)]


@pytest.mark.parametrize("speed", [0.0, -1.0, inf, nan, 1e300])
def test_a_speed_that_is_none_is_left_out(tmp_path: Path, speed: float) -> None:
    with opened(tmp_path) as ledger:
        store(ledger, told(1, decode_tokens_per_s=20.0), told(2, decode_tokens_per_s=speed))
        assert after(ledger) == [Slice(12, 20, 0, 1, near(log(20)), near(log(20) ** 2))]


def test_a_device_that_counts_without_measure_does_not_keep_others_from_being_stored(tmp_path: Path) -> None:
    most = (1 << 64) - 1
    with opened(tmp_path) as ledger:
        mad = told(1, requests=most, errors=most, rejected=most, engine_restarts=(1 << 32) - 1)
        mad.generation = 7
        odd = told(2)
        odd.generation = most
        assert store(ledger, mad, odd, told(1, device="mac-01")) == 3
        assert after(ledger) == [Slice(12, 1_000_000, 1_000_000)]


def test_errors_of_requests_that_began_before_are_not_more_than_all(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        store(ledger, told(1, requests=0, errors=3))
        assert after(ledger) == [Slice(12, 3, 3)]


def test_what_is_old_is_forgotten_ten_minutes_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        for number in range(4):
            store(ledger, told(number + 1), at=NOON + number * SLICE_MS)
        limit = NOON + 2 * SLICE_MS
        pruned = [ledger.write_now(lambda c: device_health.prune(c, limit)) for _ in range(4)]
        assert pruned == [1, 1, 0, 0]
        assert len(after(ledger)) == 2


def test_after_is_of_the_last_day(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        store(ledger, told(1))
        store(ledger, told(2, errors=4), at=NOON + DAY_SLICES * SLICE_MS)
        assert after(ledger, NOON + (DAY_SLICES + 1) * SLICE_MS) == [Slice(12, 10, 4)]
