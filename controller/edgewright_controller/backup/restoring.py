"""Restoring a backup: looked through to its end first, then laid out beside its place, then there in one step."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Final

from sqlalchemy import Connection

from edgewright_contract import durable
from edgewright_controller.backup import contents, sealing
from edgewright_controller.backup.contents import LEDGER, About, FileRecord, Stream
from edgewright_controller.backup.errors import BackupRefused
from edgewright_controller.backup.sealing import Header
from edgewright_controller.backup.workroom import working_in
from edgewright_controller.ledger import Ledger, audit, restorations, rollouts
from edgewright_controller.ledger import fleet as ledger_fleet
from edgewright_controller.ledger.restorations import Restoration
from edgewright_controller.rollout import Superseded, step
from edgewright_controller.state_lock import StateLock
from edgewright_controller.unix_time import unix_ms

_BY: Final = "the restore of a backup"


@dataclass(frozen=True)
class Looked:
    """A backup that is whole. `voided`: tokens and keys that a restore made void; `ended`: the rollouts that ran when
    the backup was made. Nothing of either when it was only looked at."""

    fleet: str
    created: datetime
    about: About
    voided: int = 0
    ended: tuple[str, ...] = ()


def check(file: Path, passphrase: str, fleet: str = "") -> Looked:
    """What is in the backup, once all of it is authenticated. `fleet`: whose it must be, empty for any.

    Raises BackupRefused, OSError.
    """
    with _named(file), file.open("rb") as source:
        header = _header(file, source, fleet)
        stream = Stream(sealing.opened(source, header, passphrase))
        about = stream.about()
        for _ in stream.files():
            pass
    return Looked(header.fleet, header.created, about)


def restore(file: Path, state: Path, passphrase: str, now: datetime, fleet: str = "") -> Looked:
    """Make `state`, which must not be there or be empty, what the backup says.

    A death at any moment leaves either nothing at `state` or all of it. Raises BackupRefused, StateInUse, LedgerError,
    OSError; then nothing was changed.
    """
    check_free(state)
    looked = check(file, passphrase, fleet)
    durable.make_folder(state.absolute().parent)
    with working_in(state.absolute().with_name(f".{state.name}.restoring")) as room:
        with _named(file), file.open("rb") as source:
            header = _header(file, source, looked.fleet)
            stream = Stream(sealing.opened(source, header, passphrase))
            stream.about()
            for record in stream.files():
                _lay_out(room, record)
        voided, ended = _enter(room / LEDGER, header, now)
        _sync(room)
        _move(room, state.absolute())
    return Looked(header.fleet, header.created, looked.about, voided, ended)


def check_free(state: Path) -> None:
    """Raise BackupRefused unless nothing is at `state`; StateInUse when a controller runs there; OSError."""
    if state.is_symlink() or (state.exists() and not state.is_dir()):
        raise BackupRefused(f"{state} is no folder; name one that is not there, or an empty one")
    if not state.exists() or not any(state.iterdir()):
        return
    if (state / "lock").exists():
        StateLock.take(state).release()
    raise BackupRefused(f"{state} is not empty; name another folder, or move that one away")


def _header(file: Path, source: IO[bytes], fleet: str) -> Header:
    header = sealing.read_header(source)
    if fleet and header.fleet != fleet:
        raise BackupRefused(f"it is of fleet {header.fleet!r}, not {fleet!r}")
    return header


def _lay_out(room: Path, record: FileRecord) -> None:
    for folder in contents.folders_of(record.name):
        (room / folder).mkdir(mode=0o700, exist_ok=True)
    handle = os.open(
        room / record.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600 if record.private else 0o644
    )
    with os.fdopen(handle, "wb") as sink:
        for part in record.content:
            sink.write(part)
        sink.flush()
        os.fsync(handle)


def _enter(path: Path, header: Header, now: datetime) -> tuple[int, tuple[str, ...]]:
    """Tell the ledger that it was restored: how much is void, which rollouts are ended. Raises BackupRefused,
    LedgerError."""
    ledger = Ledger.open(path)
    try:
        if ledger.read_now(ledger_fleet.name) != header.fleet:
            raise BackupRefused(f"its ledger is not of fleet {header.fleet!r}")
        row = Restoration(unix_ms(now), unix_ms(header.created))
        return ledger.write_now(lambda c: (restorations.enter(c, row), _end_rollouts(c, now)))
    finally:
        ledger.close()


def _end_rollouts(connection: Connection, now: datetime) -> tuple[str, ...]:
    """End what ran when the backup was made; its name each.

    How it went on is not known here: it may have ended, or have been taken back. Were it to go on by itself, a release
    that somebody stopped could reach more devices. What a device has been given, it keeps; an apply says what is to be.
    """
    ended = tuple(rollouts.live(connection))
    for rollout in ended:
        changes, actions = step(rollouts.load(connection, rollout), Superseded(_BY), now.timestamp())
        rollouts.commit(connection, rollout, changes, actions)
        audit.append(
            connection,
            actor="host restore",
            action="rollout.superseded",
            subject=rollout,
            now_ms=unix_ms(now),
        )
    return ended


def _sync(room: Path) -> None:
    for path in room.rglob("*"):
        if path.is_dir():
            durable.sync_folder(path)
        elif path.parent == room:  # what the ledger's closing wrote
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    durable.sync_folder(room)


def _move(room: Path, state: Path) -> None:
    try:
        os.rename(room, state)  # takes the place of an empty folder, and of no other
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise BackupRefused(f"{state} is not empty any more; nothing was restored") from error
        if error.errno in (errno.EBUSY, errno.EXDEV):
            raise BackupRefused(f"{state} is where a file system is mounted; name a folder inside it") from error
        raise
    durable.sync_folder(state.parent)


@contextmanager
def _named(file: Path) -> Iterator[None]:
    try:
        yield
    except BackupRefused as error:
        raise BackupRefused(f"{file}: {error}") from error
