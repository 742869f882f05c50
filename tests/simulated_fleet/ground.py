"""The ground of the kill tests: a controller with its broker, simulated devices, and all of them to kill."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from edgewright_controller.demo.children import Children
from tests.simulated_fleet.controller import ServedController, kill_broker
from tests.simulated_fleet.fleet import SimulatedFleet
from tests.simulated_fleet.killer import Killer, Pauses, Victim
from tests.simulated_fleet.manifests import FLEET
from tests.simulated_fleet.rounds import Round, Rounds
from tests.simulated_fleet.trial import Trial

LATE: Final = ("late-0", "late-1")


@dataclass
class Ground:
    """A running fleet. `kills` counts by kind."""

    children: Children
    rounds: Rounds
    trial: Trial
    victims: list[Victim]
    kills: Counter[str] = field(default_factory=Counter)

    def play(self, kind: str, chance: random.Random, pauses: Pauses) -> tuple[Round, list[str]]:
        """One round under kills; what was lost in it. Raises Lost."""
        with Killer(self.victims, chance, pauses, self.kills):
            done = self.rounds.play(kind)
        self.children.check()
        found = self.trial.losses(done.excused)
        self.children.check()
        return done, found


@contextmanager
def ground(folder: Path, devices: int, processes: int, seed: int) -> Iterator[Ground]:
    """So many devices in so many processes, all enrolled, with a first release."""
    children = Children(folder / "logs")
    try:
        controller = ServedController(children, folder / "controller", FLEET)
        controller.start()
        controller.wait_until_up()
        ids = [f"dev-{number:03d}" for number in range(devices)]
        fleet = SimulatedFleet(children, folder / "devices", ids, processes=processes, late=LATE)
        with controller.fleet() as operator:
            fleet.enrol(operator)
        fleet.start()
        trial = Trial(controller.ledger, lambda: controller.access, {device: fleet.folder / device for device in ids})
        rounds = Rounds(trial, fleet, folder, random.Random(seed))
        trial.until_known(ids)
        made = Ground(children, rounds, trial, _victims(controller, fleet))
        first = rounds.play("sound")
        if lost := trial.losses(first.excused):
            raise AssertionError(f"before anything was killed: {lost}")
        yield made
    finally:
        children.stop()


def _victims(controller: ServedController, fleet: SimulatedFleet) -> list[Victim]:
    each = 4.0 / len(fleet.processes)
    return [
        Victim("controller", 1.0, controller.up, controller.kill, controller.start_again),
        Victim("broker", 1.0, lambda: True, partial(kill_broker, controller.state), lambda: None),
        *(Victim("devices", each, one.up, one.kill, one.start_again) for one in fleet.processes),
    ]
