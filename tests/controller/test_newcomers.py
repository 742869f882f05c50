"""Newcomers get what was applied last by themselves, when it did well on others; nobody else does."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import assignments, audit, cordons, devices, releases, rollouts
from edgewright_controller.ledger.cordons import CordonRow
from edgewright_controller.newcomers import Newcomer, Record, decide
from edgewright_controller.rollout import RolloutPhase, Skipped
from edgewright_controller.service import newcomers
from tests.controller.broker_room import until
from tests.controller.ledger_rows import fill, opened
from tests.controller.rollout_driver import policy
from tests.controller.runner_rig import NAMES, Rig, rig

NEW = "a" * 64
S, F, A, P = RolloutPhase.SUCCEEDED, RolloutPhase.FAILED, RolloutPhase.ABORTED, RolloutPhase.SUPERSEDED


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (Record(3, frozenset({S})), ""),
        (Record(3, frozenset({F, S})), ""),
        (Record(1), ""),
        (Record(1, frozenset({P})), ""),
        (Record(), "has not worked on any other device yet"),
        (Record(0, frozenset({P})), "has not worked on any other device yet"),
        (Record(1, frozenset({F})), "no rollout of release aaaaaaaaaaaa has succeeded, one has failed"),
        (Record(5, frozenset({A, P})), "one has aborted"),
        (Record(3, frozenset({S}), going_out="rollout-7"), "rollout-7 is handing release aaaaaaaaaaaa out"),
        (Record(3, frozenset({S}), rolled_back=True), "was rolled back"),
    ],
)
def test_a_newcomer_gets_only_what_did_well_on_others(record: Record, why: str) -> None:
    decision = decide([Newcomer("dev-a", NEW)], {NEW: record})
    if why:
        assert decision.given == {}
        assert why in decision.waiting["dev-a"]
    else:
        assert (decision.given, decision.waiting) == ({NEW: ("dev-a",)}, {})


def test_what_hinders_one_newcomer_hinders_no_other() -> None:
    good = {NEW: Record(1, frozenset({S}))}
    found = [Newcomer("dev-a", NEW), Newcomer("dev-b", NEW, "cordoned by bob"), Newcomer("dev-c", NEW)]
    decision = decide(found, good)
    assert decision.given == {NEW: ("dev-a", "dev-c")}
    assert decision.waiting == {"dev-b": "cordoned by bob"}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(newcomers, "GATHER_S", 0.01)


async def ran_well(made: Rig, *names: str) -> None:
    """An apply for all devices, which those that were there then have got."""
    made.ledger.write_now(lambda c: assignments.put(c, dict.fromkeys(NAMES, made.new), NAMES, 1))
    await made.begin(names)
    for name in names:
        await made.until_device(name, "offered")
        await made.succeeds(name)
    await made.until_ended(RolloutPhase.SUCCEEDED)


def checks_in(made: Rig, device: str) -> None:
    """The first word of a device that has nothing yet."""
    status = agent_pb2.DeviceStatus(sequence=1)
    made.ledger.write_now(lambda c: devices.report(c, device, status, 1))
    made.runner.reported(device, status)


def all_rollouts(made: Rig) -> list[str]:
    return [row.id for row in made.ledger.read_now(rollouts.every)]


async def test_a_device_that_checks_in_for_the_first_time_gets_what_the_others_have(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await ran_well(made, "dev-a")
        checks_in(made, "dev-b")
        await until(lambda: made.releases("dev-b") == ["new"], "the offer")
        await made.succeeds("dev-b")
        await made.until_ended(RolloutPhase.SUCCEEDED, "rollout-2")
        row = made.row("rollout-2")
        assert (row.created_by, row.about["what"]) == ("controller", f"newcomers: release {made.new[:12]}")
        entries = made.ledger.read_now(lambda c: list(audit.entries(c)))
        entry = entries[-1]
        assert (entry.actor, entry.action, entry.release) == ("controller", "rollout.begin", made.new)
        assert entry.detail == f"newcomers: release {made.new[:12]}: 1 device"
        assert made.releases("dev-c") == [], "it has not checked in"


async def test_a_newcomer_waits_for_the_rollout_that_hands_its_release_out(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        made.ledger.write_now(lambda c: assignments.put(c, dict.fromkeys(NAMES, made.new), NAMES, 1))
        await made.begin(["dev-a"])
        checks_in(made, "dev-b")
        await made.passes(50)
        assert all_rollouts(made) == ["rollout-1"]
        await made.succeeds("dev-a")
        await until(lambda: made.releases("dev-b") == ["new"], "the offer")


async def test_a_newcomer_on_which_it_fails_is_not_given_it_again_and_spoils_it_for_nobody(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await ran_well(made, "dev-a")
        checks_in(made, "dev-b")
        await until(lambda: made.releases("dev-b") == ["new"], "the offer")
        await made.fails("dev-b")
        await made.until_ended(RolloutPhase.FAILED, "rollout-2")
        checks_in(made, "dev-c")
        await until(lambda: made.releases("dev-c") == ["new"], "the other one's offer")
        await made.succeeds("dev-c")
        await made.until_ended(RolloutPhase.SUCCEEDED, "rollout-3")
        assert len(all_rollouts(made)) == 3


async def test_nobody_gets_what_was_stopped_or_rolled_back_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def told(why: str) -> None:
        await until(lambda: "newcomer waits" in caplog.text and why in caplog.text, why)
        assert made.releases("dev-c") == []

    async with rig(tmp_path) as made:
        made.ledger.write_now(lambda c: assignments.put(c, dict.fromkeys(NAMES, made.new), NAMES, 1))
        await made.begin(["dev-a", "dev-b"], waves=(("dev-a", "dev-b"),), policy=policy())
        await made.succeeds("dev-a")
        await made.fails("dev-b")
        await made.until_ended(RolloutPhase.FAILED)
        await told("it has not checked in yet")
        checks_in(made, "dev-c")
        await told(f"no rollout of release {made.new[:12]} has succeeded, one has failed")
        await made.restart()
        await made.begin(["dev-a"])
        await made.succeeds("dev-a")
        await until(lambda: made.releases("dev-c") == ["new"], "the offer, once it went well")
        made.ledger.write_now(lambda c: devices.enrol(c, "dev-d", "0a", 1))
        made.ledger.write_now(lambda c: assignments.put(c, {"dev-d": made.new}, ("dev-d",), 1))
        made.ledger.write_now(lambda c: releases.mark_rolled_back(c, made.new, "bob", 1))
        caplog.clear()
        checks_in(made, "dev-d")
        await until(lambda: f"release {made.new[:12]} was rolled back" in caplog.text, "the reason")
        assert made.releases("dev-d") == []


async def test_an_uncordoned_device_that_was_never_given_anything_is_a_newcomer(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await ran_well(made, "dev-a")
        made.ledger.write_now(lambda c: cordons.put(c, CordonRow("dev-b", "alice", 1, "")))
        checks_in(made, "dev-b")
        checks_in(made, "dev-c")
        await until(lambda: made.releases("dev-c") == ["new"], "the other one's offer")
        assert made.releases("dev-b") == []
        made.ledger.write_now(lambda c: cordons.lift(c, "dev-b"))
        made.runner.look_for_newcomers()
        await until(lambda: made.releases("dev-b") == ["new"], "the offer")


async def test_a_device_that_somebody_skipped_does_not_get_it_after_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with rig(tmp_path) as made:
        made.ledger.write_now(lambda c: assignments.put(c, dict.fromkeys(NAMES, made.new), NAMES, 1))
        await made.begin(["dev-a", "dev-b"], waves=(("dev-a",), ("dev-b",)))
        await made.until_device("dev-a", "offered")
        await made.runner.control("rollout-1", Skipped(frozenset({"dev-b"}), "bob"))
        await made.succeeds("dev-a")
        await made.until_ended(RolloutPhase.SUCCEEDED)
        checks_in(made, "dev-b")
        checks_in(made, "dev-c")
        await until(lambda: made.releases("dev-c") == ["new"], "the newcomer's offer")
        await until(lambda: "it was skipped in rollout-1" in caplog.text, "the reason")
        assert made.releases("dev-b") == []


def test_an_apply_for_some_devices_leaves_the_others_what_an_earlier_one_gave(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        new, old = ledger.write_now(lambda c: fill(c, "ab", "dev-a dev-b"))
        ledger.write_now(
            lambda c: assignments.put(c, {"dev-a": old, "dev-b": old, "gone": old}, {"dev-a", "dev-b", "gone"}, 1)
        )
        ledger.write_now(lambda c: assignments.put(c, {"dev-a": new, "later": None}, {"dev-a", "dev-b", "later"}, 2))
        assert ledger.read_now(assignments.every) == {"dev-a": new, "dev-b": old}
        ledger.write_now(lambda c: devices.set_desired(c, "dev-b", old, reason="", now_ms=3))
        assert ledger.read_now(assignments.never_given) == {"dev-a": new}
        ledger.write_now(lambda c: devices.decommission(c, "dev-a", 4))
        assert ledger.read_now(assignments.never_given) == {}
        ledger.write_now(lambda c: assignments.put(c, {"dev-a": None}, {"dev-a", "dev-b"}, 5))
        assert ledger.read_now(assignments.every) == {"dev-b": old}, "it serves nothing any more"
