"""Who goes back to what, from what the ledger says: the cases that take no devices to show."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

import pytest

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import Ledger, applied, artifacts, cordons, devices, labels, releases
from edgewright_controller.service.change import BadInput, ChangeRefused
from edgewright_controller.service.ways_back import Asked, Surroundings, WaysBack, ways_back
from tests.controller.ledger_rows import artifact, fill, opened, release

ONE, TWO = "jetson-01", "mac-01"
MATCHED = """
[fleet]
name = "demo"
[models.smollm2]
source = "smollm2"
[profiles.jetson]
runtime = "gguf"
quantization = "Q4_K_M"
accelerator = "cpu"
memory = "8GB"
[groups.early]
model = "smollm2"
profile = "jetson"
match = { ring = "early" }
[groups.all]
model = "smollm2"
profile = "jetson"
devices = ["jetson-01", "mac-01"]
[devices.jetson-01]
labels = { ring = "early" }
[devices.mac-01]
"""


def look(ledger: Ledger, asked: Asked, *, shut: Collection[str] = (), lost: Collection[str] = ()) -> WaysBack:
    """What a rollback would come to; `lost` are artifacts that are not in the store."""
    around = Surroundings(handed_out=(), shut=shut, is_whole=lambda one: one not in lost)
    return ledger.read_now(lambda c: ways_back(c, asked, around))


def had(ledger: Ledger, device: str, *digests: str) -> None:
    """The device was given these, one after the other, and each worked."""
    for digest in digests:
        row = ledger.write_now(partial(devices.set_desired, device=device, release=digest, reason="", now_ms=1))
        done = agent_pb2.OUTCOME_SUCCEEDED
        said = agent_pb2.DeviceStatus(
            sequence=row.generation, generation=row.generation, release=digest, active_release=digest, outcome=done
        )
        ledger.write_now(partial(devices.report, device=device, status=said, now_ms=2))


def test_everybody_who_has_it_goes_back(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        had(ledger, ONE, one, two)
        had(ledger, TWO, one, two)
        found = look(ledger, Asked())
        assert found == WaysBack({ONE: (two, one), TWO: (two, one)})
        assert found.refuses(Asked()) == {("", two)}
        named = Asked(devices=(ONE,))
        assert look(ledger, named).refuses(named) == {(ONE, two)}


def test_when_all_are_cordoned_nothing_begins_and_each_is_named(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        for device in (ONE, TWO):
            had(ledger, device, one, two)
            row = cordons.CordonRow(device, "alice", 1, "measuring")
            ledger.write_now(partial(cordons.put, row=row))
        with pytest.raises(ChangeRefused) as caught:
            look(ledger, Asked())
        assert str(caught.value).splitlines() == [
            f"{device}: left alone: it is cordoned by alice: measuring" for device in (ONE, TWO)
        ]


def test_what_the_epoch_of_a_model_forbids_is_no_way_back_for_devices_that_never_had_a_higher_one(
    tmp_path: Path,
) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        ledger.write_now(lambda c: artifacts.put(c, artifact("c")))
        higher = ledger.write_now(lambda c: releases.put(c, release("c"), 3, 2))
        had(ledger, ONE, one, two)
        assert look(ledger, Asked(devices=(ONE,))).ways == {ONE: (two, one)}
        had(ledger, TWO, higher)
        with pytest.raises(ChangeRefused, match=r"release_epoch = 3 forbids what is below; go forward instead"):
            look(ledger, Asked(devices=(ONE,)))


def test_a_device_that_still_serves_the_release_before_just_goes_on_with_it(tmp_path: Path) -> None:
    """Its artifact may be gone from the store, and its epoch be forbidden: nobody has to fetch or activate it."""
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        had(ledger, ONE, one)
        had(ledger, TWO, two)
        ledger.write_now(lambda c: devices.set_desired(c, ONE, two, reason="", now_ms=3))
        ledger.write_now(lambda c: releases.put(c, release("b"), 5, 2))
        assert look(ledger, Asked(devices=(ONE,)), lost=["a" * 64]).ways == {ONE: (two, one)}


def test_a_group_is_who_matches_now_also_by_the_labels_that_operators_gave(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        for device in (ONE, TWO):
            had(ledger, device, one, two)
        early = Asked(groups=("early",))
        put = partial(applied.put, by="alice", file="fleet.toml", folder="/", reason="", now_ms=1)
        ledger.write_now(partial(put, text=MATCHED))
        assert look(ledger, early).ways.keys() == {ONE}
        ledger.write_now(lambda c: labels.put(c, TWO, {"ring": "early"}, by="alice", now_ms=1))
        assert look(ledger, early).ways.keys() == {ONE, TWO}
        with pytest.raises(BadInput, match=r"there is no group 'erly' in fleet\.toml.*did you mean \"early\"\?"):
            look(ledger, Asked(groups=("erly",)))
        ledger.write_now(partial(put, text="[fleet]\n"))
        with pytest.raises(
            ChangeRefused, match=r"the manifest that was applied last does not hold any more: fleet\.toml"
        ):
            look(ledger, early)


def test_devices_that_are_out_of_the_fleet_are_nobodys_business(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        one, two = ledger.write_now(fill)
        for device in (ONE, TWO):
            had(ledger, device, one, two)
        ledger.write_now(lambda c: devices.decommission(c, TWO, 9))
        assert look(ledger, Asked()) == WaysBack({ONE: (two, one)})
        with pytest.raises(ChangeRefused, match="mac-01: it was decommissioned"):
            look(ledger, Asked(devices=(ONE, TWO)))
        with pytest.raises(ChangeRefused, match="jetson-01: its certificates are revoked"):
            look(ledger, Asked(devices=(ONE,)), shut=[ONE])
