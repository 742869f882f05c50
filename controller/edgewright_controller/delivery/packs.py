"""Packs: what the blocks of one artifact are when they come against one other artifact, or just compressed.

A pack is one file, `store/deltas/<wanted>.<base>`, or `<wanted>.zstd` for what is against nothing:

    "EWPACK1\\n"  the blocks' encoded bytes, one after the other
    records       for each kept block in ascending order: number, encoding, file, position and size of its base,
                  position and size of its bytes in the pack, their crc32
    trailer       digests of wanted bundle, its block index and base bundle; where the records begin; sha256 of all that

It appears by a rename when it is whole. One that is damaged counts as not there, and is removed: nothing in it is
needed, and whoever gets a block checks it. Only a block that saves something is kept; the others are sent as they are.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import threading
import zlib
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final

from edgewright_contract import block_coding, digest, durable
from edgewright_contract.block_index import MAX_BLOCK_BYTES
from edgewright_controller import log

MAGIC: Final = b"EWPACK1\n"
PLAIN: Final = "zstd"
MAX_OPEN: Final = 32
_RECORD: Final = struct.Struct("<IBIQIQII")
_TRAILER: Final = struct.Struct("<32s32s32sQ32s")
_NOTHING: Final = bytes(32)
_PIECE_BYTES: Final = 1 << 20

_log = log.of(__name__)


class PackDamaged(Exception):
    """The file is not a pack, or not whole any more."""


@dataclass(frozen=True)
class PackKey:
    """Digests: of the bundle that is wanted, of the index that numbers its blocks, and of the bundle that the blocks
    are against, empty for none."""

    wanted: str
    block_index: str
    base: str = ""

    @property
    def name(self) -> str:
        """The pack's file. An artifact that is cut otherwise replaces its packs."""
        return f"{self.wanted}.{self.base or PLAIN}"


@dataclass(frozen=True)
class Base:
    """Bytes of the base: which file of its bundle, from 0, and which bytes of it."""

    file: int
    offset: int
    size: int


@dataclass(frozen=True)
class Kept:
    """A block as it crosses the wire: the wire's encoding, its bytes, and what they are against."""

    encoding: int
    data: bytes
    base: Base | None = None


class Pack:
    """A pack that was opened. Holds its records in memory, 37 bytes a block, and no file."""

    def __init__(self, path: Path, key: PackKey, records: bytes) -> None:
        self.path, self.key, self._records = path, key, records

    @classmethod
    def open(cls, path: Path) -> Pack:
        """Raises PackDamaged, OSError."""
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < len(MAGIC) + _TRAILER.size:
                raise PackDamaged("too short for a pack")
            file.seek(0)
            if file.read(len(MAGIC)) != MAGIC:
                raise PackDamaged("not a pack")
            file.seek(size - _TRAILER.size)
            trailer = file.read(_TRAILER.size)
            wanted, index, base, start, sha256 = _TRAILER.unpack(trailer)
            length = size - _TRAILER.size - start
            if start < len(MAGIC) or length < 0 or length % _RECORD.size:
                raise PackDamaged("its trailer does not fit it")
            file.seek(start)
            records = file.read(length)
        if hashlib.sha256(records + trailer[:-32]).digest() != sha256:
            raise PackDamaged("its records are not those that were written")
        return cls(path, PackKey(wanted.hex(), index.hex(), "" if base == _NOTHING else base.hex()), records)

    def __len__(self) -> int:
        return len(self._records) // _RECORD.size

    @property
    def encoded_bytes(self) -> int:
        """Of all blocks in it together."""
        return sum(int(_RECORD.unpack_from(self._records, n * _RECORD.size)[6]) for n in range(len(self)))

    def find(self, number: int) -> tuple[int, int] | None:
        """(encoding, encoded size) of a block; None when it is not in the pack. Reads nothing."""
        record = self._record(number)
        return (record[1], record[6]) if record is not None else None

    def read(self, number: int) -> Kept:
        """A block that `find` found. Raises PackDamaged, OSError."""
        record = self._record(number)
        if record is None:
            raise KeyError(number)
        _, encoding, place, offset, size, position, length, crc = record
        with open(self.path, "rb", buffering=0) as file:
            file.seek(position)
            data = file.read(length)
        if len(data) != length or zlib.crc32(data) != crc:
            raise PackDamaged(f"its bytes of block {number} are not those that were written")
        return Kept(encoding, data, Base(place, offset, size) if encoding in block_coding.BASED else None)

    def _record(self, number: int) -> tuple[int, ...] | None:
        def of(at: int) -> int:
            return int.from_bytes(self._records[at * _RECORD.size : at * _RECORD.size + 4], "little")

        at = bisect_left(range(len(self)), number, key=of)
        if at == len(self) or of(at) != number:
            return None
        return _RECORD.unpack_from(self._records, at * _RECORD.size)


class PackWriter:
    """Writes a pack; leaving it by an error leaves nothing behind."""

    def __init__(self, folder: Path, key: PackKey) -> None:
        """Raises OSError."""
        self._folder, self._key = folder, key
        handle, self._temporary = tempfile.mkstemp(dir=folder, prefix=f".{key.name}.")
        self._file = os.fdopen(handle, "wb")
        self._file.write(MAGIC)
        self._at = len(MAGIC)
        self._records = bytearray()

    def __enter__(self) -> PackWriter:
        return self

    def add(self, number: int, kept: Kept) -> None:
        """Take in one block more; numbers rise. Raises OSError."""
        base = kept.base or Base(0, 0, 0)
        assert len(kept.data) < MAX_BLOCK_BYTES
        self._file.write(kept.data)
        crc = zlib.crc32(kept.data)
        position, self._at = self._at, self._at + len(kept.data)
        self._records += _RECORD.pack(
            number, kept.encoding, base.file, base.offset, base.size, position, len(kept.data), crc
        )

    def forget(self) -> None:
        """Leave out all that was taken in. Raises OSError."""
        self._file.seek(len(MAGIC))
        self._file.truncate()
        self._at = len(MAGIC)
        self._records.clear()

    def finish(self) -> None:
        """Make it appear, whole and durable. Raises OSError."""
        key = self._key
        base = bytes.fromhex(key.base) if key.base else _NOTHING
        said = _TRAILER.pack(bytes.fromhex(key.wanted), bytes.fromhex(key.block_index), base, self._at, _NOTHING)[:-32]
        self._file.write(self._records)
        self._file.write(said + hashlib.sha256(bytes(self._records) + said).digest())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        os.replace(self._temporary, self._folder / key.name)
        durable.sync_folder(self._folder)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._file.closed:
            self._file.close()
        with suppress(FileNotFoundError):
            os.unlink(self._temporary)


class Packs:
    """The packs in a folder. Safe for many threads; one writes each pack."""

    def __init__(self, folder: Path) -> None:
        """Open `folder`, made if absent, and remove what a crash left half done. Raises OSError."""
        self._folder = folder
        self._lock = threading.Lock()
        self._open: OrderedDict[str, Pack] = OrderedDict()
        durable.make_folder(folder)
        for entry in folder.iterdir():
            if not _is_name(entry.name):
                entry.unlink()

    def get(self, key: PackKey) -> Pack | None:
        """The pack, None when there is none of this index, or a damaged one, which is removed."""
        with self._lock:
            pack = self._open.get(key.name)
            if pack is not None:
                self._open.move_to_end(key.name)
        if pack is None:
            path = self._folder / key.name
            try:
                pack = Pack.open(path)
            except FileNotFoundError:
                return None
            except (PackDamaged, OSError) as error:
                self.damaged(key, str(error))
                return None
            with self._lock:
                self._open[key.name] = pack
                if len(self._open) > MAX_OPEN:
                    self._open.popitem(last=False)
        return pack if pack.key == key else None

    def damaged(self, key: PackKey, why: str) -> None:
        """Let go of a pack that cannot be used. It is made again when it is wanted again."""
        _log.warning("pack removed", pack=key.name, why=why)
        self._drop(key.name)

    def write(self, key: PackKey) -> PackWriter:
        """A new pack, in place of an older one once it is finished. Raises OSError."""
        return PackWriter(self._folder, key)

    def written(self, key: PackKey) -> None:
        """The pack was finished: an older one of its name is not to be used any more."""
        with self._lock:
            self._open.pop(key.name, None)

    def of(self, wanted: str) -> int:
        """How many packs there are of this artifact against others."""
        names = (entry.name for entry in self._folder.iterdir())
        return sum(name.startswith(f"{wanted}.") and name != f"{wanted}.{PLAIN}" for name in names)

    def remove(self, artifact: str) -> None:
        """Remove every pack of or against an artifact that is no more. Raises OSError."""
        for entry in list(self._folder.iterdir()):
            if artifact in entry.name.split("."):
                self._drop(entry.name)

    def drop(self, names: Iterable[str]) -> None:
        """Remove the packs of these names. Raises OSError."""
        for name in names:
            if _is_name(name):
                self._drop(name)

    def _drop(self, name: str) -> None:
        with self._lock:
            self._open.pop(name, None)
        durable.unlink(self._folder / name)


def _is_name(name: str) -> bool:
    wanted, _, base = name.partition(".")
    return digest.is_sha256(wanted) and (base == PLAIN or digest.is_sha256(base))
