"""Devices that are cordoned, labelled or decommissioned, in the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_controller.ledger import Ledger, LedgerError, NotInLedger, cordons, devices, labels
from edgewright_controller.ledger.cordons import CordonRow
from tests.controller.ledger_rows import fill, opened

ALICE = CordonRow("mac-01", "alice", 5, "its fan is broken")


def test_a_device_stays_cordoned_by_the_first_word_until_that_is_lifted(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(fill)
        assert ledger.write_now(lambda c: cordons.put(c, ALICE))
        assert not ledger.write_now(lambda c: cordons.put(c, CordonRow("mac-01", "bob", 6, "")))
        assert ledger.write_now(lambda c: cordons.put(c, CordonRow("jetson-01", "bob", 6, "")))
        assert ledger.read_now(lambda c: cordons.every(c, ["mac-01", "elsewhere"])) == {"mac-01": ALICE}
        assert [row.words for row in ledger.read_now(cordons.every).values()] == ["bob", "alice: its fan is broken"]
        assert ledger.write_now(lambda c: cordons.lift(c, "mac-01"))
        assert not ledger.write_now(lambda c: cordons.lift(c, "mac-01"))
        assert list(ledger.read_now(cordons.every)) == ["jetson-01"]


def test_only_an_enrolled_device_is_cordoned_or_labelled(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(fill)
        with pytest.raises(LedgerError, match="FOREIGN KEY"):
            ledger.write_now(lambda c: cordons.put(c, CordonRow("elsewhere", "bob", 6, "")))
        with pytest.raises(LedgerError, match="FOREIGN KEY"):
            ledger.write_now(lambda c: labels.put(c, "elsewhere", {"ring": "early"}, by="bob", now_ms=6))


def test_a_label_that_is_given_again_takes_the_new_value_and_the_others_stay(tmp_path: Path) -> None:
    def label(ledger: Ledger, device: str, **given: str) -> None:
        ledger.write_now(lambda c: labels.put(c, device, given, by="bob", now_ms=6))

    with opened(tmp_path) as ledger:
        ledger.write_now(fill)
        label(ledger, "mac-01", ring="early", site="hall 3")
        label(ledger, "jetson-01", ring="late")
        label(ledger, "mac-01", ring="late")
        expected = {"jetson-01": {"ring": "late"}, "mac-01": {"ring": "late", "site": "hall 3"}}
        assert ledger.read_now(labels.every) == expected
        assert ledger.read_now(lambda c: labels.every(c, ["mac-01"])) == {"mac-01": expected["mac-01"]}
        assert ledger.write_now(lambda c: labels.remove(c, "mac-01", ["site", "floor"])) == ["site"]
        assert ledger.write_now(lambda c: labels.remove(c, "jetson-01", ["ring"])) == ["ring"]
        assert ledger.read_now(labels.every) == {"mac-01": {"ring": "late"}}


def test_a_decommissioned_device_is_out_until_it_enrols_anew(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(fill)
        assert ledger.read_now(lambda c: devices.get(c, "mac-01")).decommissioned_ms is None
        assert ledger.write_now(lambda c: devices.decommission(c, "mac-01", 9))
        assert not ledger.write_now(lambda c: devices.decommission(c, "mac-01", 10))
        assert ledger.read_now(lambda c: devices.get(c, "mac-01")).decommissioned_ms == 9
        ledger.write_now(lambda c: devices.enrol(c, "mac-01", "0b", 11))
        assert ledger.read_now(lambda c: devices.get(c, "mac-01")).decommissioned_ms is None
        with pytest.raises(NotInLedger, match="no device 'elsewhere'"):
            ledger.write_now(lambda c: devices.decommission(c, "elsewhere", 9))
