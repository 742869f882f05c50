"""What memory a child and all that it started hold, and whether the system ended one for want of memory."""

from __future__ import annotations

import contextlib
import re
import sys
from pathlib import Path
from typing import Final

import psutil

# Pages of mapped files are not counted: the system takes them back when it needs them.
_HELD: Final = re.compile(rb"^(?:RssAnon|RssShmem|VmSwap):\s+(\d+) kB$", re.MULTILINE)
_OOM_KILLS: Final = re.compile(rb"^oom_kill (\d+)$", re.MULTILINE)


def held_bytes(pid: int) -> int:
    """Bytes that the process and its descendants hold; 0 when it is gone."""
    try:
        root = psutil.Process(pid)
        processes = [root, *root.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for process in processes:
        with contextlib.suppress(psutil.Error, OSError):
            total += _of(process)
    return total


def oom_kills() -> int | None:
    """How many processes this system's kernel has ended for want of memory, None where it does not say."""
    try:
        found = _OOM_KILLS.search(Path("/proc/vmstat").read_bytes())
    except OSError:
        return None
    return int(found.group(1)) if found else None


def _of(process: psutil.Process) -> int:
    if sys.platform != "linux":
        return int(process.memory_info().rss)
    status = Path(f"/proc/{process.pid}/status").read_bytes()
    return sum(int(found) * 1024 for found in _HELD.findall(status))
