"""Who the process is and what it is worth: its user, its capabilities, its limits, the parent that it dies with."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from edgewright_agent.engines.confine import kernel

OPEN_FILES: Final = 4096
PROCESSES: Final = 512  # threads count as such, of all engines of this user; two run during a swap
_LOCKED_NO_ROOT: Final = 0b11  # SECBIT_NOROOT and its lock: user 0 is a user like any other
_LAST_CAPABILITY: Final = Path("/proc/sys/kernel/cap_last_cap")


def no_new_privileges() -> None:
    """No program that it starts gains anything, whatever bits that program's file bears. Raises OSError."""
    kernel.prctl("no_new_privs", kernel.PR_SET_NO_NEW_PRIVS, 1)


def die_with(parent: int) -> None:
    """SIGKILL when the parent ends. Raises OSError, also when it has ended already."""
    kernel.prctl("death signal", kernel.PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        raise ProcessLookupError("the agent is gone")


def limit(data_bytes: int, *, count_processes: bool) -> None:
    """No core file, a bounded number of open files; writable memory of its own, when `data_bytes` is not 0.

    `count_processes`: its user has no other processes than engines, so that their number means something.
    """
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NOFILE: OPEN_FILES}
    if data_bytes:
        limits[resource.RLIMIT_DATA] = data_bytes
    if count_processes:
        limits[resource.RLIMIT_NPROC] = PROCESSES
    for which, wanted in limits.items():
        most = resource.getrlimit(which)[1]
        given = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
        resource.setrlimit(which, (given, given))


def become(uid: int, gid: int, groups: Sequence[int], own: Iterable[str]) -> None:
    """Be this user for good, who from now on owns these paths. Raises OSError."""
    for path in own:
        os.chown(path, uid, gid)
    os.setgroups(list(groups))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def unreadable(uid: int, gid: int, groups: Sequence[int], paths: Iterable[str]) -> str:
    """The first of these paths that this user could not read, empty when there is none. Needs root."""
    kept = os.getgroups()
    os.setgroups(list(groups))
    os.setegid(gid)
    os.seteuid(uid)
    try:
        wanted = [(path, os.R_OK | (os.X_OK if os.path.isdir(path) else 0)) for path in paths]
        return next((path for path, how in wanted if not os.access(path, how, effective_ids=True)), "")
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(kept)


def drop_capabilities() -> None:
    """For root that stays root: no capability is left, and none comes back with a program. Raises OSError."""
    kernel.prctl("securebits", kernel.PR_SET_SECUREBITS, _LOCKED_NO_ROOT)
    for capability in range(int(_LAST_CAPABILITY.read_text()) + 1):
        kernel.prctl("capabilities", kernel.PR_CAPBSET_DROP, capability)
