"""A controller that restarts in the middle of a rollout goes on: nothing is done twice, and nothing is lost."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import audit, cordons, devices
from edgewright_controller.ledger.cordons import CordonRow
from edgewright_controller.rollout import (
    Aborted,
    AfterWave,
    Approved,
    DevicePhase,
    Paused,
    Resumed,
    Retried,
    RolloutPhase,
    RolloutPolicy,
    Then,
    Window,
)
from tests.controller.broker_room import until
from tests.controller.rollout_driver import policy
from tests.controller.runner_rig import MONDAY, NAMES, ROLLOUT, Rig, rig, with_old

ONE_TO_FIVE = (Window(frozenset({0}), 60, 300),)


async def finish(made: Rig, *names: str) -> None:
    """The devices succeed, one after the other as they are offered it, and the rollout ends well."""
    for name in names:
        await made.until_device(name, "offered")
        await made.succeeds(name)
    await made.until_ended(RolloutPhase.SUCCEEDED)
    assert [made.releases(name) for name in NAMES] == [["new"]] * 3


async def test_a_wave_that_waits_for_its_window_is_offered_once_when_that_opens(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        made.now = MONDAY - timedelta(hours=2)
        windows = dict.fromkeys(NAMES, (ONE_TO_FIVE, "Europe/Berlin"))
        await made.begin(waves=(NAMES,), windows=windows)
        await made.restart()
        await made.set_clock(MONDAY - timedelta(minutes=1))  # 00:59 there
        assert [made.releases(name) for name in NAMES] == [[]] * 3
        await made.restart()
        made.now = MONDAY + timedelta(minutes=1)
        await until(lambda: made.releases("dev-c") == ["new"], "the offer")
        await made.restart()
        await finish(made, *NAMES)


async def test_a_limit_goes_on_with_the_next_in_turn(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin(waves=(NAMES,), policy=RolloutPolicy(devices_per_minute=3))
        assert [made.releases(name) for name in NAMES] == [["new"], [], []]
        await made.restart()
        await made.passes(15)
        assert [made.releases(name) for name in NAMES] == [["new"], [], []], "the pace is kept over a restart"
        await made.passes(10)
        await until(lambda: made.releases("dev-b") == ["new"], "the second")
        await made.restart()
        await made.passes(10)
        assert made.releases("dev-c") == []
        await made.passes(15)
        await finish(made, *NAMES)


async def test_a_wave_is_watched_for_the_rest_of_its_time(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin(after=(AfterWave(100.0), AfterWave(), AfterWave()))
        await made.succeeds("dev-a")
        await made.passes(60)
        await made.restart()
        assert made.state().phase is RolloutPhase.WAITING
        await made.passes(30)
        assert made.releases("dev-b") == [], "ten seconds are left"
        await made.passes(20)
        await made.until_device("dev-b", "offered")
        await finish(made, "dev-b", "dev-c")


async def test_a_pause_stays_one_and_its_patience_goes_on(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin(after=(AfterWave(then=Then.PAUSE), AfterWave(), AfterWave()))
        await made.succeeds("dev-a")
        await made.until_phase(RolloutPhase.PAUSED)
        await made.restart()
        await made.passes(100)
        assert (made.state().phase, made.releases("dev-b")) == (RolloutPhase.PAUSED, [])
        await made.runner.control(ROLLOUT, Resumed("admin"))
        await made.restart()
        await made.runner.control(ROLLOUT, Paused("admin"))
        await made.restart()
        await made.succeeds("dev-b")
        await made.passes(550)
        await made.restart()
        await made.passes(60)
        await made.until_ended(RolloutPhase.ABORTED)
        assert [made.releases(name) for name in NAMES] == [["new"], ["new"], []]


async def test_a_wave_waits_for_approval_until_somebody_gives_it(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin(after=(AfterWave(then=Then.APPROVAL), AfterWave(), AfterWave()))
        await made.succeeds("dev-a")
        await made.until_phase(RolloutPhase.APPROVAL)
        await made.restart()
        await made.passes(50)
        assert (made.state().phase, made.releases("dev-b")) == (RolloutPhase.APPROVAL, [])
        await made.runner.control(ROLLOUT, Approved("alice: looks good"))
        await made.restart()
        await finish(made, "dev-b", "dev-c")
        entries = made.ledger.read_now(lambda c: list(audit.entries(c)))
        assert [(row.actor, row.detail) for row in entries if row.action == "rollout.approve"] == [
            ("operator alice", "the next wave begins; why: looks good")
        ]


async def test_devices_on_their_way_back_arrive_and_the_rollout_ends(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await with_old(made)
        await made.begin(waves=(NAMES,))
        await made.succeeds("dev-a")
        await made.runner.control("rollout-2", Aborted(revert=True, by="admin"))
        await made.restart()
        assert made.state("rollout-2").phase is RolloutPhase.REVERTING
        await made.succeeds("dev-a")
        await made.says("dev-b", agent_pb2.OUTCOME_SUCCEEDED, told=False)  # the controller ends before it is heard
        await made.restart()
        await made.until_device("dev-b", "reverted")
        await made.succeeds("dev-c")
        await made.until_ended(RolloutPhase.ABORTED, "rollout-2")
        assert [made.releases(name) for name in NAMES] == [["old", "new", "old"]] * 3


async def test_a_retried_device_is_asked_once_to_lift_its_hold_and_given_it_once_more(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin(waves=(NAMES,), policy=policy(max_failures=1))
        await made.succeeds("dev-a")
        await made.fails("dev-b")
        await made.restart()
        done = await made.runner.control(ROLLOUT, Retried(None, "admin"))
        assert done.devices == ("dev-b",)
        await made.restart()
        (lifted,) = made.requests("dev-b")
        assert (lifted.kind, lifted.argument) == (agent_pb2.DeviceRequest.KIND_RELEASE_HOLD, made.new)
        assert made.device("dev-b") is DevicePhase.OFFERED
        await made.succeeds("dev-b")
        await made.succeeds("dev-c")
        await made.until_ended(RolloutPhase.SUCCEEDED)
        assert [made.releases(name) for name in NAMES] == [["new"], ["new", "new"], ["new"]]


async def test_a_device_that_was_cordoned_as_the_controller_died_is_not_offered_anything(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin()
        made.ledger.write_now(lambda c: cordons.put(c, CordonRow("dev-b", "alice", 1, "its fan")))
        made.ledger.write_now(lambda c: devices.decommission(c, "dev-c", 1))
        await made.restart()
        await made.succeeds("dev-a")
        await made.until_ended(RolloutPhase.SUCCEEDED)
        assert [made.releases(name) for name in NAMES] == [["new"], [], []]
        assert made.state().devices["dev-b"].reason == "cordoned by alice: its fan"
