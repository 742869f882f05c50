"""One writer, group commit: nobody's failure is another's, and an answer means that it is on the disk."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from edgewright_controller.ledger import LedgerBusy, LedgerClosed, LedgerError, devices, writer
from tests.controller.ledger_rows import opened


def _names(path: Path) -> list[str]:
    with sqlite3.connect(path) as other:
        return [row[0] for row in other.execute("SELECT id FROM devices ORDER BY id")]


async def test_a_result_means_that_others_can_read_it(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        await ledger.write(lambda c: devices.enrol(c, "jetson-01", "0a", 1))
        assert _names(ledger.path) == ["jetson-01"]
        assert (await ledger.read(lambda c: devices.get(c, "jetson-01"))).enrolled_ms == 1


async def test_writes_that_wait_are_committed_together_and_in_order(tmp_path: Path) -> None:
    gate = threading.Event()
    order: list[int] = []
    transactions: set[object] = set()

    def write(number: int) -> Callable[[Connection], int]:
        def act(connection: Connection) -> int:
            order.append(number)
            transactions.add(connection.get_transaction())
            connection.execute(text("INSERT INTO counters VALUES (:n, 1)"), {"n": f"c{number}"})
            return number

        return act

    with opened(tmp_path) as ledger:
        first = asyncio.create_task(ledger.write(lambda c: gate.wait(10)))
        tasks = [asyncio.create_task(ledger.write(write(number))) for number in range(50)]
        await asyncio.sleep(0)
        gate.set()
        assert await first
        assert await asyncio.gather(*tasks) == list(range(50)) == order
        assert len(transactions) <= 2, "the first may have been alone in its own"


async def test_a_write_that_fails_takes_nothing_with_it(tmp_path: Path) -> None:
    def bad(connection: Connection) -> None:
        devices.enrol(connection, "half-done", "0b", 1)
        raise ValueError("changed my mind")

    with opened(tmp_path) as ledger:
        good = [
            ledger.write(partial(devices.enrol, device=f"dev-{n}", certificate_serial="0a", now_ms=1)) for n in range(3)
        ]
        results = await asyncio.gather(good[0], ledger.write(bad), good[1], good[2], return_exceptions=True)
        assert [type(result) for result in results] == [type(None), ValueError, type(None), type(None)]
        assert _names(ledger.path) == ["dev-0", "dev-1", "dev-2"]


async def test_a_broken_reference_is_refused_to_its_writer_alone(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        await ledger.write(lambda c: devices.enrol(c, "dev-0", "0a", 1))
        with pytest.raises(LedgerError, match="FOREIGN KEY"):
            await ledger.write(lambda c: devices.set_desired(c, "stranger", None, reason="", now_ms=1))
        row = await ledger.write(lambda c: devices.set_desired(c, "dev-0", None, reason="", now_ms=1))
        assert row.generation == 1


async def test_a_caller_that_leaves_before_its_turn_writes_nothing(tmp_path: Path) -> None:
    release = threading.Event()
    with opened(tmp_path) as ledger:
        first = asyncio.create_task(ledger.write(lambda c: release.wait(10)))
        await asyncio.sleep(0.05)
        left = asyncio.create_task(ledger.write(lambda c: devices.enrol(c, "dev-0", "0a", 1)))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        release.set()
        await first
        await ledger.write(lambda c: devices.enrol(c, "dev-1", "0a", 1))
        assert _names(ledger.path) == ["dev-1"]


async def test_more_writes_than_may_wait_are_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MAX_WAITING", 2)
    release = threading.Event()
    with opened(tmp_path) as ledger:
        running = threading.Event()

        def slow(_: Connection) -> None:
            running.set()
            assert release.wait(10)

        first = asyncio.create_task(ledger.write(slow))
        assert await asyncio.to_thread(running.wait, 10)
        more = [asyncio.create_task(ledger.write(lambda c: 1)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(LedgerBusy, match="try again later"):
            await ledger.write(lambda c: 1)
        release.set()
        assert await asyncio.gather(first, *more) == [None, 1, 1]


def test_closing_stores_what_waits_and_then_refuses(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger, ThreadPoolExecutor(4) as threads:
        waiting = [
            threads.submit(
                ledger.write_now, partial(devices.enrol, device=f"dev-{n}", certificate_serial="0a", now_ms=1)
            )
            for n in range(4)
        ]
        for one in waiting:
            one.result(10)
        ledger.close()
        assert len(_names(ledger.path)) == 4
        with pytest.raises(LedgerClosed, match="closed"):
            ledger.write_now(lambda c: None)


def test_a_write_that_does_not_end_does_not_hold_up_the_end(tmp_path: Path) -> None:
    begun, gate = threading.Event(), threading.Event()

    def act(_: object) -> bool:
        begun.set()
        return gate.wait(60)

    with opened(tmp_path) as ledger, ThreadPoolExecutor(1) as thread:
        stuck = thread.submit(ledger.write_now, act)
        assert begun.wait(60)
        with pytest.raises(LedgerError, match="still writing after 0 s"):
            ledger.close(deadline_s=0.2)
        gate.set()
        assert stuck.result(10)


def test_a_full_disk_fails_the_write_and_the_ledger_goes_on(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.write_now(lambda c: devices.enrol(c, "dev-0", "0a", 1))

        def limit(connection: Connection, extra: int) -> None:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar() or 0
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + extra}")

        def large(connection: Connection) -> None:
            devices.enrol(connection, "dev-large", "0a", 1)
            connection.execute(text("UPDATE devices SET inventory = zeroblob(1000000) WHERE id = 'dev-large'"))

        ledger.write_now(lambda c: limit(c, 2))
        with pytest.raises(LedgerError, match="full"):
            ledger.write_now(large)
        assert _names(ledger.path) == ["dev-0"]
        ledger.write_now(lambda c: limit(c, 10_000))
        ledger.write_now(large)
        assert _names(ledger.path) == ["dev-0", "dev-large"]
