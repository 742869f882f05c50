"""What of a state folder is backed up, and how it lies in the sealed stream.

The stream is a list of records: the length of a JSON document (4 bytes), the document, and the bytes that it announces.
The first says what the backup is; each other one is a file; one of length 0 ends the list. It is a form of our own
because it needs so little: names by an allow-list, regular files, two modes.
"""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

from edgewright_contract import canonical
from edgewright_controller.backup.errors import BackupRefused
from edgewright_controller.backup.sealing import CHUNK, Sealer

LEDGER: Final = "ledger.sqlite"
_FOLDERS: Final = ("keys", "pki", "operator", "image", "director")
_FILES: Final = (LEDGER, "broker/port")
# A temporary file of the write rule begins with a dot.
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_MAX_DEPTH: Final = 4
_MAX_FILE: Final = 64 << 20
_MAX_DOCUMENT: Final = 4096
_LENGTH: Final = 4
_ATTEMPTS: Final = 20

Files = dict[str, tuple[bytes, bool]]
"""Path below the state folder → content, and whether only the owner may read it."""


@dataclass(frozen=True)
class About:
    """What a backup holds. `reports`: also what devices reported."""

    devices: int
    releases: int
    reports: bool


def is_ours(path: str) -> bool:
    """Whether a file of this path belongs into a backup."""
    parts = path.split("/")
    if len(parts) > _MAX_DEPTH or not all(_PART.fullmatch(part) for part in parts):
        return False
    return path in _FILES or (len(parts) > 1 and parts[0] in _FOLDERS)


def small_files(state: Path) -> Files:
    """Everything but the ledger, as it all stood at one moment.

    Each file is replaced as a whole and none gets an earlier content again. So when two readings in a row are the same,
    what they say was there between the first one's end and the second one's start. Raises BackupRefused, OSError.
    """
    before = _reading(state)
    for _ in range(_ATTEMPTS):
        after = _reading(state)
        if after == before:
            return after
        before = after
    raise BackupRefused(f"{state}: its files change all the time; try again when no ceremony is going on")


def _reading(state: Path) -> Files:
    found: Files = {}
    for folder in _FOLDERS:
        for path in sorted((state / folder).rglob("*")):
            _add(found, state, path)
    if (state / "broker" / "port").exists():
        _add(found, state, state / "broker" / "port")
    return found


def _add(found: Files, state: Path, path: Path) -> None:
    name = path.relative_to(state).as_posix()
    try:
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) or not is_ours(name):
            return
        if not stat.S_ISREG(mode):
            raise BackupRefused(f"{path} is no regular file; a backup holds what it points to only when it lies there")
        content = path.read_bytes()
    except FileNotFoundError:
        return  # replaced or removed just now: the second reading tells
    if len(content) > _MAX_FILE:
        raise BackupRefused(f"{path} has {len(content)} bytes, too many for what belongs there")
    found[name] = content, not mode & 0o077


def put_about(sealer: Sealer, about: About) -> None:
    """Say what follows; the first record."""
    _put(sealer, asdict(about))


def put_file(sealer: Sealer, name: str, source: IO[bytes], length: int, *, private: bool) -> None:
    """Seal a file of this length. Raises BackupRefused when `source` has less, OSError."""
    _put(sealer, {"path": name, "length": length, "private": private})
    left = length
    while left:
        data = source.read(min(left, CHUNK))
        if not data:
            raise BackupRefused(f"{name} got shorter while it was read")
        sealer.write(data)
        left -= len(data)


def put_end(sealer: Sealer) -> None:
    """Nothing follows."""
    sealer.write(bytes(_LENGTH))


def _put(sealer: Sealer, document: dict[str, Any]) -> None:
    said = canonical.encode(document)
    sealer.write(len(said).to_bytes(_LENGTH, "big") + said)


@dataclass(frozen=True)
class FileRecord:
    """A file of a backup; `content` must be read before the next one is asked for."""

    name: str
    private: bool
    content: Iterator[bytes]


class Stream:
    """The records of an opened backup, in their order: `about`, then `files`, each once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._waiting = chunks, b""

    def about(self) -> About:
        """The first record. Raises BackupRefused, OSError."""
        try:
            return About(**(self._document() or {}))
        except TypeError as error:
            raise BackupRefused(f"it does not say what it holds: {error}") from error

    def files(self) -> Iterator[FileRecord]:
        """Every file. Ends only when the backup is whole. Raises BackupRefused, OSError."""
        seen: set[str] = set()
        while (said := self._document()) is not None:
            name, length, private = said.get("path"), said.get("length"), said.get("private")
            if not isinstance(name, str) or not is_ours(name) or name in seen:
                raise BackupRefused(f"it holds a file that does not belong into a backup: {str(name)[:80]!r}")
            if type(length) is not int or length < 0 or (name != LEDGER and length > _MAX_FILE):
                raise BackupRefused(f"{name}: a length of {length!r} is not possible")
            seen.add(name)
            content = self._read(length)
            yield FileRecord(name, private is True, content)
            for _ in content:  # what nobody wanted
                pass
        if self._waiting or any(self._chunks):
            raise BackupRefused("something follows behind its end")
        if LEDGER not in seen:
            raise BackupRefused("it holds no ledger")

    def _document(self) -> dict[str, Any] | None:
        length = int.from_bytes(b"".join(self._read(_LENGTH)), "big")
        if length == 0:
            return None
        if length > _MAX_DOCUMENT:
            raise BackupRefused(f"a record of {length} bytes is not possible")
        try:
            document = json.loads(b"".join(self._read(length)))
        except ValueError as error:
            raise BackupRefused(f"a record cannot be read: {error}") from error
        if not isinstance(document, dict):
            raise BackupRefused("a record is no document")
        return document

    def _read(self, length: int) -> Iterator[bytes]:
        while length:
            if not self._waiting:
                data = next(self._chunks, None)
                if data is None:
                    raise BackupRefused("it ends in the middle of a record")
                self._waiting = data
                continue
            part, self._waiting = self._waiting[:length], self._waiting[length:]
            length -= len(part)
            yield part


def folders_of(name: str) -> list[str]:
    """The folders that a file lies in, from the top, without the state folder itself."""
    return [parent.as_posix() for parent in reversed(PurePosixPath(name).parents) if parent.as_posix() != "."]
