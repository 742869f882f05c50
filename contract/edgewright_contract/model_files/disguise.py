"""Telling a file of code or an archive by its bytes, whatever its name says.

A magic of two bytes will not do. Weights beside a graph are raw numbers and may begin with anything; of 65,536 honest
files one begins with "MZ". So each test here asks for a whole header that agrees with itself, which chance brings about
less than once in a million files, and none of them needs to know what the file claims to be. What the formats of an
artifact demand of their own files comes on top, and is much stricter than this.
"""

from __future__ import annotations

import io
import itertools
import pickletools
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final

HEAD_BYTES: Final = 1 << 16
_MAX_OPCODES: Final = 1 << 14

_SIGNATURES: Final = (
    (b"7z\xbc\xaf\x27\x1c", "an archive (7z)"),
    (b"Rar!\x1a\x07", "an archive (rar)"),
    (b"\xfd7zXZ\x00", "an archive (xz)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, which can hold pickled code"),
    (b"\x93NUMPY", "a numpy file, which can hold pickles"),
    (b"\x1bLua", "compiled Lua"),
    (b"\x00asm\x01\x00\x00\x00", "WebAssembly"),
)
_SCRIPT = re.compile(rb"#![ \t]*/[!-~]{2,}[ \t\r\n]")
_BZIP2 = re.compile(rb"BZh[1-9]\x31\x41\x59\x26\x53\x59")
# What brings a name of Python's into a pickle; without one it is data, though still a pickle.
_IMPORTS: Final = frozenset({"GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"})


def what(path: Path) -> str:
    """What the file at `path` is in truth, when that is code or an archive; else empty. Raises OSError."""
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        size = file.seek(0, 2)
        for magic, name in _SIGNATURES:
            if head.startswith(magic):
                return name
        for looks_like, name in _TESTS:
            if looks_like(head, file, size):
                return name
    return ""


def _script(head: bytes, _file: BinaryIO, _size: int) -> bool:
    return _SCRIPT.match(head) is not None


def _elf(head: bytes, _file: BinaryIO, _size: int) -> bool:
    # Class, byte order and version of the header.
    return head[:4] == b"\x7fELF" and head[4:5] in (b"\1", b"\2") and head[5:6] in (b"\1", b"\2") and head[6:7] == b"\1"


def _pe(head: bytes, file: BinaryIO, size: int) -> bool:
    if head[:2] != b"MZ" or len(head) < 64:
        return False
    place = int.from_bytes(head[60:64], "little")
    if place > size - 4:
        return False
    file.seek(place)
    return file.read(4) == b"PE\0\0"


def _macho(head: bytes, _file: BinaryIO, _size: int) -> bool:
    for order in "<>":
        if len(head) >= 16:
            magic, _cpu, _subtype, kind = struct.unpack_from(f"{order}4I", head)
            if magic in (0xFEEDFACE, 0xFEEDFACF) and 1 <= kind <= 16:
                return True
    # Of several processors; and a Java class, which begins alike and is code too.
    return head[:4] in (b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf") and head[4:6] == b"\0\0" and len(head) > 8


def _zip(head: bytes, file: BinaryIO, size: int) -> bool:
    """At its beginning, as torch writes; or ending as one, which zip's readers find behind anything."""
    if head[:4] == b"PK\x03\x04" and head[5:6] == b"\0" and head[9:10] == b"\0":
        return True
    if size < 22:
        return False
    file.seek(size - 22)
    tail = file.read(22)
    length, start, comment = struct.unpack("<IIH", tail[12:])
    return tail[:4] == b"PK\x05\x06" and comment == 0 and start + length <= size - 22


def _gzip(head: bytes, _file: BinaryIO, _size: int) -> bool:
    return head[:3] == b"\x1f\x8b\x08" and head[3:4] < b"\x20" and head[8:9] in (b"\0", b"\2", b"\4")


def _bzip2(head: bytes, _file: BinaryIO, _size: int) -> bool:
    return _BZIP2.match(head) is not None


def _zstd(head: bytes, _file: BinaryIO, _size: int) -> bool:
    return head[:4] == b"\x28\xb5\x2f\xfd" and len(head) > 8 and not head[4] & 0x08


def _tar(head: bytes, _file: BinaryIO, _size: int) -> bool:
    if head[257:262] != b"ustar":
        return False
    block = head[:512]
    said = block[148:156].strip(b" \0")
    return bool(said) and said.isdigit() and int(said, 8) == sum(block[:148]) + 8 * 32 + sum(block[156:])


def _python(head: bytes, _file: BinaryIO, _size: int) -> bool:
    """Compiled Python: a version, flags, and a marshalled code object."""
    return head[2:4] == b"\r\n" and head[5:8] == b"\0\0\0" and head[4:5] < b"\4" and head[16:17] in (b"\xe3", b"c")


def _pickle(head: bytes, _file: BinaryIO, size: int) -> bool:
    """Whether it reads as a pickle of any protocol, from the first opcode to the last or through the whole head.

    Only taken apart, never run. Beyond protocol 1 a pickle begins with its protocol; before, any text could begin
    alike, so there it counts only with the name of something that it imports, and with its end.
    """
    stream = io.BytesIO(head)
    declared = head[:1] == b"\x80" and b"\2" <= head[1:2] <= b"\x05"
    imports = stopped = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of escapes, in what is no pickle at all
            for opcode, _argument, _position in itertools.islice(pickletools.genops(stream), _MAX_OPCODES):
                imports = imports or opcode.name in _IMPORTS
                stopped = opcode.name == "STOP"
    except (ValueError, UnicodeError):
        # The head may end within an opcode; an opcode that does not exist comes before the end.
        if stream.tell() < len(head) or len(head) == size:
            return False
    return declared or (imports and stopped)


_TESTS: Final[tuple[tuple[Callable[[bytes, BinaryIO, int], bool], str], ...]] = (
    (_script, "a script"),
    (_elf, "a native library or program (ELF)"),
    (_pe, "a native library or program (Windows)"),
    (_macho, "a native library or program (Mach-O), or a Java class"),
    (_zip, "a zip archive, as pickled checkpoints are"),
    (_gzip, "an archive (gzip)"),
    (_bzip2, "an archive (bzip2)"),
    (_zstd, "an archive (zstd)"),
    (_tar, "an archive (tar)"),
    (_python, "compiled Python"),
    (_pickle, "a pickle, which can run code when it is read"),
)
