"""agent.sqlite: one file for everything the agent must not forget, each part with its own tables.

WAL with synchronous=FULL: a commit that returned survives a power cut. One connection per opener, usable from any
thread, one transaction at a time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BUSY_MS = 10_000


class StateDamaged(Exception):
    """The agent's own database cannot be read or written. The text names the file and what to do."""


class Database:
    """An open agent.sqlite with the tables of `schema`."""

    def __init__(self, path: Path, schema: str) -> None:
        """Open or create `path`. `schema` is statements of the form CREATE TABLE IF NOT EXISTS. Raises StateDamaged."""
        self._path = path
        self._lock = threading.Lock()
        with self._explained():
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Statements that happen together or not at all. Raises StateDamaged."""
        with self._lock, self._explained():
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        """Close the file. Nothing may be used afterwards."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, UnicodeError) as error:  # SQLite quotes a damaged schema, and that is no UTF-8
            full = isinstance(error, sqlite3.OperationalError)  # or read-only, or busy; the file may well be whole
            cure = "free some space, or see to the disk" if full else "move the file away and enrol the device again"
            what = f"{self._path}: {error}; {cure}"
            raise StateDamaged(what) from error
