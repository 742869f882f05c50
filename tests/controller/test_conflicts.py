"""What a new rollout takes from those that run: all that is left to do there, or a part, which is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.ledger import rollouts
from edgewright_controller.rollout import Left, Paused, RolloutError, RolloutPhase
from edgewright_controller.service.conflicts import conflicts
from edgewright_controller.service.job import Job
from tests.controller.rollout_driver import Driver, spec
from tests.controller.runner_rig import NAMES, ROLLOUT, rig


def test_only_what_a_rollout_still_has_to_do_counts_as_left() -> None:
    driver = Driver(spec(4, 4))
    assert conflicts([driver.state], {"elsewhere"}) == []
    (found,) = conflicts([driver.state], {"dev-0", "dev-1", "elsewhere"})
    assert (found.taken, found.left) == (("dev-0", "dev-1"), ("dev-2", "dev-3"))
    assert found.refusal == (
        "dev-0, dev-1: in rollout-1, which would go on with dev-2, dev-3; wait for its end, end it"
        " (`edgewright rollout abort rollout-1`), or take them out of it with --supersede"
    )
    driver.do(Left("dev-2", "cordoned"))
    driver.do(Left("dev-3", "cordoned"))
    (found,) = conflicts([driver.state], {"dev-0", "dev-1"})
    assert (found.taken, found.left) == (("dev-0", "dev-1"), ())
    assert found.warning == "rollout-1 runs, and is superseded: all that it still has to do is taken over"


async def test_rollouts_on_separate_devices_run_side_by_side(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin(["dev-a"])
        await made.begin(["dev-b", "dev-c"])
        await made.succeeds("dev-b")
        await made.succeeds("dev-a")
        await made.until_ended(RolloutPhase.SUCCEEDED)
        await made.succeeds("dev-c")
        await made.until_ended(RolloutPhase.SUCCEEDED, "rollout-2")


async def test_a_newer_rollout_to_all_that_is_left_supersedes(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin()
        await made.succeeds("dev-a")
        await made.begin(["dev-b", "dev-c", "dev-a"], releases=dict.fromkeys(NAMES, made.old))
        await made.until_ended(RolloutPhase.SUPERSEDED)
        await made.succeeds("dev-b")
        assert [made.releases(name) for name in NAMES] == [["new"], ["new", "old"], ["old"]]


async def test_a_part_of_a_rollout_is_taken_only_when_that_is_said(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin()
        with pytest.raises(RolloutError, match=r"^dev-b: in rollout-1, which would go on with dev-a, dev-c; wait"):
            await made.begin(["dev-b"], releases={"dev-b": made.old})
        assert (made.state().phase, len(made.ledger.read_now(rollouts.every))) == (RolloutPhase.RUNNING, 1)
        await made.begin(["dev-b"], releases={"dev-b": made.old}, supersede=True)
        assert made.state().devices["dev-b"].detached
        await made.succeeds("dev-a")
        await made.succeeds("dev-c")
        await made.until_ended(RolloutPhase.SUCCEEDED)
        assert [made.releases(name) for name in NAMES] == [["new"], ["old"], ["new"]]


async def test_what_takes_something_back_may_always_take_a_part(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin()
        await made.begin(["dev-a"], releases={"dev-a": made.old}, back_to={"dev-a": made.new})
        assert made.releases("dev-a") == ["new", "old"]
        assert not made.state().finished


async def test_a_rollout_that_cannot_be_stored_takes_nothing_from_the_older_one(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin()
        with pytest.raises(RolloutError, match="dev-b, dev-c would be in none of its waves"):
            await made.begin(waves=(("dev-a",),), releases=dict.fromkeys(NAMES, made.old))
        assert made.state().phase is RolloutPhase.RUNNING
        await made.restart()
        for name in NAMES:
            await made.until_device(name, "offered")
            await made.succeeds(name)
        await made.until_ended(RolloutPhase.SUCCEEDED)


async def test_an_apply_of_what_is_paused_follows_it_and_resumes_nothing(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.begin()
        await made.runner.control(ROLLOUT, Paused("alice"))
        job = await made.begin()
        assert [row.id for row in made.ledger.read_now(rollouts.every)] == [ROLLOUT]
        assert made.state().phase is RolloutPhase.PAUSED
        told = [event.message async for event in first(job, 1)]
        assert told == ["rollout-1 is doing this already; following it"]


async def first(job: Job, count: int) -> AsyncIterator[operator_pb2.ApplyEvent]:
    """The first events that a job tells."""
    async for event in job.follow():
        yield event
        count -= 1
        if not count:
            return
