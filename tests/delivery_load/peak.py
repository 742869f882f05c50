"""The most memory that this process ever held."""

from __future__ import annotations

from pathlib import Path


def peak_rss_mb() -> float:
    """In MB (10^6 bytes). Not `getrusage`: what that says began with the process that this one was forked from."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024 / 1e6
