"""A rollout among devices that do what devices do, and the promises that it keeps whatever happens.

The devices are simulated as far as a rollout can tell: they check in or do not, take a release into use or refuse it,
hold what failed by its own fault, try again what failed by circumstance, and fall back later. What they say is lost,
comes twice, late, or after a report that is newer. `World` is driven by hypothesis in the tests and by `play` from a
seed, a hundred thousand times over, in benchmarks/rollout.py. Every promise is an assertion here.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import pairwise
from typing import Final

from edgewright_controller.gates import Comparison, GatePolicy, HealthSamples
from edgewright_controller.rollout import (
    Aborted,
    Action,
    AfterWave,
    Approved,
    Changes,
    Command,
    DevicePhase,
    DeviceReported,
    Evidence,
    Left,
    LiftHold,
    OnFailure,
    Outcome,
    Paused,
    Resumed,
    Retried,
    RolloutError,
    RolloutPhase,
    RolloutPolicy,
    RolloutSpec,
    RolloutTarget,
    SetDesired,
    Silenced,
    Skipped,
    Started,
    Superseded,
    Then,
    Tick,
    Window,
    seconds_until_due,
    step,
)
from edgewright_controller.rollout.model import IN_FLIGHT, UNSETTLED
from edgewright_controller.rollout.window import is_open
from tests.controller.rollout_driver import NEW, OLD, Driver

BEFORE_ONE: Final = datetime(2026, 3, 3, 0, 50, tzinfo=timezone.utc).timestamp()
_DAILY: Final = frozenset(range(7))
WINDOWS: Final[Sequence[tuple[tuple[Window, ...], str]]] = (
    ((Window(_DAILY, 60, 70),), "UTC"),  # opens in ten minutes, for ten
    ((Window(_DAILY, 0, 55),), "UTC"),  # closes in five
    ((Window(frozenset({1}), 60, 300),), "Europe/Berlin"),  # open
    ((Window(frozenset({5}), 60, 300),), "Asia/Tokyo"),  # not for days
)
STEPS: Final = ("planning", "downloading", "verifying", "starting", "proving", "probing", "switching", "reverting")
JUMPS: Final = (61.0, 3600.0, -3600.0, 86400.0, 3.2e8, -3.2e8)
WORSE: Final = HealthSamples(errors=Comparison(9.0, 3, 0.01, 0.2), requests=500)
UNCLEAR: Final = HealthSamples(errors=Comparison(1.0, 3, 0.01, 0.02), requests=500)
AWAITED: Final = (*IN_FLIGHT, DevicePhase.REVERTING)
# Of 60 s ticks, for a rollout of at most seven devices and three waves; patience is at most ten minutes.
MOST_TICKS: Final = 400


class NeverEnded(AssertionError):
    """A rollout, or a device in it, has no final state."""


@dataclass
class _Device:
    """What it runs, and the newest generation that it has seen."""

    runs: str | None = OLD
    goal: str | None = OLD
    generation: int = 5
    settled: bool = True
    held: bool = False
    said: int = 0  # how often it has reported
    heard: int = 0  # which of its reports the controller knows, as its ledger would


class World(Driver):
    """One rollout, its devices, and what is on the way between them."""

    def __init__(self, of: RolloutSpec):
        super().__init__(of)
        self.now = BEFORE_ONE
        self.state.clock = type(self.state.clock)(0.0, self.now)
        self.devices = {device: _Device() for device in self.state.devices}
        self.names = list(self.devices)
        self.mail: list[tuple[int, DeviceReported]] = []  # with the number that the device gave it
        self.all_back = False
        self.cordoned: set[str] = set()
        self._offers: deque[float] = deque()
        self._offering_ended = False

    # ── What happens ──

    def act(self, name: str, how: int) -> None:
        """The device checks in, and gets on with what it is to have; `how` chooses what comes of it."""
        device = self.devices[name]
        if self.generations[name] > device.generation:
            device.generation, device.goal = self.generations[name], self.desired[name]
            device.settled = False
        if device.settled:
            if how == 0 and device.runs == NEW == device.goal:  # it breaks, and gives way to the previous
                device.runs, device.held = OLD, True
                self._say(name, Outcome.FAILED)
            return
        if device.goal == device.runs:
            device.settled = True
            self._say(name, Outcome.SUCCEEDED)
        elif device.held and device.goal == NEW:
            device.settled = True
            self._say(name, Outcome.FAILED)
        elif how <= 2:
            device.settled = device.held = True
            self._say(name, Outcome.FAILED)
        elif how == 3:  # by circumstance: it tries again
            self._say(name, Outcome.FAILED, again=True)
        elif how <= 5:
            self._say(name, Outcome.IN_PROGRESS, STEPS[(how + device.said) % len(STEPS)])
        else:
            device.runs, device.settled = device.goal, True
            self._say(name, Outcome.SUCCEEDED)

    def _say(self, name: str, outcome: Outcome, step_name: str = "", *, again: bool = False) -> None:
        device = self.devices[name]
        device.said += 1
        report = DeviceReported(name, device.generation, outcome, step_name, "as it says", again)
        self.mail.append((device.said, report))

    def deliver(self, which: int, *, again: bool = False) -> None:
        """A report arrives; with `again` it will once more. An older one than what is known is dropped, as the ledger
        drops it."""
        if not self.mail:
            return
        number, report = self.mail[which % len(self.mail)] if again else self.mail.pop(which % len(self.mail))
        device = self.devices[report.device]
        if number < device.heard:
            return
        device.heard = number
        mine = self.state.devices[report.device].generation == report.generation
        changes = self.do(report, 1.0)
        assert mine or not changes, "a report of another generation changes nothing"

    def lose(self, which: int) -> None:
        """A report is lost for good."""
        if self.mail:
            self.mail.pop(which % len(self.mail))

    def stale(self, name: str, off: int, outcome: Outcome) -> None:
        """A report of a generation that is not the device's comes from somewhere."""
        changes = self.do(DeviceReported(name, self.state.devices[name].generation + off, outcome), 1.0)
        assert not changes, "a report of another generation changes nothing"

    def silence(self, name: str) -> None:
        """The device may not answer any more."""
        before = self.state.devices[name]
        self.do(Silenced(name, "its certificates were revoked"), 1.0)
        if before.phase in IN_FLIGHT and not before.detached and self.state.ending is None:
            assert self.state.devices[name].phase is DevicePhase.TIMED_OUT

    def leave(self, name: str, *, waiting_only: bool) -> None:
        """The device is cordoned, or decommissioned."""
        before = self.state.devices[name]
        self.do(Left(name, "cordoned" if waiting_only else "decommissioned", waiting_only))
        after = self.state.devices[name]
        if before.phase is DevicePhase.WAITING and waiting_only and not before.detached and after.detached:
            self.cordoned.add(name)
        if waiting_only and not before.detached and before.phase is DevicePhase.TIMED_OUT and not self.phase.final:
            assert self.desired[name] == OLD, "a cordoned device does not come back to an offer"

    def command(self, event: Command | Started) -> bool:
        """What an operator says; False when it is refused."""
        try:
            self.do(event)
        except RolloutError:
            assert self.phase.final or not isinstance(event, Aborted), "whatever lives can be cancelled"
            return False
        if isinstance(event, Aborted) and event.revert:
            self.all_back = True
        return True

    def restart(self) -> None:
        """The controller dies and comes back: what it knows is what was stored."""
        before, health = self.state, self.state.health
        super().restart()
        after = self.state
        after.health = health  # comes anew, by itself
        for name in ("phase", "wave", "ending", "reason", "halted", "since", "devices", "counts", "clock"):
            assert getattr(after, name) == getattr(before, name), name
        assert {p: set(m) for p, m in after.members.items()} == {p: set(m) for p, m in before.members.items()}
        for seconds in (0.0, 50.0):
            assert step(after, Tick(), self.now + seconds) == step(before, Tick(), self.now + seconds)

    # ── What is promised on the way ──

    def noted(self, action: Action, changes: Changes) -> None:
        """Looks at each action as it is done."""
        if isinstance(action, LiftHold):
            self.devices[action.device].held = False
        if not isinstance(action, SetDesired) or action.release != NEW:
            return
        ending = changes.rollout.ending if changes.rollout else self.state.ending
        assert ending is None, "nothing is offered once it is decided that it stops"
        assert not self._offering_ended
        target = self.state.targets[action.device]
        assert is_open(target.windows, target.zone, self.now), "nothing is offered outside of the window"
        rate = self.state.spec.policy.devices_per_minute
        if rate is not None:
            assert changes.clock is not None
            watched = changes.clock.watched
            self._offers.append(watched)
            while self._offers[0] <= watched - 60:
                self._offers.popleft()
            assert len(self._offers) <= rate * 70 / 60 + 1, "no more is offered than the limit allows"

    def look(self) -> None:
        """What holds after every step."""
        state, phases = self.state, self.phases()
        assert state.counts == {phase: phases.count(phase) for phase in DevicePhase}
        attached = {name: d for name, d in state.devices.items() if not d.detached}
        for phase, members in state.members.items():
            assert set(members) == {name for name, d in attached.items() if d.phase is phase}
        waiting = [n for n, d in attached.items() if d.phase is DevicePhase.WAITING and state.waves[n] <= state.wave]
        assert len(state.pending) == len(waiting)
        queued = set(state.deadlines)
        for name, device in state.devices.items():
            awaited = device.phase in AWAITED and not device.detached
            assert (device.deadline is not None) == awaited, "whoever is expected has a deadline, and nobody else"
            if device.deadline is not None:
                assert device.until is not None
                assert device.deadline <= device.until
                assert (device.deadline, name) in queued
        self._look_at_failures()
        due = seconds_until_due(state, self.now)
        assert (due is None) == state.phase.final
        assert due is None or 0 <= due <= 10

    def _look_at_failures(self) -> None:
        state, gate = self.state, self.state.spec.policy.gate
        failed = state.counts[DevicePhase.FAILED] + state.counts[DevicePhase.TIMED_OUT]
        under_way = sum(state.counts[phase] for phase in IN_FLIGHT)
        offered = failed + under_way + state.counts[DevicePhase.SUCCEEDED]
        too_many = failed > gate.max_failures and 100 * failed > gate.max_failed_percent * offered
        if too_many and not state.phase.final:
            assert state.ending is not None, "it stops at the failure that is one too many"
        if state.ending is not None or state.phase.final:
            # From here on only devices that were under way can still fail, so the overrun is no more than those.
            self._offering_ended = True
            assert state.counts[DevicePhase.WAITING] == 0

    # ── What is promised in the end ──

    def finish(self) -> None:
        """Nobody says anything any more; only time passes. Raises NeverEnded when that does not end it."""
        ticks = 0
        if not self.state.wave and self.state.phase is RolloutPhase.WAITING:
            ticks -= 20
        while not self.phase.final:
            self.do(Tick(), 60.0)
            ticks += 1
            if ticks > MOST_TICKS:
                raise NeverEnded(f"still {self.phase} after {ticks} minutes: {self.state.reason}")
        if set(self.phases()) & set(UNSETTLED):
            raise NeverEnded(f"{self.phase}, with devices that are {self.phases()}")
        self.look()
        assert len(self.finished) == 1, "its end is told once"
        for event in (Tick(), Left(self.names[0], "late"), Superseded("rollout-3"), Silenced(self.names[0], "late")):
            assert not self.do(event, 60.0), "nothing changes what has ended"
        assert not self.command(Aborted(revert=True))
        self._everybody_comes_back()

    def _everybody_comes_back(self) -> None:
        """After weeks all devices check in, and go to what they are to have then."""
        stopped = self.phase in (RolloutPhase.FAILED, RolloutPhase.ABORTED)
        reverts = self.state.spec.policy.on_failure is OnFailure.REVERT and self.phase is RolloutPhase.FAILED
        for name, device in self.devices.items():
            wanted = self.desired.get(name, OLD)
            if not (device.held and wanted == NEW):
                device.runs = wanted
            stands = self.state.devices[name]
            if name in self.cordoned:
                assert device.runs == OLD, f"{name} was cordoned while it waited"
            if stands.detached:
                continue  # others have it now
            if stopped and (self.all_back or reverts):
                assert device.runs == OLD, f"{name} was left with what was reverted"
            elif stands.phase is DevicePhase.SUCCEEDED:
                assert wanted == NEW
                assert device.runs == NEW or device.held, f"{name} succeeded and does not have it"
            elif stopped or stands.phase in (DevicePhase.SKIPPED, DevicePhase.REVERTED):
                assert device.runs == OLD, f"{name} is {stands.phase.value}, and has it all the same"


# ── From a seed ──


def some_rollout(chance: random.Random) -> RolloutSpec:
    """Any rollout of at most seven devices in at most three waves."""
    devices = chance.randint(1, 7)
    windowed = chance.random() < 0.4
    targets = []
    for number in range(devices):
        windows, zone = chance.choice(WINDOWS) if windowed and chance.random() < 0.5 else ((), "UTC")
        targets.append(RolloutTarget(f"dev-{number}", NEW, OLD, 5, windows, zone))
    cuts = sorted({0, devices, *(chance.randint(0, devices) for _ in range(2))})
    waves = tuple(tuple(targets[a:b]) for a, b in pairwise(cuts))
    thens = (Then.GO_ON, Then.GO_ON, Then.GO_ON, Then.APPROVAL, Then.PAUSE)
    after = tuple(AfterWave(chance.choice((0.0, 0.0, 45.0)), chance.choice(thens)) for _ in waves)
    return RolloutSpec("rollout-1", waves, some_policy(chance), after[: chance.randint(0, len(after))])


def some_policy(chance: random.Random) -> RolloutPolicy:
    """Any policy, with deadlines of minutes."""
    steps = {"check_in": 40.0, "download": 60.0, "prove": 30.0} if chance.random() < 0.3 else {}
    return RolloutPolicy(
        device_deadline_s=100.0,
        gate=GatePolicy(chance.choice((0, 1, 1, 2, 7)), chance.choice((0.0, 30.0)), chance.choice((0.0, 0.0, 40.0))),
        on_failure=chance.choice((OnFailure.KEEP, OnFailure.REVERT)),
        patience_s=chance.choice((120.0, 600.0)),
        step_deadlines_s=steps,
        deadline_s=chance.choice((None, None, None, 400.0)),
        devices_per_minute=chance.choice((None, None, 2, 30)),
    )


def play(seed: int) -> RolloutPhase:
    """One whole rollout, from a seed; how it ended. Raises AssertionError when a promise is broken."""
    chance = random.Random(seed)
    world = World(some_rollout(chance))
    if chance.random() < 0.95:
        world.command(Started())
    eventful = chance.choice((0.0, 0.02, 0.1))  # how much else goes on than devices doing their work
    for _ in range(chance.randint(5, 60)):
        if chance.random() < eventful:
            _something_else(world, chance)
        else:
            _devices_work(world, chance)
        world.look()
        if world.phase.final:
            break
    if chance.random() < 0.5:
        _all_go_well(world)
    world.finish()
    return world.phase


def _all_go_well(world: World) -> None:
    for _ in range(30):
        world.command(Approved())
        for name in world.names:
            world.act(name, 6)
        while world.mail:
            world.deliver(0)
        world.do(Tick(), 10.0)
        world.look()


def _devices_work(world: World, chance: random.Random) -> None:
    kind = chance.random()
    if kind < 0.4:
        # Most succeed, or nearly every rollout would stop at its first device.
        world.act(chance.choice(world.names), chance.choice((0, 2, 3, 4, 5, *(6,) * 15)))
    elif kind < 0.8:
        world.deliver(chance.randrange(8), again=chance.random() < 0.1)
    elif kind < 0.83:
        world.lose(chance.randrange(8))
    elif kind < 0.86:
        world.stale(chance.choice(world.names), chance.choice((-2, -1, 1)), chance.choice(list(Outcome)))
    else:
        world.do(Tick(), chance.choice((1.0, 10.0, 30.0)))


def _something_else(world: World, chance: random.Random) -> None:
    name = chance.choice(world.names)
    some = frozenset(chance.sample(world.names, chance.randint(1, min(3, len(world.names)))))
    kind = chance.randrange(15)
    if kind == 0:
        world.do(Tick(), chance.choice(JUMPS))
    elif kind == 1:
        world.command(Paused())
    elif kind == 2:
        world.command(Resumed())
    elif kind in (3, 4):
        world.command(Approved())
    elif kind == 5:
        world.command(Retried())
    elif kind == 6:
        world.command(Retried(some))
    elif kind == 7:
        world.command(Skipped(some))
    elif kind == 8:
        world.leave(name, waiting_only=chance.random() < 0.5)
    elif kind == 9:
        world.silence(name)
    elif kind == 10:
        world.do(Evidence(chance.choice((WORSE, UNCLEAR, HealthSamples()))))
    elif kind == 11 and chance.random() < 0.5:
        world.command(Aborted(revert=chance.random() < 0.5))
    elif kind == 12 and chance.random() < 0.5:
        world.do(Superseded("rollout-2", some if chance.random() < 0.8 else None))
    else:
        world.restart()
