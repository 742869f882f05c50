"""Drives a rollout as its runner does: step, store, apply. Keeps what a ledger would keep, to restore from."""

from __future__ import annotations

from collections.abc import Mapping

from edgewright_controller.gates import GatePolicy
from edgewright_controller.rollout import (
    Action,
    AfterWave,
    Changes,
    DeviceChange,
    DevicePhase,
    DeviceReported,
    Event,
    Finish,
    Hint,
    LiftHold,
    OnFailure,
    Outcome,
    RolloutChange,
    RolloutPhase,
    RolloutPolicy,
    RolloutSpec,
    RolloutTarget,
    SetDesired,
    Tick,
    Window,
    apply_changes,
    begin,
    in_two_waves,
    restore,
    step,
)

NEW, OLD = "new", "old"


def spec(
    devices: int,
    first: int,
    policy: RolloutPolicy | None = None,
    after: tuple[AfterWave, ...] = (),
    windows: Mapping[int, tuple[tuple[Window, ...], str] | tuple[tuple[Window, ...], str, tuple[Window, ...]]]
    | None = None,
) -> RolloutSpec:
    """A rollout of NEW over OLD to dev-0, dev-1, …, each of which was given five generations before. `windows`: of
    some of them, with their time zone, and when they may download."""
    of = windows or {}
    targets = [RolloutTarget(f"dev-{n}", NEW, OLD, 5, *of.get(n, ((), "UTC"))) for n in range(devices)]
    waves = in_two_waves(targets, first)
    return RolloutSpec("rollout-1", waves, policy or RolloutPolicy(), after[: len(waves)])


def policy(
    *,
    deadline_s: float = 100.0,
    max_failures: int = 0,
    soak_s: float = 0.0,
    revert: bool = False,
    patience_s: float = 600.0,
    percent: float = 0.0,
    steps: Mapping[str, float] | None = None,
    whole_s: float | None = None,
    per_minute: int | None = None,
) -> RolloutPolicy:
    """A policy with deadlines that tests can wait for. `whole_s`: the deadline of the whole rollout."""
    on_failure = OnFailure.REVERT if revert else OnFailure.KEEP
    gate = GatePolicy(max_failures, soak_s, percent)
    return RolloutPolicy(deadline_s, gate, on_failure, patience_s, steps or {}, whole_s, per_minute)


class Driver:
    """One rollout, its wall clock, and what devices were told."""

    def __init__(self, of: RolloutSpec):
        self.now = 1_000_000.0
        self.state = begin(of, self.now)
        self.desired: dict[str, str | None] = {}
        self.generations = {target.device: target.generation for wave in of.waves for target in wave}
        self.finished: list[Finish] = []
        self.stored: dict[str, DeviceChange] = {}
        self.stored_rollout = RolloutChange(self.state.phase, 0, None, self.state.reason)
        self.stored_since = 0.0

    def do(self, event: Event, seconds: float = 0.0) -> Changes:
        """One step, `seconds` later."""
        self.now += seconds
        before = self.state.phase
        changes, actions = step(self.state, event, self.now)
        assert self.state.phase is before, "step must not alter the state"
        changed = {change.device: change for change in changes.devices}
        for action in actions:
            self.noted(action, changes)
            if isinstance(action, SetDesired):
                assert not self.state.devices[action.device].detached, "another rollout has it"
                assert action.generation > self.generations[action.device], "generations only rise"
                self.generations[action.device] = action.generation
                self.desired[action.device] = action.release
            elif isinstance(action, LiftHold):
                assert action.release == NEW
                assert changed[action.device].offer_stands, "only what is offered anew is released"
            elif isinstance(action, Hint):
                assert action.generation == self.generations[action.device]
            else:
                self.finished.append(action)
        self._store(changes)
        apply_changes(self.state, changes)
        return changes

    def noted(self, action: Action, changes: Changes) -> None:
        """For those who look at what is done as it is done."""

    def _store(self, changes: Changes) -> None:
        if changes.clock is None:
            return
        for change in changes.devices:
            self.stored[change.device] = change
        if changes.rollout is not None:
            if changes.rollout.phase is not self.stored_rollout.phase:
                self.stored_since = changes.clock.watched
            self.stored_rollout = changes.rollout

    def restart(self) -> None:
        """The controller dies and comes back: all that is left is what was stored."""
        self.state = restore(
            self.state.spec, self.state.clock, self.stored_rollout, self.stored_since, self.stored.values()
        )

    def says(
        self,
        device: int,
        outcome: Outcome,
        reason: str = "",
        *,
        generation: int | None = None,
        step: str = "",
        again: bool = False,
    ) -> Changes:
        """A device reports on what it was told last, or on `generation`."""
        name = f"dev-{device}"
        return self.do(DeviceReported(name, generation or self.generations[name], outcome, step, reason, again))

    def wait(self, seconds: float) -> None:
        """Ticks every half minute, as the runner does at least."""
        while seconds > 0:
            self.do(Tick(), min(30.0, seconds))
            seconds -= 30.0

    def device(self, device: int) -> DeviceChange:
        """Where a device stands."""
        return self.state.devices[f"dev-{device}"]

    def phases(self) -> list[DevicePhase]:
        """Where all stand, in the order of the rollout."""
        return [change.phase for change in self.state.devices.values()]

    @property
    def phase(self) -> RolloutPhase:
        """Where the rollout stands."""
        return self.state.phase
