"""Carries rollouts out: what may be asked of them, and what is told of them.

Everything that a restart needs is stored before anything is done about it (`live_rollouts`): a rollout goes on where it
stood, and what devices said in between is read from the ledger and told to it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.ledger import rollouts
from edgewright_controller.rollout import Aborted, Command, Finish, RolloutState
from edgewright_controller.rollout.state import MARK_S
from edgewright_controller.service import rollout_views
from edgewright_controller.service.job import Job
from edgewright_controller.service.leaving import leave, leave_as_stored
from edgewright_controller.service.live_rollouts import LiveRollouts
from edgewright_controller.service.newcomers import Newcomers
from edgewright_controller.service.rollout_beginning import begin
from edgewright_controller.service.rollout_commands import Answer, Commands
from edgewright_controller.service.rollout_health import RolloutHealth
from edgewright_controller.service.rollout_hearing import Hearing
from edgewright_controller.service.rollout_news import RolloutNews
from edgewright_controller.service.rollout_probes import RolloutProbes
from edgewright_controller.service.rollout_storing import Storage
from edgewright_controller.service.rollout_ticking import tick
from edgewright_controller.service.unbroken import Unbroken
from edgewright_controller.service.waits_for import waits_for
from edgewright_controller.service.wish import Wish


@dataclass
class HintRelay:
    """Where hints go, once the broker's client is there; until then nowhere, which only makes a device wait."""

    to: Callable[[str, int], None] | None = None

    def hint(self, device: str, generation: int) -> None:
        """Tell `device` to check in."""
        if self.to is not None:
            self.to(device, generation)


class RolloutsRunner:
    """All rollouts of the fleet. Belongs to one event loop."""

    def __init__(
        self,
        ledger: Storage,
        hint: Callable[[str, int], None],
        *,
        shut: Callable[[], frozenset[str]] = frozenset,
        clock: Callable[[], datetime],
        look_every_s: float = MARK_S,
    ) -> None:
        """`shut`: the devices that may say nothing any more; nobody waits for those. `look_every_s`: the clock is
        looked at so often at least while a rollout runs."""
        self._look_every_s = look_every_s
        self._live = LiveRollouts(ledger, hint, clock)
        self._hearing = Hearing(self._live, shut)
        self._commands = Commands(self._live, shut)
        self._newcomers = Newcomers(self._live, shut)
        self._live.on_end.append(self._newcomers.look)
        self._probes = RolloutProbes(self._live, hint)
        self._health = RolloutHealth(self._live, self._probes.passed)
        self._tasks: list[asyncio.Task[None]] = []
        self._unbroken = Unbroken()

    async def start(self) -> None:
        """Take up the rollouts that an earlier controller left. Raises LedgerError."""
        for device, status in (await self._live.take_up()).items():
            self._hearing.reported(device, status)
        await leave_as_stored(self._live)
        # A wave whose watching ends at once must not go on because nobody has looked yet how its devices do.
        await self._health.look()
        self._newcomers.look()
        self._tasks = [
            asyncio.create_task(self._hearing.run(), name="rollouts hear"),
            asyncio.create_task(tick(self._live, self._hearing.silence_shut, self._look_every_s), name="rollouts tick"),
            asyncio.create_task(self._newcomers.run(), name="newcomers"),
            asyncio.create_task(self._probes.run(), name="probes asked again"),
            asyncio.create_task(self._health.run(), name="health looked at"),
        ]

    async def close(self) -> None:
        """Stop; what is unfinished goes on at the next start."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def reported(self, device: str, status: agent_pb2.DeviceStatus) -> None:
        """A device's status changed. Never blocks."""
        self._hearing.reported(device, status)
        if not status.generation:
            self._newcomers.look()

    def look_for_shut(self) -> None:
        """Devices were shut out just now. Never blocks."""
        self._hearing.look_for_shut()

    @property
    def waiting(self) -> int:
        """How many devices have said something that has not been heard yet: at most one word of each."""
        return self._hearing.waiting

    async def begin(self, wish: Wish, job: Job) -> asyncio.Future[Finish]:
        """Start a rollout, which takes its devices over from those that run; how it ends.

        When one that runs does just this, nothing is started and `job` follows that one: whoever left an apply, or
        applies what a colleague is applying, watches it to its end. Raises RolloutError, LedgerError.
        """
        async with self._live.turn:
            return (await begin(self._live, wish, job)).ended

    async def take_back(
        self, digests: Collection[str], wish: Callable[[Connection], Wish], job: Job, *, by: str
    ) -> asyncio.Future[Finish]:
        """Abort the rollouts that give one of these releases to anybody, then begin what `wish` makes of the ledger as
        it then is; nothing comes between the two. How it ends. Raises RolloutError, LedgerError.

        Devices under way return to what they had by the abort, those that have the release by what is begun.
        """
        async with self._live.turn:
            for name, live in list(self._live.running.items()):
                gives = any(target.release in digests for target in live.state.targets.values())
                if gives and not live.undoes:
                    await self._live.event(name, Aborted(by=by))
                    job.message(f"{name} is stopped")
            return (await begin(self._live, await self._live.ledger.read(wish), job)).ended

    async def control(self, rollout: str, command: Command) -> Answer:
        """Do what an operator says to a rollout; how it stands then.

        Raises NotInLedger when there is no such rollout, RolloutError when this cannot be done to it, LedgerError.
        """
        # Whoever asked may leave; what is stored of it and what is done about it stay one.
        return await self._unbroken.finish(self._control(rollout, command))

    async def _control(self, rollout: str, command: Command) -> Answer:
        async with self._live.turn:
            return await self._commands.do(rollout, command)

    async def leave(self, devices: Sequence[str], reason: str, *, waiting_only: bool) -> None:
        """Go on without these devices; with `waiting_only`, only where they wait for their offer. Raises LedgerError;
        then it may be said again."""
        async with self._live.turn:
            await leave(self._live, devices, reason, waiting_only=waiting_only)

    def look_for_newcomers(self) -> None:
        """Devices may be given something now that were never given anything. Never blocks."""
        self._newcomers.look()

    @property
    def running(self) -> list[RolloutState]:
        """How those stand that run, the oldest first; to be looked at only."""
        return [live.state for live in self._live.running.values()]

    @property
    def handed_out(self) -> frozenset[str]:
        """The releases that rollouts give to devices just now, those aside that take something back."""
        going_out = [live.state.targets.values() for live in self._live.running.values() if not live.undoes]
        return frozenset(target.release for targets in going_out for target in targets if target.release)

    async def listed(self, limit: int) -> list[operator_pb2.RolloutView]:
        """At most `limit` rollouts, the newest first, also those that ended. Raises LedgerError."""
        views = await self._live.ledger.read(
            lambda c: [rollout_views.of_row(c, row) for row in rollouts.every(c, limit)]
        )
        now = self._live.clock().timestamp()
        for view in views:
            if live := self._live.running.get(view.rollout):
                wait = waits_for(live.state, now)
                view.waits_for, view.waits_s = wait.words, wait.seconds or 0.0
        return views

    def news(self, rollout: str) -> RolloutNews | None:
        """The news of a rollout that runs, of the newest of them for ""; None when it does not, or none does."""
        running = self._live.running
        live = running.get(rollout) if rollout else next(reversed(running.values()), None)
        return live.news if live else None

    async def views(self) -> list[operator_pb2.RolloutView]:
        """Those that run, else the newest that ended."""
        shown = list(self._live.running.values()) or ([self._live.last] if self._live.last else [])
        now = self._live.clock().timestamp()
        return [rollout_views.of_state(one.state, now) for one in shown]

    def device_state(self, device: str) -> str:
        """Where the device stands in the newest rollout that has it, empty when in none."""
        for one in (*reversed(self._live.running.values()), self._live.last):
            if one is not None and device in one.state.devices and not one.state.devices[device].detached:
                return one.state.devices[device].phase.value
        return ""

    def under_way(self, devices: Collection[str], releases: Collection[str] = ()) -> str:
        """The name of a rollout that has one of these devices, or gives one of these releases; empty: none."""
        for name, live in self._live.running.items():
            for device, target in live.state.targets.items():
                attached = not live.state.devices[device].detached
                if attached and (device in devices or target.release in releases):
                    return name
        return ""
