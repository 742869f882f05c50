"""What operators do to a fleet of simulated devices while everything is being killed: one kind of change a round.

Each round begins with every device at rest and alive, and ends with its rollouts ended; then it is judged.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.client import Fleet
from tests.simulated_fleet import evidence
from tests.simulated_fleet.fleet import SimulatedFleet
from tests.simulated_fleet.manifests import Wanted
from tests.simulated_fleet.orders import Orders
from tests.simulated_fleet.trial import Beside, Trial

# An update takes its devices so long that kills find them in it.
_ACT_S: Final = 0.08
_LONG_S: Final = 120.0  # longer than any device is away
_SHORT_S: Final = 8.0  # for rounds in which devices are silent


@dataclass(frozen=True)
class Round:
    """What was done, which devices were told to fail, and what the operator heard."""

    kind: str
    excused: frozenset[str]
    heard: str


class Rounds:
    """Rounds on one fleet, each chosen by `chance`."""

    def __init__(self, trial: Trial, fleet: SimulatedFleet, folder: Path, chance: random.Random) -> None:
        self._trial, self._fleet, self._folder, self._chance = trial, fleet, folder, chance
        self._context = 512
        self._kinds: dict[str, Callable[[], Round]] = {
            "sound": self.sound,
            "another artifact": self.another_artifact,
            "some fail": self.some_fail,
            "many fail": self.many_fail,
            "silent": self.silent,
            "paused": self.paused,
            "aborted": self.aborted,
            "aborted and reverted": self.aborted_and_reverted,
            "superseded": self.superseded,
            "rolled back": self.rolled_back,
        }

    @property
    def kinds(self) -> list[str]:
        """All that there are."""
        return list(self._kinds)

    def play(self, kind: str) -> Round:
        """One round, until its rollouts have ended. Afterwards nothing is told to devices any more. Raises Lost."""
        self._tell(Orders(act_s=_ACT_S))
        try:
            done = self._kinds[kind]()
            self._trial.until_ended()
            return done
        finally:
            self._tell(Orders())

    def sound(self) -> Round:
        """Another release, in two waves, of which nobody is told to fail."""
        return Round("sound", frozenset(), self._trial.carry_out(self._change(first_wave='"20%"')))

    def another_artifact(self) -> Round:
        """The same with other bytes, so that every device downloads."""
        weights = f"weights-{self._chance.randrange(10**6)}"
        return Round("another artifact", frozenset(), self._trial.carry_out(self._change(weights=weights)))

    def some_fail(self) -> Round:
        """A few devices fail, fewer than would stop it."""
        failing = self._some(4)
        heard = self._trial.carry_out(self._change(max_failures=len(failing)))
        return Round("some fail", failing, heard)

    def many_fail(self) -> Round:
        """A third of the devices fail, and it stops."""
        failing = self._some(len(self._fleet.devices) // 3)
        return Round("many fail", failing, self._trial.carry_out(self._change(first_wave='"40%"', max_failures=2)))

    def silent(self) -> Round:
        """A few devices are switched off until it has ended; the deadline is short, so others may miss it too."""
        away = frozenset(self._chance.sample(self._fleet.devices, 3))
        self._tell(Orders(act_s=_ACT_S), {device: Orders(silent=True) for device in away})
        change = self._change(device_deadline=f'"{_SHORT_S:.0f}s"', max_failures=len(self._fleet.devices))
        return Round("silent", frozenset(), self._trial.carry_out(change))

    def paused(self) -> Round:
        """Paused in the middle, and resumed."""
        begun, applying = self._begin(first_wave='"20%"')
        if begun and self._trial.command("rollout.paused", begun, lambda fleet: fleet.pause(begun)):
            self._moment(2.0)
        if begun:
            self._trial.command("rollout.resumed", begun, lambda fleet: fleet.resume(begun))
        return Round("paused", frozenset(), applying.join())

    def aborted(self) -> Round:
        """Aborted in the middle; what has it keeps it."""
        begun, applying = self._begin(first_wave='"40%"')
        if begun:
            self._trial.command("rollout.aborted", begun, lambda fleet: fleet.abort(begun))
        return Round("aborted", frozenset(), applying.join())

    def aborted_and_reverted(self) -> Round:
        """Aborted in the middle; everything goes back."""
        begun, applying = self._begin(first_wave='"40%"')
        if begun:
            self._trial.command("rollout.aborted", begun, lambda fleet: fleet.abort(begun, revert=True))
        return Round("aborted and reverted", frozenset(), applying.join())

    def superseded(self) -> Round:
        """Another change takes its place in the middle."""
        _, first = self._begin(first_wave='"40%"')
        second = self._trial.carry_out(self._change())
        first.join()
        return Round("superseded", frozenset(), second)

    def rolled_back(self) -> Round:
        """Another release everywhere, and back from it."""
        self._trial.carry_out(self._change())
        return Round("rolled back", frozenset(), self._trial.carry_out(lambda fleet: fleet.rollback()))

    def _some(self, most: int) -> frozenset[str]:
        """Tell so many devices, or a few less, to fail somewhere."""
        failing = self._chance.sample(self._fleet.devices, max(1, self._chance.randint(most // 2, most)))
        acts = ("plan", "verify", "start", "prove", "probe")
        orders = {device: Orders(act_s=_ACT_S, fails_at=self._chance.choice(acts)) for device in failing}
        self._tell(Orders(act_s=_ACT_S), orders)
        return frozenset(failing)

    def _begin(self, *, first_wave: str) -> tuple[str, Beside]:
        """Begin a change beside; the rollout, somewhere in its middle, empty when there was none or it has ended."""
        before = evidence.newest_rollout(self._trial.ledger)
        applying = self._trial.beside(self._change(first_wave=first_wave))
        begun = self._trial.until_begun(before, applying)
        self._moment(2.0)
        return begun, applying

    def _change(
        self, *, weights: str = "weights", **rollout: str | int
    ) -> Callable[[Fleet], Iterator[operator_pb2.ApplyEvent]]:
        self._context += 16
        policy = {"device_deadline": f'"{_LONG_S:.0f}s"', "first_wave": '"100%"'} | rollout
        wanted = Wanted(tuple(self._fleet.devices), weights=weights, context=self._context, rollout=policy)
        text = wanted.text(self._folder)
        return lambda fleet: fleet.apply(text, f"{self._context}.toml", str(self._folder))

    def _moment(self, longest_s: float) -> None:
        time.sleep(self._chance.uniform(0.0, longest_s))  # when, is what these rounds vary

    def _tell(self, others: Orders, by_device: Mapping[str, Orders] | None = None) -> None:
        self._fleet.orders.write(others, by_device)
