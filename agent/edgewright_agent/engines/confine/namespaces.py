"""A network in which there is nothing but the process itself, and an own set of System V queues and segments."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Final

from edgewright_agent.engines.confine import kernel

_NEW_USER, _NEW_IPC, _NEW_NET = 0x10000000, 0x08000000, 0x40000000
_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914
_UP: Final = 1


def apart() -> None:
    """Move this process there. What it holds open already, a socket too, stays where it is.

    Root needs no namespace of users for it; another user gets one in which it is itself and nobody else, and loses
    that one's capabilities when it starts another program. Raises OSError where the system does not let it.
    """
    if os.geteuid() == 0:
        kernel.unshare("a network of its own", _NEW_NET | _NEW_IPC)
    else:
        uid, gid = os.geteuid(), os.getegid()
        kernel.unshare("a network of its own", _NEW_USER | _NEW_NET | _NEW_IPC)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    _raise_loopback()


def possible() -> bool:
    """Whether `apart` works here: tried in a process of its own, since it cannot be taken back. A system may grant
    the namespace and then nothing in it, as Ubuntu does from 24.04 on."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            apart()
            code = 0
        finally:
            os._exit(code)  # whatever it was, the parent knows what to make of it
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack("16sH22x", fcntl.ioctl(any_socket, _GET_FLAGS, request))[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sH22x", b"lo", flags | _UP))
