"""`edgewright serve` as a process that is killed and started again, always on the same state and the same ports."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path

import psutil

from edgewright_controller.client import Access, Fleet, read_access
from edgewright_controller.demo.children import Children, free_ports
from tests.simulated_fleet.mortal import Mortal


class ServedController(Mortal):
    """The controller of `fleet` on `state`, with its broker, which outlives a kill until the next start ends it."""

    def __init__(self, children: Children, state: Path, fleet: str) -> None:
        self.state = state
        grpc, enrolment, mqtt = (f"127.0.0.1:{port}" for port in free_ports(3))
        where = ("--listen", grpc, "--enrolment", enrolment, "--mqtt", mqtt)
        arguments = ("serve", "--state", str(state), "--fleet", fleet, *where)
        super().__init__(children, "controller", "edgewright_controller.cli", arguments, "ready at ")

    @property
    def access(self) -> Access:
        """How an operator reaches it."""
        return read_access(self.state / "operator" / "client.toml")

    @property
    def ledger(self) -> Path:
        """Its ledger."""
        return self.state / "ledger.sqlite"

    def fleet(self) -> Fleet:
        """An operator's connection, to be closed."""
        return Fleet(self.access)


def kill_broker(state: Path, number: signal.Signals = signal.SIGKILL) -> bool:
    """SIGKILL, or another signal, for the mosquitto of the controller on `state`; whether there was one.

    The controller starts another, now or when it is back.
    """
    with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
        broker = psutil.Process(int((state / "broker" / "pid").read_text()))
        if "mosquitto" in broker.name() and broker.status() != psutil.STATUS_ZOMBIE:
            broker.send_signal(number)
            return True
    return False
