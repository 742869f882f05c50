"""Whatever happens to a rollout, in whatever order, it keeps its promises; `rollout_world` has them."""

from __future__ import annotations

import os
import random

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgewright_controller.gates import HealthSamples
from edgewright_controller.rollout import (
    Aborted,
    Approved,
    Evidence,
    Outcome,
    Paused,
    Resumed,
    Retried,
    RolloutPhase,
    Skipped,
    Started,
    Superseded,
    Tick,
)
from tests.controller.rollout_world import JUMPS, UNCLEAR, WORSE, World, play, some_rollout

SOAK = 50 if os.environ.get("EDGEWRIGHT_SOAK") else 1  # a state machine takes no fixtures
NAMES = [f"dev-{number}" for number in range(7)]
SOME = st.frozensets(st.sampled_from(NAMES), min_size=1, max_size=3)


class AnyRollout(RuleBasedStateMachine):
    """Events, losses, repetitions, reorderings, stale reports, restarts and clocks that jump."""

    @initialize(seed=st.integers(0, 2**32), start=st.sampled_from([True, True, True, False]))
    def begin(self, seed: int, start: bool) -> None:
        self.world = World(some_rollout(random.Random(seed)))
        if start:
            self.world.command(Started())

    @rule()
    def start(self) -> None:
        self.world.command(Started())

    @rule(name=st.sampled_from(NAMES), how=st.integers(0, 12))
    def act(self, name: str, how: int) -> None:
        if name in self.world.devices:
            self.world.act(name, how)

    @rule(which=st.integers(0, 20), again=st.booleans())
    @precondition(lambda self: self.world.mail)
    def deliver(self, which: int, again: bool) -> None:
        self.world.deliver(which, again=again)

    @rule(which=st.integers(0, 20))
    @precondition(lambda self: self.world.mail)
    def lose(self, which: int) -> None:
        self.world.lose(which)

    @rule(name=st.sampled_from(NAMES), off=st.sampled_from([-7, -1, 1, 2]), outcome=st.sampled_from(Outcome))
    def stale(self, name: str, off: int, outcome: Outcome) -> None:
        if name in self.world.devices:
            self.world.stale(name, off, outcome)

    @rule(name=st.sampled_from(NAMES))
    def silence(self, name: str) -> None:
        if name in self.world.devices:
            self.world.silence(name)

    @rule(name=st.sampled_from(NAMES), waiting_only=st.booleans())
    def leave(self, name: str, waiting_only: bool) -> None:
        if name in self.world.devices:
            self.world.leave(name, waiting_only=waiting_only)

    @rule(seconds=st.sampled_from([1.0, 10.0, 30.0, *JUMPS]))
    def time_passes(self, seconds: float) -> None:
        self.world.do(Tick(), seconds)

    @rule(event=st.sampled_from([Paused(), Resumed(), Approved(), Approved(), Retried()]))
    def command(self, event: Paused | Resumed | Approved | Retried) -> None:
        self.world.command(event)

    @rule(some=SOME, kind=st.sampled_from([Retried, Skipped]))
    def name_devices(self, some: frozenset[str], kind: type[Retried] | type[Skipped]) -> None:
        self.world.command(kind(some & self.world.devices.keys()))

    @rule(health=st.sampled_from([WORSE, UNCLEAR, HealthSamples()]))
    def evidence(self, health: HealthSamples) -> None:
        self.world.do(Evidence(health))

    @rule(revert=st.booleans())
    def abort(self, revert: bool) -> None:
        self.world.command(Aborted(revert=revert))

    @rule(some=st.one_of(st.none(), SOME))
    def supersede(self, some: frozenset[str] | None) -> None:
        self.world.do(Superseded("rollout-2", some))

    @rule()
    def restart(self) -> None:
        self.world.restart()

    @invariant()
    def look(self) -> None:
        if hasattr(self, "world"):
            self.world.look()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.finish()


TestAnyRollout = AnyRollout.TestCase
TestAnyRollout.settings = settings(
    max_examples=40 * SOAK, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_rollouts_from_seeds_keep_their_promises_and_end_in_every_way(soak: int) -> None:
    ended = {play(seed) for seed in range(300 * soak)}
    assert ended == {phase for phase in RolloutPhase if phase.final}
