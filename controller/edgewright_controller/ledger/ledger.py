"""Opening the ledger: pragmas, migrations, one writer, a few readers."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool

from edgewright_controller.ledger import migrate
from edgewright_controller.ledger.errors import LedgerDamaged, LedgerError, translated
from edgewright_controller.ledger.writer import Writer

T = TypeVar("T")

READERS: Final = 4
BUSY_S: Final = 10.0
# Primary result codes that speak of the place or the moment, not of the file's contents.
_CIRCUMSTANCES: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)


class Ledger:
    """One ledger file, opened. Only one process may hold it (`state_lock` sees to that)."""

    def __init__(self, path: Path, writing: Engine, reading: Engine):
        self.path = path
        self._writing, self._reading = writing, reading
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="ledger-reader")
        self._writer = Writer(writing)
        self._glancing = _glancing(path)
        self._glances = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """The ledger at `path`, made when absent, brought to the newest tables when older.

        Raises LedgerDamaged when the file is no ledger, or that of a newer version; LedgerError when it cannot be had
        just now.
        """
        writing = _engine(path, "BEGIN IMMEDIATE", pool_class=NullPool)
        try:
            migrate.to_head(writing, path)
        except DatabaseError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF in _CIRCUMSTANCES:
                # The ledger itself may be sound, and newer than any backup.
                raise LedgerError(
                    f"{path}: cannot be opened now ({error.orig}); end what else uses it, and see to the disk's room"
                    " and the file's rights"
                ) from error
            raise LedgerDamaged(
                f"{path}: this is not a ledger that can be read ({error.orig}); restore the state folder from a backup"
            ) from error
        reading = _engine(path, "BEGIN", pool_class=QueuePool, query_only=True)
        return cls(path, writing, reading)

    async def write(self, act: Callable[[Connection], T]) -> T:
        """What `act` returns, once committed. See Writer.write."""
        return await self._writer.write(act)

    def write_now(self, act: Callable[[Connection], T]) -> T:
        """`write` for callers without an event loop; blocks."""
        return self._writer.write_now(act)

    async def read(self, act: Callable[[Connection], T]) -> T:
        """What `act` returns, run in a thread, on one consistent view. Writing in it fails.

        Raises what `act` raises, and LedgerError for what the database refuses.
        """
        return await asyncio.get_running_loop().run_in_executor(self._readers, self.read_now, act)

    def read_now(self, act: Callable[[Connection], T]) -> T:
        """`read` for callers without an event loop; blocks."""
        try:
            with self._reading.connect() as connection, connection.begin():
                return act(connection)
        except SQLAlchemyError as error:
            raise translated(error) from error

    def glance(self, statement: str, parameters: tuple[object, ...]) -> tuple[Any, ...] | None:
        """The first row of a small SELECT, read at once on the caller's own thread; None when there is none.

        For what is asked many times a second and answered from an index: a thread and a query builder cost thirty
        times what the reading does. It never waits for a writer. Raises LedgerError.
        """
        try:
            with self._glances:
                row: tuple[Any, ...] | None = self._glancing.execute(statement, parameters).fetchone()
        except sqlite3.Error as error:
            raise LedgerError(f"the ledger could not do it: {error}") from error
        return row

    def close(self, deadline_s: float = 30.0) -> None:
        """Store what waits, then close. A second call does nothing more. Raises LedgerError after `deadline_s`."""
        self._writer.close(deadline_s)
        self._readers.shutdown()
        with self._glances:
            self._glancing.close()
        self._reading.dispose()
        self._writing.dispose()


def _engine(path: Path, begin: str, *, pool_class: type[Any], query_only: bool = False) -> Engine:
    sized = {"pool_size": READERS, "max_overflow": READERS} if pool_class is QueuePool else {}
    engine = create_engine(f"sqlite:///{path}", poolclass=pool_class, connect_args={"timeout": BUSY_S}, **sized)

    @event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _record: object) -> None:
        _configure(connection, query_only=query_only)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _glancing(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, check_same_thread=False)
    _configure(connection, query_only=True)
    return connection


def _configure(connection: sqlite3.Connection, *, query_only: bool) -> None:
    connection.isolation_level = None  # sqlite3 must not begin transactions of its own
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    if query_only:
        connection.execute("PRAGMA query_only=ON")
