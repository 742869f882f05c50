"""The filter of system calls: a list of what an engine has no business with. What is refused fails, it does not kill.

A list of what is allowed would be tighter, and would break with each new release of a driver. So this takes away
what reaches other processes, other hosts, the kernel's settings and the rest of the machine. Arguments are compared
where they are numbers; what a pointer points to, no filter can see.
"""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass
from typing import Final

from edgewright_agent.engines.confine import bpf, kernel
from edgewright_agent.engines.confine.syscalls import X32_FIRST, X86_64, Architecture

_REFUSED: Final = (
    # other processes
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "kcmp",
    "pidfd_open",
    "pidfd_getfd",
    "pidfd_send_signal",
    "process_madvise",
    "process_mrelease",
    "migrate_pages",
    "move_pages",
    "tkill",
    "rt_sigqueueinfo",
    "rt_tgsigqueueinfo",
    # the kernel and what it keeps
    "bpf",
    "perf_event_open",
    "keyctl",
    "add_key",
    "request_key",
    "userfaultfd",
    "io_uring_setup",
    "io_uring_enter",
    "io_uring_register",
    "kexec_load",
    "kexec_file_load",
    "init_module",
    "finit_module",
    "delete_module",
    "create_module",
    "query_module",
    "get_kernel_syms",
    "syslog",
    "lookup_dcookie",
    "lsm_set_self_attr",
    "_sysctl",
    "sysfs",
    "ustat",
    "uselib",
    "nfsservctl",
    "vserver",
    "personality",
    "modify_ldt",
    # the machine
    "reboot",
    "swapon",
    "swapoff",
    "iopl",
    "ioperm",
    "acct",
    "quotactl",
    "quotactl_fd",
    "settimeofday",
    "clock_settime",
    "clock_adjtime",
    "adjtimex",
    "sethostname",
    "setdomainname",
    "vhangup",
    # the tree of files, and ways around its names
    "mount",
    "umount2",
    "pivot_root",
    "chroot",
    "move_mount",
    "open_tree",
    "open_tree_attr",
    "fsopen",
    "fsconfig",
    "fsmount",
    "fspick",
    "mount_setattr",
    "open_by_handle_at",
    "name_to_handle_at",
    "fanotify_init",
    "mknod",
    "mknodat",
    # what Landlock does not watch, by name: owner, mode, attributes, and length before its third version
    "chmod",
    "fchmodat",
    "fchmodat2",
    "chown",
    "lchown",
    "fchownat",
    "file_setattr",
    "setxattr",
    "lsetxattr",
    "setxattrat",
    "removexattr",
    "lremovexattr",
    "removexattrat",
    "truncate",
    # new processes, and namespaces, in which all of the above would be allowed
    "fork",
    "vfork",
    "unshare",
    "setns",
)
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_STREAM, _SOCK_SEQPACKET, _SOCK_KIND = 1, 5, 0xF
_TCP: Final = 6
_MSG_FASTOPEN: Final = 0x20000000  # connects without `connect`
_CLONE_THREAD: Final = 0x00010000
_NEW_NAMESPACES: Final = 0x7E020000
_F_SETOWN, _F_SETOWN_EX = 8, 15
_IOCTLS: Final = (0x5412, 0x541C, 0x8901, 0x8902)  # TIOCSTI, TIOCLINUX, FIOSETOWN, SIOCSPGRP

_REFUSE: Final = bpf.answer(bpf.failing())
_ALLOW: Final = bpf.answer(bpf.ALLOW)


@dataclass(frozen=True)
class Allowed:
    """What differs from engine to engine. `pid`: the only process that it may send signals to, itself."""

    pid: int
    own_server: bool = False
    unix_sockets: bool = False


def program(architecture: Architecture, allowed: Allowed) -> bytes:
    """The whole filter, as struct sock_filter."""
    start = [*bpf.load(bpf.ARCHITECTURE), *bpf.unless_equal(architecture.audit, bpf.answer(bpf.KILL))]
    start += bpf.load(bpf.NUMBER)
    if architecture is X86_64:
        start += bpf.if_at_least(X32_FIRST, bpf.answer(bpf.KILL))
    return bpf.assembled([*start, *_calls(architecture, allowed), *_ALLOW])


def install(architecture: Architecture, allowed: Allowed) -> None:
    """For this process and its children, for good. Needs no_new_privs. Raises OSError."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    code = program(architecture, allowed)
    kernel.prctl("seccomp", kernel.PR_SET_SECCOMP, 2, ctypes.byref(Program(len(code) // 8, code)))


def _calls(architecture: Architecture, allowed: Allowed) -> bpf.Block:
    blocks: dict[str, bpf.Block] = dict.fromkeys(_REFUSED, _REFUSE)
    # The C library falls back to `clone`, whose flags can be seen.
    blocks["clone3"] = bpf.answer(bpf.failing(errno.ENOSYS))
    blocks["clone"] = bpf.load(bpf.argument(0)) + bpf.if_any(_NEW_NAMESPACES, _REFUSE)
    blocks["clone"] += bpf.if_any(_CLONE_THREAD, _ALLOW) + _REFUSE  # threads, no processes
    blocks |= _signals(allowed.pid) | _sockets(allowed)
    out: bpf.Block = ()
    for name, block in blocks.items():
        number = architecture.number(name)
        if number is not None:
            out += bpf.if_equal(number, block)
    return out


def _signals(pid: int) -> dict[str, bpf.Block]:
    """To itself only: as a call, and as what the kernel sends on a process's behalf."""
    itself, group = bpf.if_equal(pid, _ALLOW), bpf.if_equal(0, _ALLOW)
    owner = bpf.load(bpf.argument(2)) + itself + _REFUSE
    requests: bpf.Block = ()
    for request in _IOCTLS:
        requests += bpf.if_equal(request, _REFUSE)
    return {
        "kill": bpf.load(bpf.argument(0)) + itself + group + _REFUSE,
        "tgkill": bpf.load(bpf.argument(0)) + itself + _REFUSE,
        "prlimit64": bpf.load(bpf.argument(0)) + itself + group + _REFUSE,
        "fcntl": bpf.load(bpf.argument(1))
        + bpf.if_equal(_F_SETOWN, owner)
        + bpf.if_equal(_F_SETOWN_EX, _REFUSE)
        + _ALLOW,
        "ioctl": bpf.load(bpf.argument(1)) + requests + _ALLOW,
    }


def _sockets(allowed: Allowed) -> dict[str, bpf.Block]:
    """The sockets that it inherits are enough for an engine without a server of its own. What can reach somebody by
    an address in one call, a datagram or a fast open, is refused to all."""
    of_tcp = bpf.load(bpf.argument(1)) + bpf.masked(_SOCK_KIND) + bpf.unless_equal(_SOCK_STREAM, _REFUSE)
    of_tcp += bpf.load(bpf.argument(2)) + bpf.if_equal(0, _ALLOW) + bpf.if_equal(_TCP, _ALLOW) + _REFUSE
    family = bpf.load(bpf.argument(0))
    if allowed.unix_sockets:
        family += bpf.if_equal(_AF_UNIX, _ALLOW)
    if allowed.own_server:
        family += bpf.if_equal(_AF_INET, of_tcp) + bpf.if_equal(_AF_INET6, of_tcp)
    kind = bpf.load(bpf.argument(1)) + bpf.masked(_SOCK_KIND)
    kind += bpf.if_equal(_SOCK_STREAM, _ALLOW) + bpf.if_equal(_SOCK_SEQPACKET, _ALLOW) + _REFUSE
    blocks = {
        "socket": family + _REFUSE,
        "socketpair": kind,
        "sendto": bpf.load(bpf.argument(3)) + bpf.if_any(_MSG_FASTOPEN, _REFUSE) + _ALLOW,
        "sendmsg": bpf.load(bpf.argument(2)) + bpf.if_any(_MSG_FASTOPEN, _REFUSE) + _ALLOW,
        "sendmmsg": bpf.load(bpf.argument(3)) + bpf.if_any(_MSG_FASTOPEN, _REFUSE) + _ALLOW,
    }
    if allowed.unix_sockets:
        blocks.pop("socketpair")
    if not (allowed.own_server or allowed.unix_sockets):
        blocks |= {"bind": _REFUSE, "connect": _REFUSE}
    return blocks
