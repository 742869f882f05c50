"""When an artifact is compared with older ones: as a rollout begins, with what its devices say that they serve; later
when a device asks that holds something else.

A rollout waits a while for it, for a device that asks too early fetches everything. What is not done by then is done
beside the rollout, and whoever asks until then gets whole blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from edgewright_controller import log
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.delivery import pairs
from edgewright_controller.delivery.forms import Ask
from edgewright_controller.delivery.making import Made
from edgewright_controller.delivery.packs import PackKey, Packs
from edgewright_controller.delivery.queue import PackQueue
from edgewright_controller.ledger import Ledger, LedgerError, artifacts, devices, releases
from edgewright_controller.service.job import Job

# A pair of 100 MB takes a second of a processor. Longer than this, and devices may as well begin.
WAIT_S: Final = 60.0

_log = log.of(__name__)


@dataclass(frozen=True)
class _Wanted:
    """A pack, and the index by which devices hold its base."""

    key: PackKey
    base_index: str = ""


class Deltas:
    """Has packs made, for one fleet. Belongs to one event loop."""

    def __init__(self, ledger: Ledger, store: ArtifactStore, packs: Packs, wait_s: float = WAIT_S) -> None:
        self._ledger, self._store, self._packs, self._wait_s = ledger, store, packs, wait_s
        self._queue = PackQueue(store, packs)
        self._tasks: set[asyncio.Task[None]] = set()

    async def ready(self, given: Mapping[str, str | None], job: Job) -> None:
        """Have ready, or nearly, what these devices need for the releases that they are `given`; `job` tells of it.

        Waits at most `wait_s`. Raises LedgerError.
        """
        pairs_wanted, alone = await self._ledger.read(lambda c: _of_rollout(c, given))
        futures = await self._begun(pairs_wanted)
        await self._begun(alone)  # saves little, so that nobody waits for it
        if not futures:
            return
        job.message(f"comparing with what devices have, for up to {self._wait_s:.0f} s")
        running = {asyncio.wrap_future(future): key for key, future in futures.items()}
        done, late = await asyncio.wait(running, timeout=self._wait_s)
        for one in done:
            if (words := _words(running[one], one.result())) is not None:
                job.message(words)
        if late:
            job.message("not all of it is ready; devices that fetch before it is fetch more")

    def lacking(self, ask: Ask) -> None:
        """A device fetches an artifact, and holds others that it was not compared with. Never blocks."""
        task = asyncio.create_task(self._asked(ask), name="pack asked for")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End what runs."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._queue.close)

    async def _begun(self, wanted: Iterable[_Wanted]) -> dict[PackKey, Future[Made | None]]:
        """Those that are missing, each with what comes of it."""
        missing = [one for one in wanted if await asyncio.to_thread(self._is_missing, one.key)]
        return {one.key: self._queue.want(one.key, one.base_index) for one in missing}

    async def _asked(self, ask: Ask) -> None:
        def look(connection: Connection) -> list[_Wanted]:
            rows = (artifacts.get(connection, base) for base in ask.bases)
            return [
                _Wanted(PackKey(ask.wanted, ask.block_index, row.bundle), row.block_index)
                for row in rows
                if row is not None and row.bundle != ask.wanted
            ]

        try:
            wanted = await self._ledger.read(look)
        except LedgerError as error:
            _log.warning("no pack made for a device that asked", artifact=ask.wanted, why=str(error))
            return
        # So that no device has a pack made of every artifact against every other.
        room = pairs.MAX_BASES - await asyncio.to_thread(self._packs.of, ask.wanted)
        await self._begun([one for one in wanted if one.key not in self._queue.failed][: max(0, room)])

    def _is_missing(self, key: PackKey) -> bool:
        """Whether the pack is not here, and all that it takes is."""
        here = self._store.has(key.wanted) and (not key.base or self._store.has(key.base))
        return here and self._packs.get(key) is None


def _of_rollout(connection: Connection, given: Mapping[str, str | None]) -> tuple[list[_Wanted], list[_Wanted]]:
    """The packs that the devices of a rollout need: of the commonest pairs, and of each artifact by itself."""
    of_release = releases.artifacts_of(connection, {release for release in given.values() if release})
    wanted = {device: of_release[release] for device, release in given.items() if release in of_release}
    statuses = {row.id: row.status for row in devices.every(connection, wanted)}
    held = {device: status.active_artifact for device, status in statuses.items() if status and status.active_artifact}
    chosen = pairs.choose(wanted, held)
    named = {artifact for pair in chosen for artifact in pair} | set(wanted.values())
    rows = {name: row for name in sorted(named) if (row := artifacts.get(connection, name)) is not None}
    found = [
        _Wanted(PackKey(new, rows[new].block_index, old), rows[old].block_index)
        for new, old in chosen
        if new in rows and old in rows
    ]
    alone = sorted(set(wanted.values()) & rows.keys())
    return found, [_Wanted(PackKey(name, rows[name].block_index)) for name in alone]


def _words(key: PackKey, made: Made | None) -> str | None:
    """What is told of a pack; None when there is nothing to tell."""
    if made is None or not key.base:
        return None
    sent, lacking = (f"{size / 1e6:,.3f} MB" for size in (made.sent, made.lacking))
    return f"{key.base[:12]} → {key.wanted[:12]}: {sent} to fetch, for {lacking} that changed"
