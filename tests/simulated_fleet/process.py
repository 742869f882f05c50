"""A process of simulated devices: `python -m tests.simulated_fleet.process FOLDER --devices ID …`.

Each device has FOLDER/ID for its state, and redeems the token in FOLDER/ID.token when there is one, also later.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from edgewright_agent import enrolment, identity, memory
from edgewright_agent.identity import IdentityError
from tests.simulated_fleet.device import Intervals, SimulatedDevice
from tests.simulated_fleet.orders import LOOK_S, OrderBook, Orders, until

UP: Final = "every device is up"
_THREADS: Final = 48
_FORMAT: Final = "%(asctime)s %(levelname)s %(message)s"

_log = logging.getLogger(__name__)


async def live(folder: Path, devices: Sequence[str], intervals: Intervals) -> None:
    """Until cancelled. A device that fails in a way that no device may ends all of them, with an error."""
    # What waits for the network in a thread must not keep the others from their disks.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    book = OrderBook(folder)
    await asyncio.gather(*(_enrolled(folder / device) for device in devices))
    async with asyncio.TaskGroup() as group:
        for device in devices:
            group.create_task(_live(folder / device, book, intervals))
        await asyncio.sleep(0)  # they have begun
        _log.info(UP)


async def _live(state: Path, book: OrderBook, intervals: Intervals) -> None:
    device = state.name

    def orders() -> Orders:
        return book.of(device)

    while True:
        await until(orders, lambda told: not told.silent)
        await _enrolled(state)
        alive = asyncio.ensure_future(SimulatedDevice(state, orders, intervals).run())
        switched_off = asyncio.ensure_future(until(orders, lambda told: told.silent or _token(state).exists()))
        try:
            await asyncio.wait({alive, switched_off}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = alive.done()
            for task in (alive, switched_off):
                task.cancel()
            await asyncio.wait({alive, switched_off})
        if ended:
            alive.result()
            raise RuntimeError(f"{device}: it stopped by itself")


def _token(state: Path) -> Path:
    return state.with_name(f"{state.name}.token")


async def _enrolled(state: Path) -> None:
    """Enrol, if there is a token; a controller that is away is waited for, as whoever enrols a device would.

    A device that nobody has enrolled yet lies in its box.
    """
    token = _token(state)
    while not token.exists() and not (state / identity.FOLDER / identity.ENROLMENT_FILE).exists():  # noqa: ASYNC110
        await asyncio.sleep(LOOK_S)
    while token.exists():
        try:
            await asyncio.to_thread(enrolment.enrol, token.read_text(), state)
        except IdentityError as error:
            _log.warning("%s: %s", state.name, error)
            await asyncio.sleep(0.5)
        else:
            token.unlink()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run until SIGTERM, or SIGKILL."""
    parser = argparse.ArgumentParser(description="Simulated devices.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--devices", nargs="+", required=True)
    parser.add_argument("--check-in-s", type=float, default=Intervals.check_in_s)
    parser.add_argument("--telemetry-s", type=float, default=Intervals.telemetry_s)
    given = parser.parse_args(arguments)
    memory.begin_small()
    logging.basicConfig(level=logging.INFO, format=_FORMAT, stream=sys.stderr)

    async def until_stopped() -> None:
        running = asyncio.current_task()
        assert running is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, running.cancel)
        await live(given.folder, given.devices, Intervals(given.check_in_s, given.telemetry_s))

    try:
        asyncio.run(until_stopped())
    except asyncio.CancelledError:
        _log.info("stopped")


if __name__ == "__main__":
    main()
