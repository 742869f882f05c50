"""One thread writes. What waits is committed together, so that one fsync pays for many writes.

SQLite commits about 555 times a second with synchronous=FULL, and stores about 10,000 rows a second in batches. Each
write has a savepoint of its own: one that fails takes nothing of its neighbours with it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from edgewright_controller.ledger.errors import LedgerBusy, LedgerClosed, LedgerError, translated

T = TypeVar("T")

MAX_WAITING: Final = 10_000
MAX_BATCH: Final = 500


@dataclass(frozen=True)
class _Write:
    act: Callable[[Connection], Any]
    done: Future[Any] = field(default_factory=Future)


class Writer:
    """Runs writes in the order in which they came. A result means: committed and synced to the disk."""

    def __init__(self, engine: Engine):
        self._engine = engine
        self._waiting: queue.Queue[_Write | None] = queue.Queue(MAX_WAITING)
        self._gate = threading.Lock()
        self._refusal = ""
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._thread.start()

    async def write(self, act: Callable[[Connection], T]) -> T:
        """What `act` returns, once it is committed. `act` runs in the writer's thread, inside a transaction.

        Raises what `act` raises (then nothing of it is stored), LedgerError for what the database refuses, LedgerBusy,
        LedgerClosed. A caller that is cancelled while `act` runs or commits cannot take it back.
        """
        return await asyncio.wrap_future(self._put(act))

    def write_now(self, act: Callable[[Connection], T]) -> T:
        """`write` for callers without an event loop. Blocks the calling thread."""
        return self._put(act).result()

    def close(self, deadline_s: float = 30.0) -> None:
        """Finish what waits, then stop. Raises LedgerError when that takes longer than `deadline_s`."""
        ends = time.monotonic() + deadline_s
        try:
            if self._refuse("the ledger is closed"):
                self._waiting.put(None, timeout=deadline_s)
            self._thread.join(max(0.0, ends - time.monotonic()))
        except queue.Full:
            pass  # it is as busy as a writer that does not end in time
        if self._thread.is_alive():
            raise LedgerError(f"the ledger is still writing after {deadline_s:.0f} s")

    def _put(self, act: Callable[[Connection], T]) -> Future[T]:
        write = _Write(act)
        with self._gate:  # so that nothing can come behind the end that `close` puts
            if self._refusal:
                raise LedgerClosed(self._refusal)
            try:
                self._waiting.put_nowait(write)
            except queue.Full:
                raise LedgerBusy(f"{MAX_WAITING} writes wait for the ledger already; try again later") from None
        return write.done

    def _refuse(self, why: str) -> bool:
        with self._gate:
            first = not self._refusal
            self._refusal = self._refusal or why
        return first

    def _run(self) -> None:
        batch: list[_Write] = []
        try:
            with self._engine.connect() as connection:
                while batch := self._take():
                    _commit_together(connection, batch)
        except BaseException as error:
            self._refuse(f"the ledger's writer has died: {error}")
            for write in batch + self._rest():
                if not write.done.done():
                    write.done.set_exception(LedgerClosed(f"the ledger's writer has died: {error}"))
            if not isinstance(error, Exception):
                raise

    def _take(self) -> list[_Write]:
        """The next writes that are still wanted, in order; waits for the first. Empty: the end."""
        batch: list[_Write] = []
        while not batch:
            write = self._waiting.get()
            while write is not None:
                if write.done.set_running_or_notify_cancel():
                    batch.append(write)
                if len(batch) == MAX_BATCH or self._waiting.empty():  # nobody else takes from it
                    break
                write = self._waiting.get_nowait()
            if write is None:
                if batch:
                    self._waiting.put(None)  # the end comes next; it is last, so there is room
                break
        return batch

    def _rest(self) -> list[_Write]:
        rest: list[_Write] = []
        while True:
            try:
                write = self._waiting.get_nowait()
            except queue.Empty:
                return rest
            if write is not None:
                rest.append(write)


def _commit_together(connection: Connection, batch: list[_Write]) -> None:
    """Run, commit, answer: in this order, so that no answer speaks of what a power cut could undo."""
    outcomes: list[tuple[_Write, Any, Exception | None]] = []
    try:
        with connection.begin():
            for write in batch:
                outcomes.append((write, *_one(connection, write)))
    except (SQLAlchemyError, LedgerError) as error:
        failed = translated(error) if isinstance(error, SQLAlchemyError) else error
        for write in batch:
            write.done.set_exception(failed)
        return
    for write, result, problem in outcomes:
        if problem is not None:
            write.done.set_exception(problem)
        else:
            write.done.set_result(result)


def _one(connection: Connection, write: _Write) -> tuple[Any, Exception | None]:
    connection.exec_driver_sql("SAVEPOINT one")
    try:
        result, problem = write.act(connection), None
    except Exception as error:  # it goes to the caller, who waits for it
        if not connection.connection.dbapi_connection.in_transaction:  # type: ignore[union-attr] # SQLite's own
            # SQLite has rolled back all of it, as it may when the disk is full.
            raise LedgerError(f"the ledger could not be written: {getattr(error, 'orig', None) or error}") from error
        connection.exec_driver_sql("ROLLBACK TO one")
        result, problem = None, translated(error) if isinstance(error, SQLAlchemyError) else error
    connection.exec_driver_sql("RELEASE one")
    return result, problem
