"""Whatever happens to a rollout, in whatever order, these hold."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgewright_controller.rollout import (
    Aborted,
    DevicePhase,
    DeviceReported,
    Outcome,
    Paused,
    Resumed,
    RolloutError,
    RolloutPhase,
    Silenced,
    Started,
    Superseded,
    Tick,
)
from edgewright_controller.rollout.model import IN_FLIGHT, UNSETTLED
from tests.controller.rollout_driver import NEW, OLD, Driver, policy, spec

DEVICES = 7
NAMES = [f"dev-{number}" for number in range(DEVICES)]


class AnyRollout(RuleBasedStateMachine):
    """Events, losses, repetitions, stale reports, restarts and clocks that jump."""

    @initialize(
        first=st.integers(1, DEVICES),
        max_failures=st.integers(0, 3),
        revert=st.booleans(),
        soak=st.sampled_from([0, 45]),
    )
    def begin(self, first: int, max_failures: int, revert: bool, soak: int) -> None:
        self.revert = revert
        self.limit = max_failures
        self.all_back = False
        self.driver = Driver(spec(DEVICES, first, policy(max_failures=max_failures, revert=revert, soak_s=soak)))

    @rule()
    def start(self) -> None:
        self._command(Started())

    @rule(
        device=st.sampled_from(NAMES),
        off=st.sampled_from([0, 0, 0, 0, -1, 1]),
        outcome=st.sampled_from([*Outcome, Outcome.SUCCEEDED, Outcome.SUCCEEDED]),
    )
    def report(self, device: str, off: int, outcome: Outcome) -> None:
        generation = self.driver.generations[device] + off
        changes = self.driver.do(DeviceReported(device, generation, outcome), 1.0)
        if off and generation != self.driver.state.devices[device].generation:
            assert not changes, "a report of another generation changes nothing"

    @rule(device=st.sampled_from(NAMES))
    def silence(self, device: str) -> None:
        before = self.driver.state.devices[device].phase
        self.driver.do(Silenced(device, "its certificates were revoked"), 1.0)
        if before in (*IN_FLIGHT, DevicePhase.REVERTING) and not self.driver.state.devices[device].detached:
            assert self.driver.state.devices[device].phase is DevicePhase.TIMED_OUT

    @rule(seconds=st.sampled_from([1.0, 15.0, 61.0, 3600.0, -3600.0, 4e8, -4e8]))
    def time_passes(self, seconds: float) -> None:
        self.driver.do(Tick(), seconds)

    @rule()
    def pause(self) -> None:
        self._command(Paused())

    @rule()
    def resume(self) -> None:
        self._command(Resumed())

    @rule(revert=st.booleans())
    @precondition(lambda self: self.driver.state.wave > 0)
    def abort(self, revert: bool) -> None:
        if self._command(Aborted(revert=revert)) and revert:
            self.all_back = True

    @rule(devices=st.one_of(st.none(), st.frozensets(st.sampled_from(NAMES), max_size=3)))
    @precondition(lambda self: self.driver.state.wave > 0)
    def supersede(self, devices: frozenset[str] | None) -> None:
        self.driver.do(Superseded("rollout-2", devices))

    @rule()
    def restart(self) -> None:
        before = self.driver.state
        self.driver.restart()
        after = self.driver.state
        for name in ("phase", "wave", "ending", "reason", "since", "devices", "counts", "clock"):
            assert getattr(after, name) == getattr(before, name), name
        assert {p: set(m) for p, m in after.members.items()} == {p: set(m) for p, m in before.members.items()}

    def _command(self, event: Started | Paused | Resumed | Aborted) -> bool:
        try:
            self.driver.do(event)
        except RolloutError:
            return False
        return True

    @invariant()
    def counts_are_what_counting_gives(self) -> None:
        if not hasattr(self, "driver"):
            return
        state = self.driver.state
        phases = self.driver.phases()
        assert state.counts == {phase: phases.count(phase) for phase in DevicePhase}
        for phase, members in state.members.items():
            expected = {n for n, d in state.devices.items() if d.phase is phase and not d.detached}
            assert set(members) == expected

    @invariant()
    def whoever_is_expected_has_a_deadline(self) -> None:
        if not hasattr(self, "driver"):
            return
        queued = set(self.driver.state.deadlines)
        for name, device in self.driver.state.devices.items():
            expected = device.phase in (*IN_FLIGHT, DevicePhase.REVERTING)
            assert (device.deadline is not None) == expected
            if device.deadline is not None:
                assert (device.deadline, name) in queued

    @invariant()
    def nothing_is_offered_after_too_many_failures(self) -> None:
        if not hasattr(self, "driver"):
            return
        state = self.driver.state
        failed = state.counts[DevicePhase.FAILED] + state.counts[DevicePhase.TIMED_OUT]
        if failed > self.limit and state.phase is not RolloutPhase.SUPERSEDED:
            assert state.counts[DevicePhase.WAITING] == 0
            assert state.ending is not None

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        driver = self.driver
        driver.wait(2 * 600 + 4 * 100 + 90)
        assert driver.phase.final
        assert not set(driver.phases()) & set(UNSETTLED)
        assert len(driver.finished) == 1
        taken_back = self.all_back or (self.revert and driver.phase is RolloutPhase.FAILED)
        for name, release in driver.desired.items():
            device = driver.state.devices[name]
            if device.detached:
                continue
            assert release in (NEW, OLD)
            if taken_back and driver.phase is not RolloutPhase.SUPERSEDED:
                assert release == OLD, f"{name} was left with what was reverted"
            if device.phase is DevicePhase.TIMED_OUT and driver.phase in (RolloutPhase.FAILED, RolloutPhase.ABORTED):
                assert release == OLD


TestAnyRollout = AnyRollout.TestCase
TestAnyRollout.settings = settings(
    max_examples=300, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
