"""The file of a backup: a header that anybody can read, then chunks that are sealed one by one.

    "edgewright backup\n"
    length of the header (4 bytes, big endian), the header: canonical JSON
    for each chunk: length (4 bytes), sealed bytes

A chunk is bound to the header, to its place, and to whether it is the last. So nothing can be changed, left out, put
elsewhere or cut off without the opening failing, and a ledger of any size passes through a bounded memory.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import IO, Any, Final

from edgewright_contract import canonical, digest, names
from edgewright_controller import sealed
from edgewright_controller.backup.errors import BackupRefused
from edgewright_controller.sealed import SealedError, Work
from edgewright_controller.unix_time import unix_ms

FORMAT: Final = 1
CHUNK: Final = 1 << 20
_MAGIC: Final = b"edgewright backup\n"
_MAX_HEADER: Final = 4096
# What sealing adds: a nonce and a tag.
_SEAL: Final = 28
_LENGTH: Final = 4


@dataclass(frozen=True)
class Header:
    """What a backup says in clear. `created`: everything that happened before it is in the backup."""

    fleet: str
    created: datetime
    work: Work

    def encode(self) -> bytes:
        """As it stands in the file, and in what each chunk is bound to."""
        said = {
            "format": FORMAT,
            "fleet": self.fleet,
            "created_unix_ms": unix_ms(self.created),
            "work": sealed.work_to(self.work),
        }
        return canonical.encode(said)


class Sealer:
    """Seals what is written into chunks. Without `finish`, what it wrote cannot be opened."""

    def __init__(self, sink: IO[bytes], header: Header, passphrase: str) -> None:
        """Writes the header. Raises SealedError, OSError."""
        said = header.encode()
        self._sink, self._key, self._bound = sink, header.work.key(passphrase), _bound(said)
        self._waiting, self._count = bytearray(), 0
        sink.write(_MAGIC + len(said).to_bytes(_LENGTH, "big") + said)

    def write(self, data: bytes) -> None:
        """Seal `data` behind what came before. Raises OSError."""
        self._waiting += data
        while len(self._waiting) > CHUNK:  # the last chunk is not known before the end
            self._chunk(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]

    def finish(self) -> None:
        """Nothing follows. Raises OSError."""
        self._chunk(bytes(self._waiting), last=True)

    def _chunk(self, content: bytes, *, last: bool) -> None:
        made = sealed.seal(self._key, content, _place(self._bound, self._count, last=last))
        self._sink.write(len(made).to_bytes(_LENGTH, "big") + made)
        self._count += 1


def read_header(source: IO[bytes]) -> Header:
    """The header, not authenticated yet: opening the first chunk does that. Raises BackupRefused, OSError."""
    if source.read(len(_MAGIC)) != _MAGIC:
        raise BackupRefused("this is not a backup of a controller")
    length = int.from_bytes(source.read(_LENGTH), "big")
    said = source.read(length) if length <= _MAX_HEADER else b""
    try:
        document = json.loads(said)
        format_ = document["format"]
        if type(format_) is int and format_ > FORMAT:
            raise BackupRefused(
                f"it was made by a newer Edgewright (format {format_}; this one reads {FORMAT}): restore it with that"
            )
        header = _header(document)
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError) as error:
        raise BackupRefused(f"its header is damaged: {error!r}") from error
    if len(said) != length or header.encode() != said:
        raise BackupRefused("its header is damaged")
    return header


def _header(document: Any) -> Header:
    fleet = document["fleet"]
    if not isinstance(fleet, str) or not names.is_id(fleet):
        raise BackupRefused("its header names no fleet; it is damaged")
    created = datetime.fromtimestamp(document["created_unix_ms"] / 1000, timezone.utc)
    return Header(fleet, created, sealed.work_from(document["work"]))


def opened(source: IO[bytes], header: Header, passphrase: str) -> Iterator[bytes]:
    """What was sealed, chunk by chunk, each authenticated before it is given out; `source` stands behind the header.

    Only what ends without an error is whole. Raises BackupRefused, OSError.
    """
    try:
        key = header.work.key(passphrase)
    except SealedError as error:
        raise BackupRefused(str(error)) from error
    bound, count, last = _bound(header.encode()), 0, False
    made = _next(source, count)
    while not last:
        following = _next(source, count + 1)
        last = not following
        try:
            content = sealed.unseal(key, made, _place(bound, count, last=last))
        except SealedError as error:
            raise BackupRefused(_unopened(count, last=last)) from error
        yield content
        made, count = following, count + 1


def _next(source: IO[bytes], count: int) -> bytes:
    """The next sealed chunk, empty at the end of the file."""
    head = source.read(_LENGTH)
    if not head and count:
        return b""
    length = int.from_bytes(head, "big")
    if len(head) != _LENGTH or not _SEAL <= length <= CHUNK + _SEAL:
        raise BackupRefused(_unopened(count, last=len(head) < _LENGTH))
    made = source.read(length)
    if len(made) != length:
        raise BackupRefused("the file is cut off; take another copy of it")
    return made


def _unopened(count: int, *, last: bool) -> str:
    if count == 0:
        return "the passphrase is another one, or the file was changed"
    return "the file is cut off or damaged; take another copy of it" if last else "the file is damaged or was changed"


def _bound(header: bytes) -> bytes:
    return digest.of_bytes(header).encode()


def _place(bound: bytes, count: int, *, last: bool) -> bytes:
    return bound + count.to_bytes(8, "big") + (b"\x01" if last else b"\x00")
