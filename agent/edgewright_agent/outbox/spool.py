"""Envelopes on disk, numbered, from the moment they are made until the controller has stored them.

A number is used once in the life of a spool (its epoch, 16 random bytes), also across power cuts: a row and
its number are one transaction, with synchronous=FULL. A file that SQLite cannot read is put aside and a new
one, with a new epoch, is made.

The spool is bounded. When it is full, or rows are old, telemetry goes first, from the oldest on, then
updates and births, and events last. That leaves gaps in the numbers, and the controller would wait for them
for ever, so an envelope says how many numbers right before its own were dropped. That count is taken from
the table when the envelope goes out, so it is right even for one that was made before the drop.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_contract import envelope
from edgewright_contract.v1 import telemetry_pb2

EPOCH_BYTES: Final = envelope.EPOCH_BYTES
_PAGE_BYTES: Final = 4096
_THIN_ROWS: Final = 200
_DROP_ORDER: Final = ("telemetry", "update", "state", "event")  # by the topic's leaf

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS envelope (
    seq INTEGER PRIMARY KEY, leaf TEXT NOT NULL, wall_ms INTEGER NOT NULL, synced INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS envelope_leaf ON envelope (leaf, seq);
"""
_DROP_OLDEST: Final = "DELETE FROM envelope WHERE seq IN (SELECT seq FROM envelope WHERE leaf = ? ORDER BY seq LIMIT ?)"


class SpoolFailed(Exception):
    """The disk does not take, or give back, what it should: full, read-only or broken. Try again later."""


@dataclass(frozen=True)
class SpoolLimits:
    """How much is kept: bytes of the database that are in use, and age by a clock that was synchronised."""

    max_bytes: int = 64 << 20
    max_age_s: int = 7 * 86_400


@dataclass(frozen=True)
class Stored:
    """One envelope as it stands in the spool, ready to be published."""

    seq: int
    leaf: str
    payload: bytes


class Spool:
    """The file `spool.sqlite`. Every method may be called from any thread and raises SpoolFailed."""

    def __init__(self, database: sqlite3.Connection, limits: SpoolLimits):
        self._database, self._limits = database, limits
        self._lock = threading.Lock()
        self.epoch: bytes = b""
        self.settled = 0

    @classmethod
    def open(cls, path: Path, limits: SpoolLimits | None = None) -> Spool:
        """The spool in this file, made if there is none, made anew if it cannot be read. Raises SpoolFailed."""
        limits = limits or SpoolLimits()
        try:
            return cls._open(path, limits)
        except sqlite3.OperationalError as error:
            raise SpoolFailed(f"{path}: {error}; is the disk full or read-only?") from error
        except (sqlite3.DatabaseError, UnicodeError):
            # Not a database, or a broken one. What it held is lost; it stays beside as evidence, once.
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            os.replace(path, path.with_name(path.name + ".broken"))
        try:
            return cls._open(path, limits)
        except (sqlite3.Error, UnicodeError) as error:
            raise SpoolFailed(f"{path}: {error}") from error

    @classmethod
    def _open(cls, path: Path, limits: SpoolLimits) -> Spool:
        database = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        try:
            database.execute(f"PRAGMA page_size={_PAGE_BYTES}")
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            database.execute("PRAGMA journal_size_limit=1048576")
            database.execute("PRAGMA cache_size=-512")
            if database.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("malformed")
            database.executescript(_SCHEMA)
            spool = cls(database, limits)
            with spool._transaction():
                epoch = spool._fact("epoch", b"")
                if not isinstance(epoch, bytes) or len(epoch) != EPOCH_BYTES:
                    epoch = os.urandom(EPOCH_BYTES)
                    spool._set_fact("epoch", epoch)
                spool.settled = int(spool._fact("settled", 0))
            spool.epoch = epoch
        except BaseException:
            database.close()
            raise
        return spool

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def next_session(self, used: int = 0) -> int:
        """The number of the coming connection: one more than ever before, saved before it is used.

        `used` is the highest that was used without being saved, while the disk was full.
        """
        with self._transaction():
            session = max(int(self._fact("session", 0)), used) + 1
            self._set_fact("session", session)
            return session

    def add(self, envelopes: Sequence[telemetry_pb2.Envelope], lost: int = 0) -> list[int]:
        """Number these envelopes, save them in one transaction, and return their numbers.

        `lost` numbers are left out before them: for what could not be saved earlier. The epoch and number are
        written into each. Raises EnvelopeRefused, before anything is saved, for what the controller would refuse.
        """
        with self._transaction():
            first = int(self._fact("next_seq", 1)) + lost
            for seq, message in enumerate(envelopes, first):
                message.seq, message.spool_epoch = seq, self.epoch
                row = (seq, envelope.leaf_of(message), message.wall_ms, message.clock_synced, envelope.encode(message))
                self._database.execute("INSERT INTO envelope VALUES (?, ?, ?, ?, ?)", row)
            self._set_fact("next_seq", first + len(envelopes))
        self._bound()
        return list(range(first, first + len(envelopes)))

    def settle(self, seq: int) -> None:
        """Forget everything up to `seq`, which the controller has stored. An old or impossible one does nothing."""
        with self._transaction():
            seq = min(seq, int(self._fact("next_seq", 1)) - 1)
            if seq > int(self._fact("settled", 0)):
                self._set_fact("settled", seq)
                self._database.execute("DELETE FROM envelope WHERE seq <= ?", (seq,))
        self.settled = max(self.settled, seq)

    def expire(self, now_ms: int) -> None:
        """Drop what is too old. Call it only while the wall clock is synchronised; rows made otherwise stay."""
        with self._transaction():
            oldest = now_ms - 1000 * self._limits.max_age_s
            self._database.execute("DELETE FROM envelope WHERE synced AND wall_ms < ?", (oldest,))

    def get(self, seq: int) -> Stored | None:
        """The envelope with this number, None when it is gone. Says how many numbers before it were dropped."""
        with self._reading():
            row = self._database.execute("SELECT leaf, body FROM envelope WHERE seq = ?", (seq,)).fetchone()
            if row is None:
                return None
            before = self._database.execute("SELECT max(seq) FROM envelope WHERE seq < ?", (seq,)).fetchone()[0]
            settled = int(self._fact("settled", 0))
        leaf, body = row
        dropped = seq - 1 - max(before or 0, settled)
        if dropped:
            message = telemetry_pb2.Envelope.FromString(body)
            message.dropped_before = dropped
            body = message.SerializeToString()
        return Stored(seq, leaf, body)

    def after(self, seq: int, limit: int) -> list[int]:
        """The numbers of at most `limit` envelopes above `seq`, in order."""
        with self._reading():
            rows = self._database.execute("SELECT seq FROM envelope WHERE seq > ? ORDER BY seq LIMIT ?", (seq, limit))
            return [row[0] for row in rows]

    def newest(self, leaf: str) -> int:
        """The highest number on this leaf of those that are still here, 0 when there is none."""
        with self._reading():
            row = self._database.execute("SELECT max(seq) FROM envelope WHERE leaf = ?", (leaf,)).fetchone()
            return int(row[0] or 0)

    def depth(self) -> int:
        """How many envelopes wait to be stored by the controller."""
        with self._reading():
            return int(self._database.execute("SELECT count(*) FROM envelope").fetchone()[0])

    def used_bytes(self) -> int:
        """Bytes of the file that are in use; the file itself keeps freed pages for later rows."""
        with self._reading():
            return self._used_bytes()

    def _bound(self) -> None:
        for leaf in _DROP_ORDER:
            while True:
                with self._transaction():
                    if self._used_bytes() <= self._limits.max_bytes:
                        return
                    dropped = self._database.execute(_DROP_OLDEST, (leaf, _THIN_ROWS))
                    if dropped.rowcount == 0:
                        break

    def _used_bytes(self) -> int:
        pages = self._database.execute("PRAGMA page_count").fetchone()[0]
        free = self._database.execute("PRAGMA freelist_count").fetchone()[0]
        return int(pages - free) * _PAGE_BYTES

    def _fact(self, name: str, default: int | bytes) -> int | bytes:
        row = self._database.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return row[0] if row else default

    def _set_fact(self, name: str, value: int | bytes) -> None:
        self._database.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except (sqlite3.Error, UnicodeError) as error:
                raise SpoolFailed(f"the spool: {error}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._reading():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
