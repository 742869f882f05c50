"""The little of classic BPF that a seccomp filter needs, written as blocks that each end in an answer. Pure."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import Final

ALLOW: Final = 0x7FFF0000
KILL: Final = 0x80000000  # the whole process
_ERRNO: Final = 0x00050000

_LOAD, _JUMP_EQUAL, _JUMP_LEAST, _JUMP_ANY, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
NUMBER: Final = 0  # offsets in struct seccomp_data
ARCHITECTURE: Final = 4
_ARGUMENTS: Final = 16

Block = tuple[tuple[int, int, int, int], ...]


def failing(number: int = errno.EPERM) -> int:
    """The answer «this call fails with that error»."""
    return _ERRNO | number


def argument(index: int) -> int:
    """Where the low half of an argument stands: all that the kernel looks at for an int."""
    return _ARGUMENTS + 8 * index


def load(offset: int) -> Block:
    """Take the 32 bits at this offset."""
    return ((_LOAD, 0, 0, offset),)


def masked(mask: int) -> Block:
    """Keep these bits of what was taken."""
    return ((_AND, 0, 0, mask),)


def answer(value: int) -> Block:
    """The end."""
    return ((_RETURN, 0, 0, value),)


def if_equal(value: int, then: Block) -> Block:
    """`then`, which must end in an answer, when what was taken is `value`; else go on."""
    return ((_JUMP_EQUAL, 0, _within(then), value), *then)


def unless_equal(value: int, then: Block) -> Block:
    """`then`, which must end in an answer, when what was taken is not `value`; else go on."""
    return ((_JUMP_EQUAL, _within(then), 0, value), *then)


def if_at_least(value: int, then: Block) -> Block:
    """`then`, which must end in an answer, when what was taken is `value` or more; else go on."""
    return ((_JUMP_LEAST, 0, _within(then), value), *then)


def if_any(bits: int, then: Block) -> Block:
    """`then`, which must end in an answer, when any of these bits is set; else go on."""
    return ((_JUMP_ANY, 0, _within(then), bits), *then)


def assembled(program: Sequence[tuple[int, int, int, int]]) -> bytes:
    """The instructions as struct sock_filter. Raises ValueError when they are too many for the kernel."""
    if len(program) > 4096:
        raise ValueError(f"{len(program)} instructions; a filter has at most 4096")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _within(block: Block) -> int:
    if len(block) > 255:
        raise ValueError(f"a block of {len(block)} instructions cannot be jumped over")
    return len(block)
