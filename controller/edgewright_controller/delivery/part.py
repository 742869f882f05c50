"""A piece of a block as it crosses the wire, put together by hand.

Protobuf copies the data four times on this way, which were a third of what a download cost. A message's fields may
come in any order; here the data is the last one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edgewright_contract.v1 import agent_pb2

# What stands before the field `data`: its number, and that it has a length.
_DATA: Final = bytes([agent_pb2.BlockPart.DATA_FIELD_NUMBER << 3 | 2])


@dataclass(frozen=True, slots=True)
class Part:
    """The message without its data, and the data."""

    head: agent_pb2.BlockPart
    data: memoryview | bytes

    def encoded(self) -> bytes:
        """The message, whole."""
        return b"".join((self.head.SerializeToString(), _DATA, _varint(len(self.data)), self.data))


def _varint(value: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, the lowest first."""
    said = bytearray()
    while value > 0x7F:
        said.append(value & 0x7F | 0x80)
        value >>= 7
    said.append(value)
    return bytes(said)
