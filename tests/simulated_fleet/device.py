"""One device: the agent's own parts, wired as agent.Agent wires them, with simulated acts and no engine.

It leaves a trail on its disk, one JSON object a line: what it was after each change (`saved`), and what of that the
controller has taken (`told`). Each line is written after the fact, so a kill loses at most the last one.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from edgewright_agent import status
from edgewright_agent.agent import DeviceTrust
from edgewright_agent.check_in import CheckIns, Sources
from edgewright_agent.config import ACCELERATORS
from edgewright_agent.identity import Identity
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.lifecycle_state import (
    ActiveBroken,
    DownloadsPaused,
    DownloadsResumed,
    Fault,
    HoldReleased,
    Lifecycle,
)
from edgewright_agent.link import Credentials, Link
from edgewright_agent.outbox import Outbox, OutboxSettings
from edgewright_agent.outbox.sending import Pace
from edgewright_agent.requests import Handler, RequestFailed, Requests
from edgewright_agent.slots import Slots
from edgewright_agent.state_lock import StateLock
from edgewright_agent.state_store import StateStore
from edgewright_agent.trust import Assignment, Reason, Repository, TrustRefused
from edgewright_agent.trust_store import TrustStore
from edgewright_agent.update import Updates
from edgewright_contract import __version__
from edgewright_contract.release import RUNTIMES, hw_class
from edgewright_contract.v1 import agent_pb2, telemetry_pb2
from tests.simulated_fleet.acts import SimulatedActs
from tests.simulated_fleet.orders import Orders, until

TRAIL: Final = "trail.jsonl"
_HW_CLASSES: Final = frozenset(hw_class(runtime, kind) for runtime in RUNTIMES for kind in ACCELERATORS)


@dataclass(frozen=True)
class Intervals:
    """Seconds between check-ins when nothing happens, and between reports of telemetry (0: none)."""

    check_in_s: float = 2.0
    telemetry_s: float = 2.0


class SimulatedDevice:
    """Made on a running event loop, on the state of an enrolled device: `run` until cancelled."""

    def __init__(self, state: Path, orders: Callable[[], Orders], intervals: Intervals) -> None:
        """Raises IdentityError, StateDamaged, OSError."""
        self._state, self._orders, self._intervals = state, orders, intervals
        self._identity = identity = Identity.load(state)
        self._trail = Trail(state / TRAIL)
        self._started_ms = int(time.time() * 1000)
        database = state / "agent.sqlite"
        self._store, self._journal = StateStore(database), DownloadJournal(database)
        self._trust = _Trust(DeviceTrust(TrustStore.open(database), identity, _HW_CLASSES), orders)
        credentials = Credentials(identity.key, identity.certificate_path, identity.ca_path)
        self._link = Link(identity.controller_address, credentials)
        # A broker that was killed is back within seconds, without what it had confirmed and not passed on.
        pace = Pace(backlog_per_s=50.0, again_after_s=5.0)
        settings = OutboxSettings(pace=pace, first_pause_s=0.2, longest_pause_s=2.0)
        self._outbox = Outbox(state, identity, lambda _: self._wake(), settings=settings)
        acts = SimulatedActs(
            self._store,
            Slots(state),
            self._journal,
            source=self._link,
            orders=orders,
            on_activated=self._trust.store.activated,
        )
        self._updates = Updates(self._store, acts, self._changed)
        self._requests = Requests(self._handlers(), on_late=self._wake)
        self._check_ins = CheckIns(
            _ToldLink(self._link, self._trail),
            self._trust,
            self._updates,
            reports=self._outbox,
            requests=self._requests,
            sources=Sources(self.status, _inventory),
            every_s=intervals.check_in_s,
        )
        self._broke = ""

    def status(self) -> agent_pb2.DeviceStatus:
        """As it goes to the controller. Raises StateDamaged."""
        running = status.Running(
            engine="simulated 1", accelerator="cpu", endpoint="http://127.0.0.1:9/v1", started_unix_ms=self._started_ms
        )
        return status.compose(self._updates.state, self._store.known, running)

    async def run(self) -> None:
        """Live, until cancelled. Raises what must never happen."""
        with StateLock(self._state):
            self._outbox.start()
            try:
                await self._updates.resume()
                self._say_birth()
                await asyncio.gather(self._check_ins.run(), self._report(), self._break())
            finally:
                await self._requests.stop()
                await self._updates.stop()
                await asyncio.to_thread(self._outbox.stop)
                self._link.close()
                self._trust.store.close()
                self._journal.close()
                self._store.close()

    def _changed(self, state: Lifecycle) -> None:
        self._trail.write(
            "saved",
            generation=state.generation,
            release=state.release,
            step=state.step.name.lower(),
            outcome=state.outcome.name.lower(),
            active=state.active,
            sequence=state.sequence,
        )
        self._outbox.update(self.status())
        self._wake()

    def _wake(self) -> None:
        self._check_ins.wake()

    def _say_birth(self) -> None:
        now = self.status()
        self._outbox.birth(now.endpoint, now.engine, now.accelerator, now)

    async def _report(self) -> None:
        chance = random.Random()  # it only keeps a fleet from speaking at the same moment
        while every_s := self._intervals.telemetry_s:
            await asyncio.sleep(every_s * chance.uniform(0.8, 1.0))
            if not self._updates.state.active:
                continue
            orders, now = self._orders(), self.status()
            errors, speed = orders.measured(now.active_release)
            self._outbox.telemetry(
                telemetry_pb2.Telemetry(
                    window_ms=int(every_s * 1000),
                    requests=orders.requests,
                    errors=errors,
                    prompt_tokens=orders.requests * 30,
                    output_tokens=orders.requests * 60,
                    decode_tokens_per_s=speed,
                    spool_depth=self._outbox.depth(),
                    model=now.active_model,
                )
            )

    async def _break(self) -> None:
        """Let the active version die for good, once, when that is told."""
        while True:
            await until(self._orders, lambda orders: orders.breaks == self._updates.state.active != self._broke)
            self._broke = active = self._updates.state.active
            await self._updates.feed(ActiveBroken(active, Fault.ENGINE_FAILED, "this device was told to break"))

    def _handlers(self) -> dict[int, Handler]:
        async def probe_now(_: str) -> str:
            if not self._updates.state.active:
                raise RequestFailed("no version is active")
            if self._orders().fails_at == "probe":
                raise RequestFailed("this device was told that probes fail")
            return "the probes passed"

        async def rebirth(_: str) -> str:
            self._outbox.rebirth()
            return ""

        async def release_hold(release: str) -> str:
            await self._updates.feed(HoldReleased(release))
            return "released"

        async def pause_downloads(_: str) -> str:
            await self._updates.feed(DownloadsPaused())
            return ""

        async def resume_downloads(_: str) -> str:
            await self._updates.feed(DownloadsResumed())
            return ""

        kinds = agent_pb2.DeviceRequest
        return {
            kinds.KIND_PROBE_NOW: probe_now,
            kinds.KIND_PAUSE_DOWNLOADS: pause_downloads,
            kinds.KIND_RESUME_DOWNLOADS: resume_downloads,
            kinds.KIND_REBIRTH: rebirth,
            kinds.KIND_RELEASE_HOLD: release_hold,
        }


class Trail:
    """The device's own account of itself. A line that a kill cut short is not read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)

    def write(self, what: str, **values: Any) -> None:
        """Add a line. The page cache keeps it over the death of this process."""
        with self._path.open("ab", buffering=0) as file:
            file.write(json.dumps({"what": what, "at": time.time(), **values}).encode() + b"\n")

    @staticmethod
    def read(path: Path) -> list[dict[str, Any]]:
        """All whole lines, in their order."""
        if not path.exists():
            return []
        content = path.read_bytes()
        return [json.loads(line) for line in content[: content.rfind(b"\n") + 1].splitlines()]


class _ToldLink:
    """A link that notes what the controller has taken."""

    def __init__(self, link: Link, trail: Trail) -> None:
        self._link, self._trail = link, trail
        self._last = -1

    def check_in(self, request: agent_pb2.CheckInRequest) -> agent_pb2.CheckInResponse:
        """See check_in.ControllerLink."""
        answer = self._link.check_in(request)
        if request.status.sequence != self._last:
            self._last = request.status.sequence
            told = request.status
            self._trail.write(
                "told",
                sequence=told.sequence,
                generation=told.generation,
                outcome=agent_pb2.Outcome.Name(told.outcome).removeprefix("OUTCOME_").lower(),
                active=told.active_release,
            )
        return answer


class _Trust:
    """The device's trust, by the clock that it is told to have, which refuses what is new when it is told to."""

    def __init__(self, store: DeviceTrust, orders: Callable[[], Orders]) -> None:
        self.store, self._orders = store, orders
        self.held = store.held

    def apply(self, files: Mapping[tuple[Repository, str], bytes], holds: Collection[str], now: datetime) -> Assignment:
        """See check_in.Trust."""
        orders = self._orders()
        if files and orders.refuses:
            raise TrustRefused(Reason.UNVERIFIED, "this device was told to refuse metadata")
        return self.store.apply(files, holds, now + timedelta(seconds=orders.clock_ahead_s))


def _inventory() -> agent_pb2.Inventory:
    return agent_pb2.Inventory(
        os="simulated",
        cpu="simulated",
        cores=4,
        memory_bytes=16 << 30,
        disk_total_bytes=64 << 30,
        disk_free_bytes=32 << 30,
        accelerators=[agent_pb2.Accelerator(kind="cpu", name="simulated")],
        runtimes=list(RUNTIMES),
        agent_version=__version__,
        python_version="3",
    )
