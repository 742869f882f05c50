"""The runner between devices' words and the ledger: what waits is bounded, and nothing that counts is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

import pytest
from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import Ledger, LedgerError, audit, rollouts
from edgewright_controller.rollout import Finish, Paused, Resumed, RolloutPhase, RolloutPolicy
from edgewright_controller.service import rollout_hearing
from edgewright_controller.service.job import Job
from edgewright_controller.service.rollouts_runner import RolloutsRunner
from edgewright_controller.service.wish import Wish
from tests.controller.broker_room import until
from tests.controller.ledger_rows import fill, opened

T = TypeVar("T")
DEVICES = ("jetson-01", "mac-01")


class Shaky:
    """A ledger that refuses as many writes as it is told to."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self.read, self.refusals = ledger, ledger.read, 0
        self.after: int | None = None  # so many more writes succeed, and then one does not
        self.refused = 0

    async def write(self, act: Callable[[Connection], T]) -> T:
        if self.after is not None:
            self.after -= 1
            if self.after < 0:
                self.after, self.refusals = None, 1
        if self.refusals:
            self.refused += 1
            self.refusals -= 1
            raise LedgerError("the disk is full")
        return await self._ledger.write(act)


class Slow:
    """A ledger whose writes, once stored, are answered when `pause` is set."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self.read = ledger, ledger.read
        self.pause: asyncio.Event | None = None
        self.written = asyncio.Event()

    async def write(self, act: Callable[[Connection], T]) -> T:
        result = await self._ledger.write(act)
        if self.pause is not None:
            self.written.set()
            await self.pause.wait()
        return result


def status(sequence: int, outcome: agent_pb2.Outcome, release: str) -> agent_pb2.DeviceStatus:
    return agent_pb2.DeviceStatus(sequence=sequence, generation=1, outcome=outcome, release=release)


async def begun(runner: RolloutsRunner, release: str) -> asyncio.Future[Finish]:
    """A rollout of this release to both devices at once."""
    await runner.start()
    wish = Wish(dict.fromkeys(DEVICES, release), RolloutPolicy(), by="admin", about="a test")
    return await runner.begin(wish, Job())


def runner_on(ledger: Ledger | Shaky | Slow) -> RolloutsRunner:
    return RolloutsRunner(ledger, lambda _device, _generation: None, clock=lambda: datetime.now(timezone.utc))


async def test_of_a_flood_of_reports_only_each_devices_newest_waits_and_its_outcome_counts(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        (release,) = ledger.write_now(lambda c: fill(c, "a"))
        runner = runner_on(ledger)
        ended = await begun(runner, release)
        for sequence in range(1, 5001):
            for device in DEVICES:
                runner.reported(device, status(sequence, agent_pb2.OUTCOME_IN_PROGRESS, release))
        for device in DEVICES:
            runner.reported(device, status(5001, agent_pb2.OUTCOME_SUCCEEDED, release))
        assert runner.waiting == len(DEVICES)
        finish = await asyncio.wait_for(ended, 10)
        assert (finish.phase, runner.waiting) == (RolloutPhase.SUCCEEDED, 0)
        await runner.close()


async def test_a_report_that_the_ledger_refuses_is_told_again_until_it_is_stored(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        (release,) = ledger.write_now(lambda c: fill(c, "a"))
        shaky = Shaky(ledger)
        runner = runner_on(shaky)
        ended = await begun(runner, release)
        shaky.refusals = 3
        for device in DEVICES:
            runner.reported(device, status(1, agent_pb2.OUTCOME_SUCCEEDED, release))
        finish = await asyncio.wait_for(ended, 10 * rollout_hearing.AGAIN_S)
        assert (finish.phase, shaky.refusals) == (RolloutPhase.SUCCEEDED, 0)
        await runner.close()


async def test_a_rollout_whose_start_the_ledger_refuses_begins_with_the_next_tick(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        (release,) = ledger.write_now(lambda c: fill(c, "a"))
        shaky = Shaky(ledger)
        runner = runner_on(shaky)
        await runner.start()
        wish = Wish(dict.fromkeys(DEVICES, release), RolloutPolicy(), by="admin", about="a test")
        shaky.after = 1  # that there is such a rollout is stored, its first wave is not
        ended = await runner.begin(wish, Job())
        assert shaky.refused == 1
        await until(lambda: runner.device_state(DEVICES[0]) == "offered", "the first wave")
        for device in DEVICES:
            runner.reported(device, status(1, agent_pb2.OUTCOME_SUCCEEDED, release))
        assert (await asyncio.wait_for(ended, 60)).phase is RolloutPhase.SUCCEEDED
        await runner.close()


async def test_a_command_whose_caller_leaves_is_carried_out_to_its_end(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        (release,) = ledger.write_now(lambda c: fill(c, "a"))
        slow = Slow(ledger)
        runner = runner_on(slow)
        await begun(runner, release)
        slow.pause = asyncio.Event()
        pausing = asyncio.create_task(runner.control("rollout-1", Paused("admin")))
        await asyncio.wait_for(slow.written.wait(), 60)
        pausing.cancel()
        await asyncio.gather(pausing, return_exceptions=True)
        slow.pause.set()
        assert (await runner.control("rollout-1", Resumed("admin"))).phase is RolloutPhase.RUNNING, "it was paused"
        await runner.close()


async def test_what_an_operator_does_to_a_rollout_is_entered_with_it_or_not_at_all(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        (release,) = ledger.write_now(lambda c: fill(c, "a"))
        shaky = Shaky(ledger)
        runner = runner_on(shaky)
        await begun(runner, release)

        def entered() -> list[tuple[str, str, str]]:
            rows = ledger.read_now(lambda c: list(audit.entries(c)))
            return [(row.actor, row.action, row.detail) for row in rows if row.action != "rollout.begin"]

        assert (await runner.control("rollout-1", Paused("admin: lunch"))).phase is RolloutPhase.PAUSED
        assert entered() == [("operator admin", "rollout.pause", "nothing more is offered; why: lunch")]
        # The ledger takes one more write: were the entry another, the act would stand without it.
        shaky.after = 1
        assert (await runner.control("rollout-1", Resumed("alice"))).phase is RolloutPhase.RUNNING
        assert entered()[1:] == [("operator alice", "rollout.resume", "it goes on")]
        shaky.after, shaky.refusals = None, 1
        with pytest.raises(LedgerError):
            await runner.control("rollout-1", Paused("eve"))
        stored = ledger.read_now(lambda c: rollouts.get(c, "rollout-1"))
        assert stored.state is RolloutPhase.RUNNING
        assert len(entered()) == 2
        await runner.close()
