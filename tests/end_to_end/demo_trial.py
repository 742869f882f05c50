"""The demo's fleet under kills: three real agents with real engines, whose artifacts are built beforehand."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from edgewright_controller.demo import traffic
from edgewright_controller.demo.children import accepts
from edgewright_controller.demo.fleet import RUNTIMES, DemoFleet
from tests.end_to_end.room import wait_until
from tests.simulated_fleet import evidence
from tests.simulated_fleet.controller import kill_broker
from tests.simulated_fleet.killer import Killer, Pauses, Victim
from tests.simulated_fleet.trial import Trial

KINDS: Final = ("sound", "rolled back", "aborted and reverted")
PAUSES: Final = Pauses(between_s=(1.0, 3.0), life=(0.5, 3.0), most_s=30.0)

_FLEET: Final = """
[fleet]
name = "demo"
[models.smollm2]
source = "unused"
{profiles}
[groups.everyone]
model = "smollm2"
devices = [{devices}]
probes = ["speaks"]
[probes.speaks]
prompt = "What is the capital of France?"
expect_regex = "[A-Za-z]{{2,}}"
max_tokens = 8
timeout = "60s"
[rollout]
first_wave = 1
device_deadline = "5m"
"""
_PROFILE: Final = """
[profiles.{runtime}]
runtime = "{runtime}"
quantization = "prebuilt"
prebuilt = "{artifact}"
accelerator = "cpu"
memory = "2GB"
options = {{ context = {context}, threads = 1 }}
[devices.{device}]
profile = "{runtime}"
"""


@dataclass
class DemoTrial:
    """The demo's fleet, running. `kills` counts by kind."""

    demo: DemoFleet
    artifacts: Mapping[str, Path]
    trial: Trial
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    _context: int = 512

    def play(self, kind: str) -> tuple[str, list[str]]:
        """One kind of change under kills: what the operator heard, and what was lost. Raises Lost, DemoError."""
        with Killer(self._victims(), self.chance, PAUSES, self.kills):
            heard = self._do(kind)
            self.trial.until_ended()
        wait_until(lambda: all(victim.up() for victim in self._victims()), "everything being up", 120)
        # What a killed broker had confirmed and not passed on, agents say again minutes later, or when they reconnect.
        kill_broker(self.demo.controller, signal.SIGTERM)
        found = self.trial.losses(within_s=180.0)
        self.demo.children.check()
        return heard, [*found, *self._mute()]

    def _do(self, kind: str) -> str:
        if kind == "sound":
            return self._apply()
        if kind == "rolled back":
            self._apply()
            return self.trial.carry_out(lambda fleet: fleet.rollback())
        before = evidence.newest_rollout(self.trial.ledger)
        text = self._manifest()
        folder = str(self.demo.folder)
        applying = self.trial.beside(lambda fleet: fleet.apply(text, "fleet.toml", folder))
        if begun := self.trial.until_begun(before, applying):
            time.sleep(self.chance.uniform(0.0, 8.0))  # when, is what this varies
            self.trial.command("rollout.abort", begun, lambda fleet: fleet.abort(begun, revert=True))
        return applying.join()

    def _apply(self) -> str:
        text, folder = self._manifest(), str(self.demo.folder)
        return self.trial.carry_out(lambda fleet: fleet.apply(text, "fleet.toml", folder))

    def _manifest(self) -> str:
        """Another context is another release of the same artifact."""
        self._context += 16
        profiles = "".join(
            _PROFILE.format(runtime=runtime, artifact=self.artifacts[runtime], context=self._context, device=device)
            for device, runtime in RUNTIMES.items()
        )
        return _FLEET.format(profiles=profiles, devices=", ".join(f'"{device}"' for device in RUNTIMES))

    def _victims(self) -> list[Victim]:
        children, port = self.demo.children, int(self.demo.access.address.rpartition(":")[2])

        def kill(name: str) -> bool:
            children.named(name).kill()
            return True

        def again(name: str) -> None:
            children.start_again(name)

        return [
            Victim(
                "controller", 1.0, partial(accepts, port), partial(kill, "controller"), partial(again, "controller")
            ),
            Victim("broker", 1.0, lambda: True, partial(kill_broker, self.demo.controller), lambda: None),
            *(
                Victim("agent", 0.7, partial(accepts, one.port), partial(kill, one.id), partial(again, one.id))
                for one in self.demo.devices
            ),
        ]

    def _mute(self) -> list[str]:
        """Devices that do not answer a question."""
        found = []
        for device in self.demo.devices:
            try:
                if not traffic.ask(device.endpoint, "smollm2", "Name a colour.", max_tokens=4).text:
                    found.append(f"{device.id}: it answered with nothing")
            except traffic.AnswerError as error:
                found.append(f"{device.id}: it does not answer: {error}")
        return found


@contextmanager
def demo_trial(folder: Path, artifacts: Mapping[str, Path], seed: int) -> Iterator[DemoTrial]:
    """The demo's fleet with a first release of these artifacts (by runtime)."""
    demo = DemoFleet(folder, intervals={"telemetry": "2s", "check_in": "2s"})
    try:
        demo.start()
        states = {device.id: folder / device.id for device in demo.devices}
        trial = Trial(demo.controller / "ledger.sqlite", lambda: demo.access, states)
        trial.until_known(states)
        made = DemoTrial(demo, artifacts, trial, random.Random(seed))
        made._apply()
        if lost := [*trial.losses(), *made._mute()]:
            raise AssertionError(f"before anything was killed: {lost}")
        yield made
    finally:
        demo.stop()
