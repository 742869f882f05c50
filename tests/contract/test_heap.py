"""The heap of a process that moves blocks: what it holds is not taken from the system anew for each part."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_CHILD = """
import resource, sys
from edgewright_contract import heap
if sys.argv[1] == "set":
    heap.set_for_blocks(2)
def parts():
    return [bytearray(1 << 20) for _ in range(16)]
parts()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    parts()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
heap.give_back()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is set is glibc's")
def test_memory_that_is_used_again_and_again_faults_once() -> None:
    def faults(how: str) -> int:
        done = subprocess.run([sys.executable, "-c", _CHILD, how], capture_output=True, check=True, timeout=60)
        return int(done.stdout)

    assert faults("set") < 2_000
    assert faults("not set") > 20_000
