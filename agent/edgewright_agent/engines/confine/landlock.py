"""Landlock: which files, TCP ports, signals and abstract sockets a process may reach, however it is asked for them.

The kernel's own numbers and structures, from its user-space interface (Documentation/userspace-api/landlock.rst).
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Iterable
from typing import Final

from edgewright_agent.engines.confine import kernel

_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same on every architecture
_RULE_PATH, _RULE_PORT = 1, 2

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_OF_FILES: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV
_BIND_TCP, _CONNECT_TCP = 1 << 0, 1 << 1
_SCOPES: Final = 0b11  # abstract unix sockets, signals

READ: Final = READ_FILE | READ_DIR
DEVICE: Final = READ_FILE | READ_DIR | WRITE_FILE | IOCTL_DEV

PORTS_SINCE: Final = 4
SCOPES_SINCE: Final = 6


def abi() -> int:
    """The version of the kernel's interface; 0 where there is none."""
    try:
        return kernel.syscall("landlock", _CREATE, None, 0, 1)
    except OSError:
        return 0


def handled_files(version: int) -> int:
    """Every right to files that this version of the interface knows, and so takes away."""
    bits = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    # REFER came with 2, TRUNCATE with 3, IOCTL_DEV with 5: each takes the next bit.
    return (1 << bits) - 1


def attributes(version: int, *, ports: bool) -> bytes:
    """struct landlock_ruleset_attr, of the length that this version knows."""
    fields = [handled_files(version)]
    if version >= PORTS_SINCE:
        fields.append(_BIND_TCP | _CONNECT_TCP if ports else 0)
    if version >= SCOPES_SINCE:
        fields.append(_SCOPES)
    return struct.pack(f"={len(fields)}Q", *fields)


class Ruleset:
    """Rules that are not in force yet. `ports`: TCP ports are restricted too, where the version knows them."""

    def __init__(self, version: int, *, ports: bool) -> None:
        """Raises OSError."""
        self._handled = handled_files(version)
        self._ports = ports and version >= PORTS_SINCE
        given = attributes(version, ports=ports)
        self._handle = kernel.syscall("landlock rules", _CREATE, ctypes.c_char_p(given), len(given), 0)

    def allow(self, paths: Iterable[str], rights: int) -> None:
        """`rights` to these files and to everything below these folders. What is not there is passed over.

        Raises OSError."""
        for path in paths:
            try:
                place = os.open(path, os.O_PATH | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            try:
                usable = self._handled if stat.S_ISDIR(os.fstat(place).st_mode) else self._handled & _OF_FILES
                rule = struct.pack("=Qi", rights & usable, place)
                self._add(f"landlock rule for {path}", _RULE_PATH, rule)
            finally:
                os.close(place)

    def allow_all_but_nodes(self, paths: Iterable[str]) -> None:
        """Everything below these folders, except to make device nodes and to execute. Raises OSError."""
        self.allow(paths, self._handled & ~(_MAKE_CHAR | _MAKE_BLOCK | EXECUTE))

    def allow_port(self, port: int) -> None:
        """To listen on this TCP port, and to connect to it. Raises OSError."""
        if self._ports:
            rule = struct.pack("=QQ", _BIND_TCP | _CONNECT_TCP, port)
            self._add(f"landlock rule for port {port}", _RULE_PORT, rule)

    def enforce(self) -> None:
        """From now on, for this process and its children, for good. Needs no_new_privs. Raises OSError."""
        kernel.syscall("landlock", _RESTRICT, self._handle, 0)
        os.close(self._handle)

    def _add(self, what: str, kind: int, rule: bytes) -> None:
        kernel.syscall(what, _ADD, self._handle, kind, ctypes.c_char_p(rule), 0)
