"""Writes to a ledger until it is killed, and says on standard output what was acknowledged.

Each write enters a device and what it should have: two rows that must be there together or not at all.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path

from sqlalchemy import Connection

from edgewright_controller.ledger import Ledger, devices


def _both(connection: Connection, name: str) -> None:
    devices.enrol(connection, name, "0a", 1)
    devices.set_desired(connection, name, None, reason="crash test", now_ms=1)


async def _write(ledger: Ledger, prefix: str, worker: int) -> None:
    number = 0
    while True:
        name = f"{prefix}-{worker}-{number}"
        await ledger.write(partial(_both, name=name))
        print(name, flush=True)
        number += 1


async def _main(path: Path, prefix: str) -> None:
    ledger = Ledger.open(path)
    await asyncio.gather(*(_write(ledger, prefix, worker) for worker in range(8)))


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), sys.argv[2]))
