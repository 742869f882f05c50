"""Control groups (cgroup v2), where the service manager has given the agent its own to divide: `Delegate=` in the unit.

<the agent's group>/agent       the agent, since a group with members cannot be divided
<the agent's group>/engine-…    one engine each, with what it may use
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil

PROCESSES: Final = 512
_MOUNTS: Final = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))
_WANTED: Final = ("memory", "pids")


class Groups:
    """The agent's own group, ready to be divided."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def make(self, name: str, memory_bytes: int) -> Path:
        """An empty group for one engine; 0 bytes: no limit. Raises OSError."""
        folder = self._folder / f"engine-{name}"
        folder.mkdir()
        try:
            (folder / "pids.max").write_text(str(PROCESSES))
            if memory_bytes:
                (folder / "memory.max").write_text(str(memory_bytes))
                _write_if_there(folder / "memory.swap.max", "0")  # absent where the kernel counts no swap
                _write_if_there(folder / "memory.oom.group", "1")
        except OSError:
            folder.rmdir()
            raise
        return folder


def find(own: Path = Path("/proc/self/cgroup"), mounts: tuple[Path, ...] = _MOUNTS) -> Groups | None:
    """The agent's group, when it was given to it: the agent moves into a part of its own. None: there is none, or
    it is not the agent's to divide."""
    for folder in _folders(own, mounts):
        try:
            if not set(_WANTED) <= set((folder / "cgroup.controllers").read_text().split()) or not _given(folder):
                continue
            for left in folder.glob("engine-*"):  # of an agent that was killed
                remove(left)
            _move_into(folder / "agent")
            (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in _WANTED))
        except OSError:
            continue  # somebody else is in it, or it is read-only: then it is not ours
        return Groups(folder)
    return None


def was_killed_for_memory(group: Path) -> bool:
    """Whether the kernel killed a member because the group had no memory left."""
    try:
        events = dict(line.split() for line in (group / "memory.events").read_text().splitlines())
    except (OSError, ValueError):
        return False
    return events.get("oom_kill", "0") != "0"


def remove(group: Path) -> None:
    """Remove an engine's group; what is left in it is killed first. One that is still not empty stays behind."""
    with contextlib.suppress(OSError):
        _write_if_there(group / "cgroup.kill", "1")
    with contextlib.suppress(OSError):
        group.rmdir()


def _move_into(part: Path) -> None:
    """The agent, and what it has started so far, for example to ask an interpreter. Nobody else: who else is in the
    group has not been asked, and then it cannot be divided. Raises OSError."""
    part.mkdir(exist_ok=True)
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            (part / "cgroup.procs").write_text(str(process.pid))


def _folders(own: Path, mounts: tuple[Path, ...]) -> Iterator[Path]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    place = next((line[3:] for line in lines if line.startswith("0::")), "")
    parts = place.strip("/").split("/") if place.strip("/") else []
    if parts and parts[-1] == "agent":  # an agent that has started before in this group
        parts = parts[:-1]
    if parts:  # the root of the tree is the system's
        for mount in mounts:
            yield mount.joinpath(*parts)


def _given(folder: Path) -> bool:
    """Systemd marks what it gives away. To root everything is writable, so for root only the mark counts."""
    if os.geteuid() != 0:
        return os.access(folder / "cgroup.procs", os.W_OK)
    for name in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError):
            return os.getxattr(folder, name) == b"1"
    return False


def _write_if_there(file: Path, text: str) -> None:
    if file.exists():
        file.write_text(text)
