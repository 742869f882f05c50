"""The demo's processes: a controller and three agents, each with its own state folder and log.

They are the commands that an operator would start, started as an operator would; the demo has no other way in.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

READY_S: Final = 120.0
STOP_S: Final = 20.0


class DemoError(Exception):
    """The demo cannot go on; the message says which process and what to look at."""


# Below what systems give to connections (Linux from 32,768 on, others from 49,152).
_PORTS: Final = range(20_000, 30_000)


def free_ports(count: int) -> list[int]:
    """Different ports of the loopback that are free just now, and that no connection gets as its own end meanwhile.

    Raises DemoError when there are none.
    """
    candidates = list(_PORTS)
    random.SystemRandom().shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            return found
    raise DemoError(f"{count} free ports from {_PORTS.start} to {_PORTS.stop} are not to be had on 127.0.0.1")


class Child:
    """One process with its log file. `stop` is idempotent."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self.command = command
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        # Closed here at once: the child has its own handle.
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                command, stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> int | None:
        """The exit status, None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after STOP_S."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(STOP_S)

    def kill(self) -> None:
        """SIGKILL: no chance to clean up, as in a crash."""
        self._process.kill()
        self._process.wait(STOP_S)

    def last_words(self, lines: int = 8) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Children:
    """All processes of one demo; ended in reverse order, whatever happens."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._children: list[Child] = []

    def start(self, name: str, module: str, *arguments: str) -> Child:
        """Start `python -m module arguments`, logging to `<folder>/<name>.log`."""
        command = [sys.executable, "-m", module, *arguments]
        child = Child(name, command, self._folder / f"{name}.log")
        self._children.append(child)
        return child

    def wait_for(self, child: Child, ready: Callable[[], bool], what: str, timeout_s: float = READY_S) -> None:
        """Wait until `ready()`; DemoError when the child ends before, or at the deadline."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            if (status := child.ended()) is not None:
                raise DemoError(f"{child.name} ended with status {status} before {what}:\n{child.last_words()}")
            if time.monotonic() > deadline:
                raise DemoError(f"{child.name}: {what} did not happen in {timeout_s:.0f} s; see {child.log}")
            time.sleep(0.1)  # paces the polling; the deadline above ends it

    def check(self) -> None:
        """DemoError when a process that should run has ended."""
        for child in self._children:
            if (status := child.ended()) is not None:
                raise DemoError(f"{child.name} ended with status {status}:\n{child.last_words()}")

    def named(self, name: str) -> Child:
        """The newest child of that name."""
        return next(child for child in reversed(self._children) if child.name == name)

    def start_again(self, name: str) -> Child:
        """Start an ended child again, with the command and the log that it had."""
        ended = self.named(name)
        child = Child(name, ended.command, ended.log)
        self._children[self._children.index(ended)] = child
        return child

    def stop(self) -> None:
        """End all, agents first. They end side by side, so the slowest decides.

        Nothing interrupts it: a second Ctrl-C, or a terminal that is closed, would leave processes behind.
        """
        with _undisturbed():
            threads = [threading.Thread(target=child.stop) for child in self._children[1:]]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(STOP_S * 2)
            for child in self._children[:1]:
                child.stop()


def accepts(port: int) -> bool:
    """Whether somebody listens on this port of the loopback."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def run_once(name: str, module: str, *arguments: str, timeout_s: float = READY_S) -> str:
    """Run a command to its end and return what it printed. DemoError with its words when it fails."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env=os.environ | {"NO_COLOR": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise DemoError(f"{name}: {arguments[0]} did not end in {timeout_s:.0f} s") from error
    if done.returncode:
        raise DemoError(f"{name}: {' '.join(arguments[:2])} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


# SIGHUP: the terminal was closed. Windows has none.
_ENDINGS: Final = (signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else []))


def end_on_signals() -> None:
    """Let SIGTERM and SIGHUP end the demo as Ctrl-C does, so that no process is left behind.

    Ctrl-C too is set anew: a shell starts what it puts into the background with SIGINT ignored.
    """
    for number in _ENDINGS:
        # A hang-up that is ignored is so on purpose: nohup.
        if number in (signal.SIGTERM, signal.SIGINT) or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Whatever would end this process waits until the block has ended."""
    if threading.current_thread() is not threading.main_thread():  # only there signals can be set
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in _ENDINGS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
