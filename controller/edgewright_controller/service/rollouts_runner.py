"""Carries rollouts out: events in, one at a time; what a step changes into the ledger; then the acts.

Everything that a restart needs is stored before anything is done about it: a rollout goes on where it
stood, and what devices said in between is read from the ledger and told to it again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller import log
from edgewright_controller.ledger import GenerationTaken, LedgerError, audit, devices, releases, rollouts
from edgewright_controller.rollout import (
    Aborted,
    Actions,
    Changes,
    DevicePhase,
    DeviceReported,
    Event,
    Finish,
    Hint,
    Outcome,
    Paused,
    Resumed,
    RolloutError,
    RolloutPhase,
    RolloutSpec,
    RolloutState,
    Silenced,
    Started,
    Superseded,
    Tick,
    apply_changes,
    in_two_waves,
    seconds_until_due,
    step,
)
from edgewright_controller.service import rollout_views, standing
from edgewright_controller.service.job import Job
from edgewright_controller.service.unbroken import Unbroken
from edgewright_controller.service.wish import Wish, does, targets
from edgewright_controller.unix_time import unix_ms

AGAIN_S: Final = 1.0

_OUTCOMES: Final[Mapping[int, Outcome]] = {
    agent_pb2.OUTCOME_IN_PROGRESS: Outcome.IN_PROGRESS,
    agent_pb2.OUTCOME_SUCCEEDED: Outcome.SUCCEEDED,
    agent_pb2.OUTCOME_FAILED: Outcome.FAILED,
    agent_pb2.OUTCOME_HELD: Outcome.FAILED,
}

_AWAITED: Final = frozenset({DevicePhase.OFFERED, DevicePhase.UPDATING, DevicePhase.REVERTING})

T = TypeVar("T")

_log = log.of(__name__)


class Storage(Protocol):
    """What the runner needs of a ledger."""

    async def read(self, act: Callable[[Connection], T], /) -> T:
        """What `act` reads. Raises LedgerError."""

    async def write(self, act: Callable[[Connection], T], /) -> T:
        """What `act` returns, once it is stored. Raises LedgerError."""


@dataclass
class HintRelay:
    """Where hints go, once the broker's client is there; until then nowhere, which only makes a device wait."""

    to: Callable[[str, int], None] | None = None

    def hint(self, device: str, generation: int) -> None:
        """Tell `device` to check in."""
        if self.to is not None:
            self.to(device, generation)


@dataclass
class _Live:
    state: RolloutState
    undoes: bool = False  # it takes something back, rather than handing something out
    jobs: list[Job] = field(default_factory=list)
    ended: asyncio.Future[Finish] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class RolloutsRunner:
    """All rollouts of the fleet. Belongs to one event loop."""

    def __init__(
        self,
        ledger: Storage,
        hint: Callable[[str, int], None],
        *,
        shut: Callable[[], frozenset[str]] = frozenset,
        clock: Callable[[], datetime],
    ) -> None:
        """`shut`: the devices that may say nothing any more; nobody waits for those."""
        self._ledger, self._hint, self._shut, self._clock = ledger, hint, shut, clock
        self._live: dict[str, _Live] = {}
        self._last: _Live | None = None
        self._turn = asyncio.Lock()  # one event at a time
        # A status says everything, so only a device's newest waits.
        self._waiting: dict[str, agent_pb2.DeviceStatus] = {}
        self._reported = asyncio.Event()
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._unbroken = Unbroken()

    async def start(self) -> None:
        """Take up the rollouts that an earlier controller left. Raises LedgerError."""
        for name in await self._ledger.read(rollouts.live):
            state = await self._ledger.read(lambda c, name=name: rollouts.load(c, name))  # type: ignore[misc]  # mypy cannot type a lambda's default
            stored = await self._ledger.read(lambda c, name=name: rollouts.get(c, name))  # type: ignore[misc]  # mypy cannot type a lambda's default
            self._live[state.spec.id] = _Live(state, bool(stored.about.get("undoes")))
            _log.info("rollout goes on", rollout=state.spec.id, state=state.phase.value, why=state.reason)
            if not state.wave:
                await self._event(state.spec.id, Started())
            statuses = await self._ledger.read(lambda c, s=state: devices.every(c, list(s.devices)))  # type: ignore[misc]  # mypy cannot type a lambda's default
            for row in statuses:
                status = standing.said(row)
                if status is not None:
                    self.reported(row.id, status)
        self._tasks = [asyncio.create_task(self._hear(), name="rollouts"), asyncio.create_task(self._tick())]

    async def close(self) -> None:
        """Stop; what is unfinished goes on at the next start."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def reported(self, device: str, status: agent_pb2.DeviceStatus) -> None:
        """A device's status changed. Never blocks."""
        self._waiting[device] = status
        self._reported.set()

    def look_for_shut(self) -> None:
        """Devices were shut out just now. Never blocks."""
        self._reported.set()

    @property
    def waiting(self) -> int:
        """How many devices have said something that has not been heard yet: at most one word of each."""
        return len(self._waiting)

    async def begin(self, wish: Wish, job: Job) -> asyncio.Future[Finish]:
        """Start a rollout, which takes its devices over from those that run; how it ends.

        When one that runs does just this, nothing is started and `job` follows that one: whoever left an apply, or
        applies what a colleague is applying, watches it to its end. Raises RolloutError, LedgerError.
        """
        async with self._turn:
            if wish.not_again:
                rolled_back = await self._ledger.read(releases.rolled_back) & set(wish.releases.values())
                if rolled_back:
                    named = ", ".join(sorted(digest[:12] for digest in rolled_back if digest))
                    raise RolloutError(f"release {named} was rolled back meanwhile; `apply --again` releases it")
            for live in self._live.values():
                if does(live.state, wish):
                    self._follow(live, job)
                    return live.ended
            name = await self._ledger.read(rollouts.next_id)
            for other in list(self._live):
                await self._event(other, Superseded(name, frozenset(wish.releases)))
            parts = await self._ledger.read(lambda c: targets(c, wish))
            spec = RolloutSpec(name, in_two_waves(parts, wish.first_wave), wish.policy)
            now = self._clock().timestamp()
            undoes = bool(wish.back_to)
            about = {"what": wish.about, "undoes": undoes}
            state = await self._ledger.write(lambda c: _created(c, spec, wish, about, now))
            live = self._live[name] = _Live(state, undoes, [job])
            _log.info("rollout begins", rollout=name, what=wish.about, operator=wish.by, devices=len(wish.releases))
            try:
                await self._event(name, Started())
            except LedgerError as error:
                # It is stored and goes on where it stands: the next tick begins with its first wave.
                _log.error("rollout waits", rollout=name, why=str(error))
                job.message(f"{name} waits for the ledger: {error}")
            self._news.set()
            return live.ended

    async def control(self, rollout: str, command: Paused | Resumed | Aborted) -> RolloutPhase:
        """Do what an operator says to a rollout; where it stands then.

        Raises NotInLedger when there is no such rollout, RolloutError when this cannot be done to it, LedgerError.
        """
        # Whoever asked may leave; what is stored of it and what is done about it stay one.
        return await self._unbroken.finish(self._control(rollout, command))

    async def _control(self, rollout: str, command: Paused | Resumed | Aborted) -> RolloutPhase:
        async with self._turn:
            live = self._live.get(rollout)
            if live is None:
                row = await self._ledger.read(lambda c: rollouts.get(c, rollout))
                raise RolloutError(f"rollout {rollout} has ended already; it {row.state.value}: {row.reason}")
            await self._event(rollout, command)
            self._news.set()
            return live.state.phase

    @property
    def handed_out(self) -> frozenset[str]:
        """The releases that rollouts give to devices just now, those aside that take something back."""
        going_out = [live.state.targets.values() for live in self._live.values() if not live.undoes]
        return frozenset(target.release for targets in going_out for target in targets if target.release)

    async def stop_handing_out(self, digests: Collection[str], by: str) -> list[str]:
        """Abort the rollouts that give one of these releases to anybody; their names. Raises LedgerError.

        Devices under way return to what they had, those that have it keep it: a rollback sees to them.
        """
        async with self._turn:
            found = [
                name
                for name, live in self._live.items()
                if not live.undoes and any(target.release in digests for target in live.state.targets.values())
            ]
            for name in found:
                await self._event(name, Aborted(by=by))
            self._news.set()
            return found

    async def listed(self, limit: int) -> list[operator_pb2.RolloutView]:
        """At most `limit` rollouts, the newest first, also those that ended. Raises LedgerError."""
        return await self._ledger.read(lambda c: [rollout_views.of_row(c, row) for row in rollouts.every(c, limit)])

    async def views(self) -> list[operator_pb2.RolloutView]:
        """Those that run, else the newest that ended."""
        shown = list(self._live.values()) or ([self._last] if self._last else [])
        return [rollout_views.of_state(one.state) for one in shown]

    def device_state(self, device: str) -> str:
        """Where the device stands in the newest rollout that has it, empty when in none."""
        for one in (*reversed(self._live.values()), self._last):
            if one is not None and device in one.state.devices and not one.state.devices[device].detached:
                return one.state.devices[device].phase.value
        return ""

    def under_way(self, devices: Collection[str], releases: Collection[str] = ()) -> str:
        """The name of a rollout that has one of these devices, or gives one of these releases; empty: none."""
        for name, live in self._live.items():
            for device, target in live.state.targets.items():
                attached = not live.state.devices[device].detached
                if attached and (device in devices or target.release in releases):
                    return name
        return ""

    async def _hear(self) -> None:
        while True:
            await self._reported.wait()
            self._reported.clear()
            while self._waiting:
                device = next(iter(self._waiting))
                status = self._waiting.pop(device)
                try:
                    async with self._turn:
                        await self._report(device, status)
                except LedgerError as error:
                    # The status is stored, and the device may not repeat it: it is told again soon.
                    _log.error("status waits", device=device, why=str(error))
                    asyncio.get_running_loop().call_later(AGAIN_S, self._again, device, status)
                except Exception:
                    # A fault of ours in one rollout must not make us deaf for the others.
                    _log.exception("status lost by a fault", device=device)
            async with self._turn:
                await self._silence_shut()

    async def _silence_shut(self) -> None:
        """End the wait for devices that may not answer; a tick finds those that are offered something later."""
        shut = self._shut()
        for rollout, live in list(self._live.items()):
            for device in shut & live.state.devices.keys():
                if live.state.devices[device].phase in _AWAITED:
                    try:
                        await self._event(rollout, Silenced(device, "its certificates were revoked"))
                    except LedgerError as error:
                        _log.error("rollout waits", rollout=rollout, why=str(error))  # the next tick tries again
                        return

    def _again(self, device: str, status: agent_pb2.DeviceStatus) -> None:
        if device not in self._waiting:
            self.reported(device, status)

    async def _report(self, device: str, status: agent_pb2.DeviceStatus) -> None:
        """What a device says of a generation, unless it speaks of another release: of one that it had to see to on
        the way, and that is not what was given to it. A refusal of the metadata names none."""
        outcome = _OUTCOMES.get(status.outcome)
        name = agent_pb2.Step.Name(status.step).removeprefix("STEP_").lower() if status.step in _STEPS else ""
        for rollout, live in list(self._live.items()):
            if device not in live.state.devices or live.state.devices[device].generation != status.generation:
                continue
            self._say_device(live, device, status)
            target = live.state.targets[device]
            back = live.state.devices[device].phase is DevicePhase.REVERTING
            given = (target.previous if back else target.release) or ""
            if outcome is Outcome.FAILED and status.release not in ("", given):
                continue
            if outcome is not None:
                said = DeviceReported(device, status.generation, outcome, name, status.reason)
                await self._event(rollout, said, {device: status})

    async def _tick(self) -> None:
        while True:
            now = self._clock().timestamp()
            due = [seconds_until_due(live.state, now) for live in self._live.values()]
            waits = [seconds for seconds in due if seconds is not None]
            self._news.clear()
            try:
                # Not wait_for: before Python 3.12 it loses a cancellation that comes together with news.
                async with asyncio.timeout(max(0.05, min(waits)) if waits else None):
                    await self._news.wait()
                continue
            except TimeoutError:
                pass  # the time has come
            async with self._turn:
                await self._tick_all()

    async def _tick_all(self) -> None:
        for rollout in list(self._live):
            state = self._live[rollout].state
            begun = state.wave or state.phase is not RolloutPhase.WAITING
            try:
                await self._event(rollout, Tick() if begun else Started())
            except LedgerError as error:
                # The next tick tries again.
                _log.error("rollout waits", rollout=rollout, why=str(error))
            except Exception:
                _log.exception("a tick ended by a fault", rollout=rollout)
        await self._silence_shut()

    async def _event(
        self, rollout: str, event: Event, statuses: Mapping[str, agent_pb2.DeviceStatus] | None = None
    ) -> None:
        """Step, store, then act."""
        live, now = self._live[rollout], self._clock()
        changes, actions = step(live.state, event, now.timestamp())
        if not changes:
            return
        try:
            await self._ledger.write(lambda c: _stored(c, rollout, event, (changes, actions), now))
        except GenerationTaken as taken:
            # Another rollout has taken the device over, or a mandate that was drawn up meanwhile.
            await self._event(rollout, Superseded("another change", frozenset({taken.device})))
            if rollout in self._live:
                await self._event(rollout, event, statuses)
            return
        moved = [one for one in changes.devices if one.phase is not live.state.devices[one.device].phase]
        apply_changes(live.state, changes)
        for change in moved:
            release = live.state.targets[change.device].release
            about = {"device": change.device, "release": release, "rollout": rollout, "why": change.reason}
            _log.info(f"device {change.phase.value}", generation=change.generation, **about)
        self._say(live, changes, statuses or {})
        for action in actions:
            if isinstance(action, Hint):
                self._hint(action.device, action.generation)
            elif isinstance(action, Finish):
                self._finish(rollout, action)

    def _finish(self, rollout: str, finish: Finish) -> None:
        _log.info("rollout ended", rollout=rollout, state=finish.phase.value, why=finish.reason)
        self._last = self._live.pop(rollout)
        if not self._last.ended.done():
            self._last.ended.set_result(finish)

    def _follow(self, live: _Live, job: Job) -> None:
        """Let one more job tell how the rollout goes; it begins with how it stands."""
        _log.info("rollout is followed", rollout=live.state.spec.id)
        live.jobs = [one for one in live.jobs if one.result is None] + [job]
        job.message(f"{live.state.spec.id} is doing this already; following it")
        for device in live.state.devices:
            self._say_device(live, device, None)
        self._say_rollout(live)

    def _say(self, live: _Live, changes: Changes, statuses: Mapping[str, agent_pb2.DeviceStatus]) -> None:
        for change in changes.devices:
            self._say_device(live, change.device, statuses.get(change.device))
        if changes.rollout is not None:
            self._say_rollout(live)

    def _say_rollout(self, live: _Live) -> None:
        state = live.state
        progress = operator_pb2.RolloutProgress(
            rollout=state.spec.id,
            state=state.phase.value,
            wave=state.wave,
            waves=len(state.spec.waves),
            reason=state.reason,
        )
        _tell(live, operator_pb2.ApplyEvent(rollout=progress))

    def _say_device(self, live: _Live, device: str, status: agent_pb2.DeviceStatus | None) -> None:
        change = live.state.devices[device]
        shown = status or agent_pb2.DeviceStatus(reason=change.reason)
        progress = operator_pb2.DeviceProgress(device=device, state=change.phase.value, status=shown)
        _tell(live, operator_pb2.ApplyEvent(device=progress))


def _created(
    connection: Connection, spec: RolloutSpec, wish: Wish, about: Mapping[str, object], now: float
) -> RolloutState:
    """A new rollout and its entry in the audit log, in one transaction."""
    given = {release for release in wish.releases.values() if release}
    only = given.pop() if len(given) == 1 else ""
    said = {"actor": f"operator {wish.by}", "action": "rollout.begin", "subject": spec.id, "release": only}
    detail = f"{wish.about}: {len(wish.releases)} devices"
    audit.append(connection, **said, detail=detail, now_ms=int(now * 1000))
    return rollouts.create(connection, spec, by=wish.by, about=about, now=now)


def _stored(connection: Connection, rollout: str, event: Event, done: tuple[Changes, Actions], now: datetime) -> None:
    """What an event did to a rollout, and in the same transaction the entry of what an operator did by it."""
    rollouts.commit(connection, rollout, *done)
    if isinstance(event, Paused | Resumed | Aborted):
        by, _, reason = event.by.partition(": ")
        said = {"actor": f"operator {by}", "action": f"rollout.{type(event).__name__.lower()}", "subject": rollout}
        audit.append(connection, **said, detail=reason, now_ms=unix_ms(now))


def _tell(live: _Live, event: operator_pb2.ApplyEvent) -> None:
    for job in live.jobs:
        if job.result is None:
            job.say(event)


_STEPS: Final = frozenset(agent_pb2.Step.values())
