"""Runs a command on a kernel that seems to lack something: `old_kernel.py landlock,unshare COMMAND…`.

A real filter answers as an old kernel, or a strict container, does. Only for tests.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys

sys.path[:0] = sys.argv.pop(1).split(os.pathsep)

from edgewright_agent.engines.confine import bpf, kernel, privileges, syscalls  # noqa: E402

LANDLOCK, PRCTL = 444, {"x86_64": 157, "aarch64": 167}
NOT_THERE, NOT_ALLOWED = bpf.answer(bpf.failing(errno.ENOSYS)), bpf.answer(bpf.failing(errno.EPERM))


def main(lacking: list[str], command: list[str]) -> None:
    """Does not return."""
    processor = syscalls.architecture(os.uname().machine)
    assert processor is not None
    program = bpf.load(bpf.NUMBER)
    if "landlock" in lacking:
        program += bpf.if_equal(LANDLOCK, NOT_THERE)
    if "unshare" in lacking:
        program += bpf.if_equal(processor.number("unshare") or 0, NOT_ALLOWED)
    if "seccomp" in lacking:
        asked = bpf.load(bpf.argument(0)) + bpf.if_equal(kernel.PR_SET_SECCOMP, NOT_THERE) + bpf.answer(bpf.ALLOW)
        program += bpf.if_equal(PRCTL[processor.machine], asked)
    code = bpf.assembled([*program, *bpf.answer(bpf.ALLOW)])

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    privileges.no_new_privileges()
    kernel.prctl("seccomp", kernel.PR_SET_SECCOMP, 2, ctypes.byref(Program(len(code) // 8, code)))
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2:])
