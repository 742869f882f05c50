"""Bytes resident in this process, without any package."""

import ctypes
import os
import sys


def rss_bytes():
    """What the operating system says now; on macOS the peak, which is what it gives without a package."""
    if sys.platform == "linux":
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if sys.platform == "win32":
        return _windows()
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _windows():
    class Counters(ctypes.Structure):
        _fields_ = [("cb", ctypes.c_ulong), ("faults", ctypes.c_ulong)] + [
            (name, ctypes.c_size_t)
            for name in ("peak", "working_set", "qpp", "qp", "qpnp", "qnp", "pagefile", "peak_pagefile")
        ]

    counters = Counters(cb=ctypes.sizeof(Counters))
    process = ctypes.windll.kernel32.GetCurrentProcess()
    ctypes.windll.psapi.GetProcessMemoryInfo(process, ctypes.byref(counters), counters.cb)
    return counters.working_set
