"""Rollouts on a fleet of which anything may die at any moment: asked for as an operator would, judged by the disks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.client import Access, ControllerUnreachable, Fleet, Refused
from tests.simulated_fleet import evidence
from tests.simulated_fleet.evidence import Disk
from tests.simulated_fleet.losses import Expected, losses, settled

PATIENCE_S: Final = 180.0


class Lost(Exception):
    """Something did not come about in any time that would be right."""


class Trial:
    """One fleet: a controller's ledger, an operator's access, and the state folder of each device."""

    def __init__(self, ledger: Path, access: Callable[[], Access], states: Mapping[str, Path]) -> None:
        self.ledger, self._access, self.states = ledger, access, dict(states)
        self.commands: list[tuple[str, str]] = []

    def carry_out(self, ask: Callable[[Fleet], Iterator[operator_pb2.ApplyEvent]]) -> str:
        """Ask for a change until the controller has begun it, and see it to its end; what became of it in words, empty
        when the controller died meanwhile. What it refuses is an answer too. Raises Lost."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            before = evidence.newest_rollout(self.ledger)
            try:
                with self._operator() as fleet:
                    for event in ask(fleet):
                        if event.HasField("result"):
                            return event.result.summary
            except ControllerUnreachable:
                if evidence.newest_rollout(self.ledger) > before:
                    self.until_ended()
                    return ""
            except Refused as refusal:
                return str(refusal)
        raise Lost(f"the controller began no change within {PATIENCE_S:.0f} s")

    def beside(self, ask: Callable[[Fleet], Iterator[operator_pb2.ApplyEvent]]) -> Beside:
        """The same on a thread, while something else is done."""
        return Beside(lambda: self.carry_out(ask))

    def command(self, action: str, rollout: str, say: Callable[[Fleet], object]) -> bool:
        """Say it until the controller has heard it; whether it did it. `action` is how the audit log has it, of
        `rollout` or whatever it is about; empty: it is another's business. Raises Lost."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            try:
                with self._operator() as fleet:
                    say(fleet)
            except ControllerUnreachable:
                continue
            except Refused:
                return False  # it has ended, or it was done before the controller died
            if action:
                self.commands.append((action, rollout))
            return True
        raise Lost(f"nobody heard {action} of {rollout} within {PATIENCE_S:.0f} s")

    def _operator(self) -> Fleet:
        return Fleet(self._access())

    def until_known(self, devices: Collection[str]) -> None:
        """Each has enrolled and said how it stands. Raises Lost."""
        deadline = time.monotonic() + PATIENCE_S
        while missing := set(devices) - evidence.heard(self.ledger):
            if time.monotonic() > deadline:
                raise Lost(f"{', '.join(sorted(missing))} said nothing within {PATIENCE_S:.0f} s")
            time.sleep(0.1)

    def until_begun(self, after: int, beside: Beside) -> str:
        """The rollout that began after number `after`, once it lives; empty when the change ended without one."""
        while not beside.ended:
            if evidence.newest_rollout(self.ledger) > after and (live := evidence.live(self.ledger)):
                return live[-1]
            time.sleep(0.05)
        return ""

    def until_ended(self) -> None:
        """Every rollout has ended. Raises Lost."""
        deadline = time.monotonic() + PATIENCE_S
        while live := evidence.live(self.ledger):
            if time.monotonic() > deadline:
                raise Lost(f"{', '.join(live)} did not end within {PATIENCE_S:.0f} s")
            time.sleep(0.1)

    def losses(self, excused: Collection[str] = (), within_s: float = 60.0) -> list[str]:
        """What should not be so, once everything lives. `excused`: the devices that were told to fail. Everybody has so
        much time to have their say. Raises Lost."""
        self.until_ended()
        spooled = {device: evidence.highest_in_spool(state) for device, state in self.states.items()}
        expected = Expected(frozenset(excused), tuple(self.commands), spooled)
        deadline, restless = time.monotonic() + within_s, set(self.states)
        # A newcomer may be given something at any moment, in a rollout that nobody has asked for.
        while (restless or evidence.live(self.ledger)) and time.monotonic() < deadline:
            time.sleep(0.2)
            found = evidence.read_ledger(self.ledger)
            marks = {device: reports.mark for (device, _), reports in found.reports.items()}
            restless = {
                device
                for device in restless
                if marks.get(device, 0) < spooled[device] or not settled(found.devices[device], self.disk(device))
            }
        disks = {device: self.disk(device) for device in self.states}
        return losses(evidence.read_ledger(self.ledger), disks, expected)

    def disk(self, device: str) -> Disk:
        """What it remembers."""
        return evidence.read_disk(self.states[device])


class Beside:
    """Something that goes on on a thread; `join` gives its result, or raises what it raised."""

    def __init__(self, work: Callable[[], str]) -> None:
        self._work, self._result = work, ""
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def ended(self) -> bool:
        """Whether there is a result."""
        return not self._thread.is_alive()

    def join(self) -> str:
        """Its result."""
        self._thread.join()
        if self._fault is not None:
            raise self._fault
        return self._result

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as fault:
            self._fault = fault
