"""The runner of rollouts on a real ledger, with a clock that tests set, devices that speak, and restarts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import Ledger, devices, requests, rollouts
from edgewright_controller.ledger.devices import DesiredRow
from edgewright_controller.rollout import DevicePhase, RolloutPhase, RolloutState
from edgewright_controller.service.job import Job
from edgewright_controller.service.rollouts_runner import RolloutsRunner
from edgewright_controller.service.wish import Wish
from edgewright_controller.unix_time import unix_ms
from tests.controller.broker_room import until
from tests.controller.ledger_rows import fill, opened
from tests.controller.rollout_driver import policy

NAMES = ("dev-a", "dev-b", "dev-c")
MONDAY = datetime(2027, 1, 4, tzinfo=timezone.utc)
ROLLOUT = "rollout-1"


class Rig:
    """One runner after the other, on one ledger with the releases `new` and `old`."""

    def __init__(self, ledger: Ledger, names: Sequence[str]) -> None:
        self.ledger, self.now = ledger, MONDAY
        self.new, self.old = ledger.write_now(lambda c: fill(c, "ab", " ".join(names)))
        self.hints: Counter[tuple[str, int]] = Counter()
        self.shut: frozenset[str] = frozenset()
        self.runner = self._runner()

    def _runner(self) -> RolloutsRunner:
        return RolloutsRunner(
            self.ledger,
            lambda device, generation: self.hints.update([(device, generation)]),
            shut=lambda: self.shut,
            clock=lambda: self.now,
            look_every_s=0.01,
        )

    async def restart(self) -> None:
        """The runner dies wherever it stands; another one takes up what is in the ledger."""
        await self.runner.close()
        self.runner = self._runner()
        await self.runner.start()

    async def begin(self, names: Sequence[str] = NAMES, **parts: object) -> Job:
        """Begin a rollout of `new`, each of `names` as a wave of its own unless `waves` says otherwise."""
        given: dict[str, object] = {
            "releases": dict.fromkeys(names, self.new),
            "policy": policy(),
            "by": "admin",
            "about": "a test",
            "waves": tuple((name,) for name in names),
        }
        job = Job()
        await self.runner.begin(Wish(**(given | parts)), job)  # type: ignore[arg-type]  # a test's own parts
        return job

    async def passes(self, seconds: float, rollout: str = ROLLOUT) -> None:
        """The clock goes on, and the rollout has heard of it. It counts at most a minute for each step."""
        while seconds > 0:
            step_s = min(seconds, 50.0)
            self.now += timedelta(seconds=step_s)
            seconds -= step_s
            await self.heard(rollout)

    async def set_clock(self, now: datetime, rollout: str = ROLLOUT) -> None:
        """Somebody sets the clock, or the host slept."""
        self.now = now
        await self.heard(rollout)

    async def heard(self, rollout: str = ROLLOUT) -> None:
        """Wait until the rollout has seen the time that it is, or has ended."""
        now = self.now.timestamp()

        def seen() -> bool:
            news = self.runner.news(rollout)
            return news is None or abs(news.state.clock.wall - now) < 10  # less is not worth storing

        await until(seen, f"{rollout} at {self.now}")

    async def says(self, device: str, outcome: agent_pb2.Outcome, release: str = "", *, told: bool = True) -> None:
        """A device reports on what it was given last; without `told` the controller dies before it is heard."""
        given = self.given(device)[-1]
        row = self.ledger.read_now(lambda c: devices.get(c, device))
        status = agent_pb2.DeviceStatus(
            sequence=row.status_sequence + 1,
            generation=given.generation,
            outcome=outcome,
            release=release or given.release or "",
        )
        self.ledger.write_now(lambda c: devices.report(c, device, status, unix_ms(self.now)))
        if told:
            self.runner.reported(device, status)

    async def succeeds(self, device: str) -> None:
        await self.says(device, agent_pb2.OUTCOME_SUCCEEDED)
        await self.until_device(device, "succeeded", "reverted")

    async def fails(self, device: str) -> None:
        await self.says(device, agent_pb2.OUTCOME_FAILED)
        await self.until_device(device, "failed")

    async def until_device(self, device: str, *states: str) -> None:
        await until(lambda: self.device(device).value in states, f"{device} in {states}")

    async def until_ended(self, state: RolloutPhase, rollout: str = ROLLOUT) -> None:
        await until(lambda: self.row(rollout).state is state, f"{rollout} to be {state.value}")

    async def until_phase(self, state: RolloutPhase, rollout: str = ROLLOUT) -> None:
        await until(lambda: self.state(rollout).phase is state, f"{rollout} to be {state.value}")

    def state(self, rollout: str = ROLLOUT) -> RolloutState:
        """How the rollout stands in the ledger."""
        return self.ledger.read_now(lambda c: rollouts.load(c, rollout))

    def row(self, rollout: str = ROLLOUT) -> rollouts.RolloutRow:
        return self.ledger.read_now(lambda c: rollouts.get(c, rollout))

    def device(self, device: str) -> DevicePhase:
        """Where a device stands in the newest rollout that has it."""
        for row in self.ledger.read_now(rollouts.every):
            state = self.state(row.id)
            if device in state.devices:
                return state.devices[device].phase
        raise AssertionError(f"{device} is in no rollout")

    def given(self, device: str) -> list[DesiredRow]:
        """All that a device was to have, the oldest first."""
        return self.ledger.read_now(lambda c: devices.history(c, device))[::-1]

    def releases(self, device: str) -> list[str]:
        """The same, as the names of this rig's releases."""
        names: Mapping[str | None, str] = {self.new: "new", self.old: "old", None: "nothing"}
        return [names[row.release] for row in self.given(device)]

    def requests(self, device: str) -> list[requests.RequestRow]:
        return self.ledger.read_now(lambda c: requests.open_of(c, device))


@asynccontextmanager
async def rig(folder: Path, names: Sequence[str] = NAMES) -> AsyncIterator[Rig]:
    """A runner that was started, on a ledger with these devices."""
    with opened(folder) as ledger:
        made = Rig(ledger, names)
        await made.runner.start()
        try:
            yield made
        finally:
            await made.runner.close()


async def with_old(made: Rig, names: Sequence[str] = NAMES) -> None:
    """Let these devices have `old`, by a rollout that has succeeded."""
    await made.begin(names, releases=dict.fromkeys(names, made.old), waves=(tuple(names),))
    for name in names:
        await made.succeeds(name)
    await made.until_ended(RolloutPhase.SUCCEEDED)
