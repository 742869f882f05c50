"""Updates on disks that are full: each device has a disk of its own, in memory, of which only so much is free.

usage: unshare --mount python -m tests.power.full_disk [--soon] FOLDER KIND:BYTES …

Needs a mount namespace of its own. `start`: so many bytes are free from the agent's start on. `blocks`: there is room
until the first block is asked for, when the files' room is taken; from then on so many bytes are free. Prints one JSON
object for each, in their order: what was lost, in words, and what the device said. `--soon`: a device tries a second
after a failure again, instead of a minute.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import psutil

from edgewright_contract.v1 import agent_pb2
from tests.power.device import PATIENCE_S, Device, Ground

DISK_BYTES: Final = 24 << 20
NEEDED_BYTES: Final = 9 << 20  # more than the update asks for, with its margin and what stays reserved
WORKERS: Final = 16
_TELLS: Final = ("disk", "full", "space", "room")


@dataclass
class Found:
    """How it went on one disk. `told`: what the device said of the lack of room; empty: there was room enough."""

    kind: str
    free: int
    told: str = ""
    lost: list[str] = field(default_factory=list)
    answers: int = 0


class _Full:
    """A device on a small disk, and a hog that takes what is not to be free."""

    def __init__(self, ground: Ground, kind: str, free: int) -> None:
        self.kind, self.free = kind, free
        self.device = Device(ground, ground.folder / f"{kind}-{free}")
        self._hog = self.device.state / "hog"
        self.filled = threading.Event()

    @contextlib.contextmanager
    def mounted(self, before: Path) -> Iterator[None]:
        state = self.device.state
        state.mkdir(parents=True)
        self.device.process.write_config("127.0.0.1:0")
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(state)], check=True)
        try:
            subprocess.run(["cp", "--archive", f"{before}/.", str(state)], check=True)
            if self.kind == "start":
                self.fill()
            yield
        finally:
            self.device.end(signal.SIGKILL)
            subprocess.run(["umount", "--lazy", str(state)], check=True)

    def fill(self) -> None:
        status = os.statvfs(self.device.state)
        taken = status.f_bavail * status.f_frsize - self.free
        if taken > 0:
            with self._hog.open("wb") as hog:
                os.posix_fallocate(hog.fileno(), 0, taken)
        self.filled.set()

    def give_room(self) -> None:
        self._hog.unlink(missing_ok=True)

    def has_connection(self, port: int) -> bool:
        try:
            return any(c.laddr and c.laddr.port == port for c in psutil.Process(self.device.pid).net_connections())
        except psutil.Error:
            return False


class _Traffic:
    """A question every now and then, from when it serves on; what was not answered is kept."""

    def __init__(self, device: Device) -> None:
        self._device, self._ended = device, threading.Event()
        self.answers, self.failures = 0, list[str]()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> _Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(PATIENCE_S)

    def _ask(self) -> None:
        while not self._ended.wait(0.5):
            try:
                assert self._device.served() in ("v1", "v2")
                self.answers += 1
            except Exception as error:
                self.failures.append(f"a question was not answered: {error!r}")


def tried(ground: Ground, disk: _Full, command: tuple[str, ...] | None) -> Found:
    """One update on one disk."""
    found, device = Found(disk.kind, disk.free), disk.device
    with disk.mounted(ground.before):
        try:
            device.start(command=command)
            device.ready()
            with _Traffic(device) as traffic:
                found.told = _told(device, disk)
                disk.give_room()
                device.updated(600.0)
                assert device.served() == "v2"
            device.end()
            found.answers, found.lost = traffic.answers, traffic.failures
            device.is_tidy()
        except (AssertionError, OSError) as error:
            found.lost.append(f"{error!r}; {device.log.read_text()[-1500:]}")
    return found


def _told(device: Device, disk: _Full) -> str:
    """Wait until the device says that it has no room, to the controller or in its log, or has found room enough."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if device.has_updated():
            return ""
        for status in device.heard():
            full = status.error == agent_pb2.ERROR_CODE_DISK_FULL and bool(status.reason)
            if full and status.outcome == agent_pb2.OUTCOME_FAILED:  # until then, it goes back
                return str(status.reason)
        if disk.filled.is_set():
            for line in device.log.read_text().splitlines():
                if (" ERROR " in line or " WARNING " in line) and any(word in line for word in _TELLS):
                    return line
        time.sleep(0.1)
    raise AssertionError("neither updated nor told that there is no room")


def _fill_whose_call_it_is(disks: list[_Full], context: Any) -> None:
    """The disk of whoever asks for blocks is filled before the first is sent."""
    port = int(context.peer().rpartition(":")[2])
    for disk in disks:
        if disk.kind == "blocks" and not disk.filled.is_set() and disk.has_connection(port):
            disk.fill()


_SOON: Final = (
    sys.executable,
    "-c",
    "import sys; from edgewright_agent import cli, lifecycle; lifecycle._FIRST_RETRY_S = 1.0; sys.exit(cli.main())",
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Updates on full disks.")
    parser.add_argument("--soon", action="store_true")
    parser.add_argument("folder", type=Path)
    parser.add_argument("positions", nargs="+", metavar="KIND:BYTES")
    given = parser.parse_args()
    ground = Ground(given.folder)
    try:
        disks = [_Full(ground, kind, int(free)) for kind, free in (one.split(":") for one in given.positions)]
        ground.controller.mischief.before = functools.partial(_fill_whose_call_it_is, disks)
        with ThreadPoolExecutor(WORKERS) as pool:
            for found in pool.map(lambda disk: tried(ground, disk, _SOON if given.soon else None), disks):
                print(json.dumps(asdict(found)), flush=True)
    finally:
        ground.close()


def run(folder: Path, positions: list[tuple[str, int]], *, soon: bool) -> list[Found]:
    """The same in a process with a namespace of its own: without root, in one where it is root. Raises RuntimeError."""
    apart = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    command = [*apart, sys.executable, "-m", "tests.power.full_disk", *(["--soon"] if soon else []), str(folder)]
    done = subprocess.run(
        [*command, *(f"{kind}:{free}" for kind, free in positions)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the disks could not be tried: exit code {done.returncode}")
    return [Found(**json.loads(line)) for line in done.stdout.splitlines()]


def positions(number: int) -> list[tuple[str, int]]:
    """So many: by single pages where databases find no room, by larger steps up to where all fits."""
    page, half = 4096, number // 2
    fine = [page * n for n in range(half // 2)]
    coarse = [fine[-1] + (NEEDED_BYTES - fine[-1]) * (n + 1) // (half - len(fine)) for n in range(half - len(fine))]
    return [("start", free) for free in fine + coarse] + [("blocks", page * n) for n in range(number - half)]


if __name__ == "__main__":
    main()
