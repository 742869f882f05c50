"""`edgewright serve` as a process that is killed and started again, always on the same state and the same ports."""

from __future__ import annotations

import contextlib
import re
import signal
from pathlib import Path
from typing import Final

import psutil

from edgewright_controller.client import Access, Fleet, read_access
from edgewright_controller.demo.children import Child, Children, free_ports

NAME: Final = "controller"
READY: Final = re.compile(rb"ready at ")


class ServedController:
    """The controller of `fleet` on `state`, with its broker. Its log goes where `children` keep theirs."""

    def __init__(self, children: Children, state: Path, fleet: str) -> None:
        self._children, self.state, self.fleet_name = children, state, fleet
        ports = free_ports(3)
        grpc, enrolment, mqtt = (f"127.0.0.1:{port}" for port in ports)
        where = ("--listen", grpc, "--enrolment", enrolment, "--mqtt", mqtt)
        self._arguments = ("serve", "--state", str(state), "--fleet", fleet, *where)

    def start(self) -> None:
        """Start it, and wait until it answers. Raises DemoError."""
        child = self._children.start(NAME, "edgewright_controller.cli", *self._arguments)
        self._wait(child, 0)

    def kill(self) -> None:
        """SIGKILL. Its broker lives on: the next start ends it."""
        self._child.kill()

    def start_again(self) -> None:
        """After a kill; waits until it answers. Raises DemoError."""
        said = self._child.log.stat().st_size
        self._wait(self._children.start_again(NAME), said)

    def kill_broker(self) -> bool:
        """SIGKILL for mosquitto, which the controller then starts again; whether there was one."""
        for child in self._descendants():
            with contextlib.suppress(psutil.NoSuchProcess):
                if "mosquitto" in child.name() and child.status() != psutil.STATUS_ZOMBIE:
                    child.send_signal(signal.SIGKILL)
                    return True
        return False

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

    @property
    def _child(self) -> Child:
        return self._children.named(NAME)

    def _descendants(self) -> list[psutil.Process]:
        try:
            return psutil.Process(self._child.pid).children()
        except psutil.NoSuchProcess:
            return []

    def _wait(self, child: Child, said: int) -> None:
        self._children.wait_for(child, lambda: bool(READY.search(child.log.read_bytes()[said:])), "ready")
