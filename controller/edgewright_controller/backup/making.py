"""Making a backup, also while the controller runs.

The ledger is copied first, by SQLite's own online backup: one moment of it, for which no writer waits. The other files
are read after that. What the ledger refers to was in them before it was entered, and what they refer to in it is the
fleet's name, which never changes; so nothing in a backup refers to something newer than what is in it. The decision
page 13 goes through the cases.
"""

from __future__ import annotations

import io
import os
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Final

from edgewright_contract import durable
from edgewright_controller.backup import contents
from edgewright_controller.backup.contents import LEDGER, About
from edgewright_controller.backup.errors import BackupRefused
from edgewright_controller.backup.sealing import Header, Sealer
from edgewright_controller.backup.workroom import working_in
from edgewright_controller.sealed import Work

_ROOM: Final = "backup.tmp"
# What a controller that has started once has. Without one of these, a restored one could not start.
_NEEDED: Final = ("pki/root.crt", "pki/intermediate.key", "image/timestamp.json", "director/1.root.json")


@dataclass(frozen=True)
class Made:
    """A backup that was made."""

    fleet: str
    about: About
    size: int


def make(state: Path, out: Path, passphrase: str, now: datetime, *, reports: bool) -> Made:
    """Back `state` up into the file `out`, which must not be there yet. Without `reports`, what devices reported is
    left out. `now` must lie before the call. Raises BackupRefused, SealedError, OSError.
    """
    if not (state / LEDGER).exists():
        raise BackupRefused(f"{state} is no controller's state folder: it has no {LEDGER}")
    if out.exists() or out.is_symlink():
        raise BackupRefused(f"{out} is there already; name a new file")
    with working_in(state / _ROOM) as room:
        try:
            fleet, about = _copy_ledger(state / LEDGER, room / LEDGER, reports=reports)
        except sqlite3.Error as error:
            raise BackupRefused(f"{state / LEDGER}: cannot be copied: {error}") from error
        files = contents.small_files(state)
        for name in _NEEDED:
            if name not in files:
                raise BackupRefused(f"{state / name} is missing; was this controller ever started?")

        def fill(sink: IO[bytes]) -> None:
            sealer = Sealer(sink, Header(fleet, now, Work.new()), passphrase)
            contents.put_about(sealer, about)
            _put_all(sealer, room / LEDGER, files)

        size = _write(out, fill)
    return Made(fleet, about, size)


def _copy_ledger(source: Path, copy: Path, *, reports: bool) -> tuple[str, About]:
    os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    with closing(sqlite3.connect(source, timeout=10)) as reading, closing(sqlite3.connect(copy)) as made:
        reading.execute("PRAGMA query_only=ON")
        reading.backup(made)  # all pages in one step: a busy controller cannot make it begin again
        made.isolation_level = None
        made.execute("PRAGMA journal_mode=DELETE")
        wrong = made.execute("PRAGMA quick_check(1)").fetchone()[0]
        if wrong != "ok":
            raise BackupRefused(f"{source} is damaged ({wrong}); what is in it cannot be relied upon")
        if not reports:
            made.execute("DELETE FROM telemetry")
            made.execute("VACUUM")
        row = made.execute("SELECT name FROM fleet").fetchone()
        if row is None:
            raise BackupRefused(f"{source} is of no fleet yet; was this controller ever started?")
        devices = made.execute("SELECT count(*) FROM devices").fetchone()[0]
        releases = made.execute("SELECT count(*) FROM releases").fetchone()[0]
    return str(row[0]), About(devices, releases, reports)


def _put_all(sealer: Sealer, ledger: Path, files: contents.Files) -> None:
    with ledger.open("rb") as source:
        contents.put_file(sealer, LEDGER, source, ledger.stat().st_size, private=True)
    for name, (content, private) in sorted(files.items()):
        contents.put_file(sealer, name, io.BytesIO(content), len(content), private=private)
    contents.put_end(sealer)
    sealer.finish()


def _write(out: Path, fill: Callable[[IO[bytes]], None]) -> int:
    """Write, sync, and give it its name, which nobody else can have taken meanwhile; its size."""
    handle, temporary = tempfile.mkstemp(dir=out.absolute().parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "wb") as sink:
            fill(sink)
            sink.flush()
            os.fsync(handle)
            size = sink.tell()
        # The name is taken first, so that no file of somebody else's is written over.
        try:
            os.close(os.open(out, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError as error:
            raise BackupRefused(f"{out} is there already; name a new file") from error
        os.replace(temporary, out)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise
    durable.sync_folder(out.absolute().parent)
    return size
