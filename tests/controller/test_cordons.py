"""Devices that operators cordon, label or take out of the fleet, and what rollouts that run make of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgewright_controller.ledger import audit, certificates, cordons, devices, labels
from edgewright_controller.ledger.certificates import DEVICE, CertificateRow
from edgewright_controller.rollout import DevicePhase, RolloutPhase
from edgewright_controller.service.change import BadInput, ChangeRefused
from edgewright_controller.service.cordons import Cordons
from edgewright_controller.service.decommissioning import Decommissioning
from edgewright_controller.service.labelling import MAX_LABELS, Labelling
from edgewright_controller.service.revocations import Revocations
from tests.controller.runner_rig import NAMES, Rig, rig


def entered(made: Rig, action: str) -> list[tuple[str, str, str]]:
    rows = made.ledger.read_now(lambda c: list(audit.entries(c)))
    return [(row.actor, row.subject, row.detail) for row in rows if row.action == action]


def cordons_of(made: Rig) -> Cordons:
    return Cordons(made.ledger, made.runner, lambda: made.now)


async def test_a_cordoned_device_leaves_where_it_waits_and_ends_where_it_is_under_way(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin()
        changed = await cordons_of(made).cordon(["dev-a", "dev-c", "dev-a"], by="alice", reason="its fan")
        assert changed == ["dev-a", "dev-c"]
        await made.succeeds("dev-a")
        await made.until_device("dev-b", "offered")
        await made.succeeds("dev-b")
        await made.until_ended(RolloutPhase.SUCCEEDED)
        assert [made.releases(name) for name in NAMES] == [["new"], ["new"], []]
        assert made.device("dev-c") is DevicePhase.SKIPPED
        assert entered(made, "device.cordon") == [
            ("operator alice", name, "left as it is; why: its fan") for name in ("dev-a", "dev-c")
        ]


async def test_a_cordon_is_said_once_and_lifted_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        some = cordons_of(made)
        assert await some.cordon(["dev-a"], by="alice", reason="") == ["dev-a"]
        assert await some.cordon(["dev-a", "dev-b"], by="bob", reason="") == ["dev-b"]
        assert made.ledger.read_now(cordons.every)["dev-a"].by == "alice"
        assert await some.uncordon(["dev-a", "dev-c"], by="bob", reason="repaired") == ["dev-a"]
        assert entered(made, "device.uncordon") == [("operator bob", "dev-a", "rollouts reach it again; why: repaired")]


async def test_a_rollout_that_begins_leaves_a_cordoned_device_out(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await cordons_of(made).cordon(["dev-a"], by="alice", reason="")
        await made.begin()
        assert list(made.state().targets) == ["dev-b", "dev-c"]
        await made.succeeds("dev-b")
        await made.until_device("dev-c", "offered")
        assert made.releases("dev-a") == []


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ([], "no device is named"),
        (["dev-a", "dev-x"], "device 'dev-x' is not enrolled; `edgewright devices` lists those that are"),
        (["dev-c"], "device 'dev-c' was decommissioned; `edgewright enroll create --device dev-c` makes a token"),
    ],
)
async def test_only_devices_of_the_fleet_are_cordoned_or_labelled(
    tmp_path: Path, named: list[str], expected: str
) -> None:
    async with rig(tmp_path) as made:
        made.ledger.write_now(lambda c: devices.decommission(c, "dev-c", 1))
        some = cordons_of(made)
        for said in (
            some.cordon(named, by="alice", reason=""),
            some.uncordon(named, by="alice", reason=""),
            Labelling(made.ledger, lambda: made.now, unheard).label(named, {"ring": "early"}, [], by="alice"),
        ):
            with pytest.raises(BadInput, match=expected):
                await said
        assert made.ledger.read_now(cordons.every) == {}
        assert made.ledger.read_now(labels.every) == {}


async def unheard() -> None:
    """Nobody has to know of a change of labels."""


async def test_labels_are_given_and_taken_away_and_entered(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        labelling = Labelling(made.ledger, lambda: made.now, unheard)
        await labelling.label(["dev-a", "dev-b"], {"ring": "early", "site": "hall 3"}, [], by="alice")
        await labelling.label(["dev-b"], {"ring": "late"}, ["site"], by="alice")
        early = {"ring": "early", "site": "hall 3"}
        assert made.ledger.read_now(labels.every) == {"dev-a": early, "dev-b": {"ring": "late"}}
        assert entered(made, "device.label")[2] == ("operator alice", "dev-b", "ring=late, -site")


@pytest.mark.parametrize(
    ("given", "gone", "expected"),
    [
        ({}, [], "no label is named"),
        ({"Ring": "early"}, [], "label 'Ring': a name has small letters"),
        ({"ring": "x" * 129}, [], "at most 128 characters"),
        ({"ring": "early"}, ["ring"], "label 'ring' is both given and removed"),
        ({}, ["no such"], "label 'no such'"),
        ({f"l{number}": "" for number in range(MAX_LABELS + 1)}, [], f"would have {MAX_LABELS + 1} labels"),
    ],
)
async def test_labels_that_cannot_be_are_refused_and_nothing_is_stored(
    tmp_path: Path, given: dict[str, str], gone: list[str], expected: str
) -> None:
    async with rig(tmp_path) as made:
        with pytest.raises(BadInput, match=expected):
            await Labelling(made.ledger, lambda: made.now, unheard).label(["dev-a"], given, gone, by="alice")
        assert made.ledger.read_now(labels.every) == {}


def certify(made: Rig, device: str) -> None:
    ends = int(made.now.timestamp() * 1000) + 1_000_000
    row = CertificateRow(f"serial-{device}", DEVICE, device, "k", 1, ends)
    made.ledger.write_now(lambda c: certificates.put(c, row))


async def test_a_decommissioned_device_is_out_and_no_rollout_waits_for_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        certify(made, "dev-a")
        await made.begin()
        revocations = await Revocations.open(made.ledger, lambda: made.now)
        out = Decommissioning(made.ledger, revocations, made.runner, lambda: made.now)
        await cordons_of(made).cordon(["dev-a"], by="alice", reason="")
        assert await out.decommission("dev-a", by="alice", reason="sold") == 1
        assert revocations.shut_devices() == {"dev-a"}
        assert made.ledger.read_now(cordons.every) == {}
        assert made.device("dev-a") is DevicePhase.SKIPPED
        assert entered(made, "device.decommission") == [("operator alice", "dev-a", "out of the fleet; why: sold")]
        with pytest.raises(ChangeRefused, match="dev-a was decommissioned before; `edgewright enroll create --device"):
            await out.decommission("dev-a", by="alice", reason="")
        with pytest.raises(BadInput, match="there is no device 'dev-x'"):
            await out.decommission("dev-x", by="alice", reason="")


async def test_a_decommissioning_that_was_cut_off_is_ended_by_the_next(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        certify(made, "dev-a")
        revocations = await Revocations.open(made.ledger, lambda: made.now)
        out = Decommissioning(made.ledger, revocations, made.runner, lambda: made.now)
        made.ledger.write_now(lambda c: devices.decommission(c, "dev-a", 1))
        assert await out.decommission("dev-a", by="alice", reason="") == 1
