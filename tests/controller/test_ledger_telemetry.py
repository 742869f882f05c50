"""Telemetry is stored once, and the mark passes a number only when nothing before it is missing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright_contract.v1 import telemetry_pb2
from edgewright_controller.ledger import Ledger, devices, telemetry
from tests.controller.ledger_rows import EPOCH, OTHER_EPOCH, envelope, fill, opened

DEVICE = "jetson-01"


def store(ledger: Ledger, envelopes: Iterable[telemetry_pb2.Envelope], at: int = 1000) -> int:
    batch = [(one.device_id, one, at) for one in envelopes]
    return ledger.write_now(lambda c: telemetry.store(c, batch))


def mark(ledger: Ledger, epoch: bytes = EPOCH) -> int:
    return ledger.read_now(lambda c: telemetry.stored_sequence(c, DEVICE, epoch))


def test_what_arrives_twice_is_stored_once(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        assert store(ledger, [envelope(DEVICE, 1), envelope(DEVICE, 2), envelope(DEVICE, 2)]) == 2
        assert store(ledger, [envelope(DEVICE, 2), envelope(DEVICE, 3)]) == 1
        assert store(ledger, [envelope("mac-01", 2), envelope(DEVICE, 2, epoch=OTHER_EPOCH)]) == 2
        assert ledger.read_now(telemetry.total) == 5


def test_the_mark_stops_at_a_gap_until_it_is_filled(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        store(ledger, [envelope(DEVICE, seq) for seq in (1, 2, 4, 5)])
        assert mark(ledger) == 2
        store(ledger, [envelope(DEVICE, 3)])
        assert mark(ledger) == 5
        assert mark(ledger, OTHER_EPOCH) == 0


def test_the_mark_passes_a_gap_that_the_device_says_it_dropped(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        store(ledger, [envelope(DEVICE, 1), envelope(DEVICE, 6, dropped=3)])
        assert mark(ledger) == 1, "number 2 is still to come"
        store(ledger, [envelope(DEVICE, 2)])
        assert mark(ledger) == 6


def test_an_envelope_sent_again_may_know_of_more_drops(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        store(ledger, [envelope(DEVICE, 1), envelope(DEVICE, 5)])
        assert mark(ledger) == 1
        store(ledger, [envelope(DEVICE, 5, dropped=3)])
        assert mark(ledger) == 5


def test_a_long_backlog_is_walked_to_its_end(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        store(ledger, [envelope(DEVICE, seq) for seq in range(2, 2502)])
        assert mark(ledger) == 0
        store(ledger, [envelope(DEVICE, 1)])
        assert mark(ledger) == 2501


def test_wills_have_no_number_and_are_left_out(tmp_path: Path) -> None:
    will = telemetry_pb2.Envelope(schema=1, device_id=DEVICE, spool_epoch=EPOCH, death=telemetry_pb2.Death())
    with opened(tmp_path) as ledger:
        assert store(ledger, [will]) == 0
        assert store(ledger, []) == 0


def test_the_latest_is_the_newest_not_the_last_to_arrive(tmp_path: Path) -> None:
    def latest() -> int:
        return ledger.read_now(telemetry.latest)[DEVICE].telemetry.requests

    with opened(tmp_path) as ledger:
        store(ledger, [envelope(DEVICE, 9, requests=90)], at=1000)
        store(ledger, [envelope(DEVICE, 3, requests=30)], at=2000)
        assert latest() == 90
        store(ledger, [envelope(DEVICE, 1, epoch=OTHER_EPOCH, requests=10)], at=3000)
        assert latest() == 10, "a new spool begins again at 1"
        assert ledger.read_now(lambda c: telemetry.latest(c, ["mac-01"])) == {}


def test_a_report_says_that_the_device_was_heard_of(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(fill)
        store(ledger, [envelope(DEVICE, 1), envelope("stranger", 1)], at=1234)
        assert ledger.read_now(lambda c: devices.get(c, DEVICE)).seen_ms == 1234


def test_pruning_keeps_what_might_be_sent_again(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        store(ledger, [envelope(DEVICE, seq) for seq in (1, 2, 4)], at=1000)
        store(ledger, [envelope("mac-01", seq) for seq in (1, 2)], at=5000)
        assert ledger.write_now(lambda c: telemetry.prune(c, 2000, 0, limit=1)) == 1
        assert ledger.write_now(lambda c: telemetry.prune(c, 2000, 0)) == 1
        assert store(ledger, [envelope(DEVICE, 4)]) == 0, "it is above the mark, so it is still known"
        assert ledger.write_now(lambda c: telemetry.prune(c, 2000, 2000)) == 1
        assert mark(ledger) == 2
        assert ledger.read_now(telemetry.total) == 5


def test_what_comes_again_after_it_was_forgotten_is_not_counted_again(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        store(ledger, [envelope(DEVICE, seq) for seq in (1, 2, 3)], at=1000)
        assert ledger.write_now(lambda c: telemetry.prune(c, 2000, 0)) == 3
        # A device that was switched off before it heard of the mark sends all of it once more.
        assert store(ledger, [envelope(DEVICE, seq) for seq in (2, 3, 4)], at=9000) == 1
        assert (ledger.read_now(telemetry.total), mark(ledger)) == (4, 4)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_in_whatever_order_and_however_often_they_arrive(data: st.DataObject) -> None:
    """A device with drops sends everything it has, shuffled and with repetitions: nothing is lost or counted twice."""
    kept = sorted(data.draw(st.sets(st.integers(1, 30), min_size=1)))
    gaps = dict(zip(kept, [0, *kept], strict=False))
    sent = [envelope(DEVICE, seq, dropped=seq - 1 - gaps[seq]) for seq in kept]
    again = data.draw(st.lists(st.sampled_from(sent), max_size=10))
    order = data.draw(st.permutations(sent + again))
    cut = data.draw(st.integers(0, len(order)))
    with TemporaryDirectory() as folder, opened(Path(folder)) as ledger:
        fresh = store(ledger, order[:cut])
        present = {one.seq for one in order[:cut]}
        missing = [seq for seq in kept if seq not in present]
        assert mark(ledger) < (missing[0] if missing else 1 << 60), "nothing that is missing may be deleted"
        fresh += store(ledger, order[cut:])
        assert fresh == len(kept)
        assert mark(ledger) == kept[-1]
