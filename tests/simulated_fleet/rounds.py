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
from edgewright_controller.rollout import RolloutPhase
from tests.simulated_fleet import evidence
from tests.simulated_fleet.fleet import SimulatedFleet
from tests.simulated_fleet.manifests import Wanted
from tests.simulated_fleet.orders import Orders
from tests.simulated_fleet.trial import Beside, Trial

# An update takes its devices so long that kills find them in it.
_ACT_S: Final = 0.08
_LONG_S: Final = 120.0  # longer than any device is away
_SHORT_S: Final = 8.0  # for rounds in which devices are silent
_WAVES: Final = """[1, { devices = "30%", soak = "1s" }, { devices = "60%", pause = true },
    { devices = "80%", approval = true }, "100%"]"""


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
            "reverted by itself": self.reverted_by_itself,
            "approved": self.approved,
            "retried": self.retried,
            "skipped": self.skipped,
            "cordoned": self.cordoned,
            "decommissioned": self.decommissioned,
            "added": self.added,
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
        if begun and self._command("pause", begun, Fleet.pause):
            self._moment(2.0)
        if begun:
            self._command("resume", begun, Fleet.resume)
        return Round("paused", frozenset(), applying.join())

    def aborted(self) -> Round:
        """Aborted in the middle; what has it keeps it."""
        begun, applying = self._begin(first_wave='"40%"')
        if begun:
            self._command("abort", begun, Fleet.abort)
        return Round("aborted", frozenset(), applying.join())

    def aborted_and_reverted(self) -> Round:
        """Aborted in the middle; everything goes back."""
        begun, applying = self._begin(first_wave='"40%"')
        if begun:
            self._command("abort", begun, lambda fleet, rollout: fleet.abort(rollout, revert=True))
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

    def reverted_by_itself(self) -> Round:
        """A third of the devices fail, and all others go back."""
        failing = self._some(len(self._fleet.devices) // 3)
        change = self._change(waves='["20%", "60%", "100%"]', max_failures=2, on_failure='"revert"')
        return Round("reverted by itself", failing, self._trial.carry_out(change))

    def approved(self) -> Round:
        """Waves that are watched, wait to be resumed, and wait for approval."""
        applying = self._trial.beside(self._change(waves=_WAVES))
        while not applying.ended:
            for rollout in evidence.read_ledger(self._trial.ledger).rollouts:
                if rollout.phase is RolloutPhase.PAUSED:
                    self._command("resume", rollout.id, Fleet.resume)
                elif rollout.phase is RolloutPhase.APPROVAL:
                    self._command("approve", rollout.id, Fleet.approve)
            self._moment(0.5)
        return Round("approved", frozenset(), applying.join())

    def retried(self) -> Round:
        """A few devices fail, and are tried again when it has ended, with better luck."""
        before = evidence.newest_rollout(self._trial.ledger)
        failing = self._some(4)
        heard = self._trial.carry_out(self._change(max_failures=len(failing)))
        self._trial.until_ended()
        self._tell(Orders(act_s=_ACT_S))
        ended = [one.id for one in evidence.read_ledger(self._trial.ledger).rollouts if one.number > before]
        if ended and self._trial.command("", ended[0], lambda fleet: fleet.retry(ended[0])):
            heard += "; retried"
        return Round("retried", failing, heard)

    def skipped(self) -> Round:
        """Some devices are left out of it in the middle."""
        begun, applying = self._begin(first_wave='"40%"')
        left_out = self._chance.sample(self._fleet.devices, 3)
        for device in left_out if begun else ():
            self._command("skip", begun, _skipping(device))
        return Round("skipped", frozenset(), applying.join())

    def cordoned(self) -> Round:
        """Some devices are left as they are, from the middle of it on; afterwards changes reach them again."""
        begun, applying = self._begin(first_wave='"40%"')
        left = self._chance.sample(self._fleet.devices, 3)
        for device in left if begun else ():
            self._say("device.cordon", device, lambda fleet, one: fleet.cordon([one]))
        heard = applying.join()
        self._trial.until_ended()
        for device in left if begun else ():
            self._say("device.uncordon", device, lambda fleet, one: fleet.uncordon([one]))
        return Round("cordoned", frozenset(), heard)

    def decommissioned(self) -> Round:
        """A device is taken out of the fleet in the middle, everything goes back, and then it enrols anew."""
        begun, applying = self._begin(first_wave='"40%"')
        gone = self._chance.choice(self._fleet.devices)
        self._say("device.decommission", gone, Fleet.decommission)
        if begun:
            self._command("abort", begun, lambda fleet, rollout: fleet.abort(rollout, revert=True))
        heard = applying.join()
        self._trial.until_ended()
        self._say("enrolment.create", gone, lambda fleet, one: self._fleet.enrol(fleet, [one]))
        return Round("decommissioned", frozenset(), heard)

    def added(self) -> Round:
        """A device enrols in the middle, and gets by itself what all others have; when all have come, a sound round."""
        _, applying = self._begin(first_wave='"40%"')
        if self._fleet.late:
            device = self._fleet.late.pop()
            self._say("enrolment.create", device, lambda fleet, one: self._fleet.enrol(fleet, [one]))
            self._fleet.devices.append(device)
            self._trial.until_known([device])
            self._trial.states[device] = self._fleet.folder / device
        return Round("added", frozenset(), applying.join())

    def _command(self, verb: str, rollout: str, say: Callable[[Fleet, str], object]) -> bool:
        return self._say(f"rollout.{verb}", rollout, say)

    def _say(self, action: str, about: str, say: Callable[[Fleet, str], object]) -> bool:
        return self._trial.command(action, about, lambda fleet: say(fleet, about))

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
        policy = {"device_deadline": f'"{_LONG_S:.0f}s"'} | rollout
        if not policy.keys() & {"first_wave", "waves"}:
            policy["first_wave"] = '"100%"'
        everybody = (*self._fleet.devices, *self._fleet.late)
        wanted = Wanted(everybody, weights=weights, context=self._context, rollout=policy)
        text = wanted.text(self._folder)
        return lambda fleet: fleet.apply(text, f"{self._context}.toml", str(self._folder))

    def _moment(self, longest_s: float) -> None:
        time.sleep(self._chance.uniform(0.0, longest_s))  # when, is what these rounds vary

    def _tell(self, others: Orders, by_device: Mapping[str, Orders] | None = None) -> None:
        self._fleet.orders.write(others, by_device)


def _skipping(device: str) -> Callable[[Fleet, str], object]:
    return lambda fleet, rollout: fleet.skip(rollout, [device])
