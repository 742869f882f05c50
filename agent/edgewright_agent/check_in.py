"""The device's rhythm: ask the controller, believe only what is signed, tell the lifecycle, wait.

A hint or a change of status ends the wait early. A controller that cannot be reached is asked again with
growing pauses; what serves goes on serving, for as long as that takes.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Final, Protocol

from edgewright_agent import inventory
from edgewright_agent.backoff import Backoff
from edgewright_agent.database import StateDamaged
from edgewright_agent.lifecycle_state import Fault
from edgewright_agent.lifecycle_state import Refused as MetadataRefused
from edgewright_agent.link import LinkDown, Refused
from edgewright_agent.requests import Requests
from edgewright_agent.state_store import KnownRelease
from edgewright_agent.trust import Assignment, MetadataStale, Repository, TrustRefused
from edgewright_agent.trust_store import HeldVersion
from edgewright_agent.update import Updates
from edgewright_contract.v1 import agent_pb2, telemetry_pb2

# Changes of status come in bursts; one check-in tells the last of them.
_GATHER_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 120.0
_REFUSED_PAUSE_S: Final = 60.0
_LONGEST_WAIT_S: Final = 3600.0
_MAX_GENERATION: Final = (1 << 63) - 1

_log = logging.getLogger(__name__)


class ControllerLink(Protocol):
    """The one call that this loop makes."""

    def check_in(self, request: agent_pb2.CheckInRequest) -> agent_pb2.CheckInResponse: ...


class Trust(Protocol):
    """What decides whether metadata is believed; trust_store.TrustStore is it."""

    def held(self) -> Sequence[HeldVersion]: ...

    def apply(self, files: Mapping[tuple[Repository, str], bytes], holds: Collection[str], now: datetime) -> Assignment:
        """Raises TrustRefused, MetadataStale, StateDamaged, OSError."""


class Reports(Protocol):
    """What the loop tells and asks the outbox."""

    @property
    def epoch(self) -> bytes: ...

    @property
    def settled(self) -> int: ...

    def stored(self, sequence: int, epoch: bytes | None = None) -> None: ...

    def event(self, kind: telemetry_pb2.Event.Kind, detail: str) -> None: ...


@dataclass(frozen=True)
class Sources:
    """Where the loop takes from what it sends."""

    status: Callable[[], agent_pb2.DeviceStatus]
    inventory: Callable[[], agent_pb2.Inventory]  # called in a thread


class CheckIns:
    """The loop. `wake` may be called from any thread."""

    def __init__(
        self,
        link: ControllerLink,
        trust: Trust,
        updates: Updates,
        *,
        reports: Reports,
        requests: Requests,
        sources: Sources,
        every_s: float,
    ) -> None:
        self._link, self._trust, self._updates = link, trust, updates
        self._reports, self._requests, self._sources, self._every_s = reports, requests, sources, every_s
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        self._connected: bool | None = None
        self._complaint = ""
        self._inventory_wanted = True
        self._backoff = Backoff(1.0, _LONGEST_PAUSE_S)
        # Not for secrets: it only keeps a fleet from knocking at the same moment.
        self._chance = random.Random()  # noqa: S311 jitter needs no cryptography

    @property
    def connected(self) -> bool:
        """Whether the last check-in reached the controller."""
        return bool(self._connected)

    def wake(self) -> None:
        """Check in now."""
        self._loop.call_soon_threadsafe(self._woken.set)

    async def run(self) -> None:
        """Check in for ever, until cancelled."""
        called = False
        while True:
            self._woken.clear()
            try:
                wait_s = await self.once(called=called)
            except Exception:
                # A fault of ours must not take the engine down with it: the device serves on and asks again.
                _log.exception("the check-in failed in a way that nobody thought of")
                wait_s = self._backoff.pause()
            called = await self._called_within(wait_s)
            if called:
                await asyncio.sleep(_GATHER_S)

    async def _called_within(self, seconds: float) -> bool:
        """Whether somebody wakes this; False: the regular time has come."""
        # Not wait_for: before Python 3.12 it loses a cancellation that comes together with the call.
        called = asyncio.ensure_future(self._woken.wait())
        try:
            done, _ = await asyncio.wait({called}, timeout=seconds)
        finally:
            called.cancel()
        return bool(done)

    async def once(self, *, called: bool = False) -> float:
        """One check-in with everything that follows from it; seconds until the next one is due.

        `called`: somebody woke this. A device that goes through an update while nobody answers must not make itself
        wait the longer for it.
        """
        try:
            request = await self._request()
            answer = await asyncio.to_thread(self._link.check_in, request)
        except LinkDown as error:
            self._tell_link(False, str(error))
            return self._backoff.pause(out_of_turn=called)
        except Refused as error:
            if self._connected is False:  # told of a dead line before; this is another matter
                self._complain(str(error))
            self._tell_link(False, str(error))
            return max(_REFUSED_PAUSE_S, self._backoff.pause())
        except (StateDamaged, OSError) as error:
            _log.error("no check-in: %s", error)
            return self._backoff.pause()
        self._backoff.reset()
        self._tell_link(True, "")
        self._inventory_wanted = answer.inventory_wanted
        self._requests.sent(request.results)
        self._reports.stored(answer.stored_sequence, request.spool_epoch or None)
        try:
            # A hold that is released, or a pause, is for the goal that comes with the same answer.
            has_results = await self._requests.perform(answer.requests)
            await self._believe(answer)
        except (StateDamaged, OSError) as error:
            self._complain(
                f"what the controller wants cannot be taken in: {error}; free some space, or see to the disk"
            )
            return self._backoff.pause()
        self._complaint = ""
        if answer.inventory_wanted or has_results:
            return 0.0
        wanted = min(answer.next_check_in_s or self._every_s, self._every_s, _LONGEST_WAIT_S)
        return wanted * self._chance.uniform(0.8, 1.0)

    async def _request(self) -> agent_pb2.CheckInRequest:
        seen = await asyncio.to_thread(self._sources.inventory)
        held = await asyncio.to_thread(self._trust.held)
        return agent_pb2.CheckInRequest(
            status=self._sources.status(),
            inventory=seen if self._inventory_wanted else None,
            inventory_digest=inventory.digest_of(seen),
            held=[
                agent_pb2.HeldMetadata(
                    repository=agent_pb2.Repository.Name(one.repository.value), role=one.role, version=one.version
                )
                for one in held
            ],
            spool_epoch=self._reports.epoch,
            spool_settled=self._reports.settled,
            results=self._requests.results(),
        )

    async def _believe(self, answer: agent_pb2.CheckInResponse) -> None:
        """The signed metadata decides; `answer.generation` is only a hint."""
        known = {repository.value for repository in Repository}
        files = {
            (Repository(file.repository), file.name): file.content
            for file in answer.metadata
            if file.repository in known
        }
        holds = self._updates.state.held
        try:
            assignment = await asyncio.to_thread(self._trust.apply, files, holds, datetime.now(timezone.utc))
        except TrustRefused as error:
            _log.warning("metadata refused: %s", error)
            # Nobody signed this number: what could not be one is not repeated in every status from now on.
            offered = answer.generation if answer.generation <= _MAX_GENERATION else 0
            await self._updates.feed(MetadataRefused(Fault.METADATA_REFUSED, str(error), offered))
        except MetadataStale as error:
            _log.warning("metadata too old: %s", error)
            await self._updates.feed(MetadataRefused(Fault.METADATA_STALE, str(error)))
        else:
            release, target = assignment.release, assignment.target
            known_release = KnownRelease(release, target) if release is not None and target is not None else None
            await self._updates.assign(assignment.generation, known_release)

    def _complain(self, what: str) -> None:
        """Once, and not each time that it is tried again."""
        if what != self._complaint:
            _log.error("%s. What serves goes on serving, and this is tried again", what)
        self._complaint = what

    def _tell_link(self, connected: bool, detail: str) -> None:
        if connected == self._connected:
            return
        if connected:
            _log.info("the controller answers")
            if self._connected is not None:
                self._reports.event(telemetry_pb2.Event.KIND_LINK_BACK, "the controller answers again")
        else:
            _log.warning("%s; serving on, trying again", detail)
            self._reports.event(telemetry_pb2.Event.KIND_LINK_LOST, detail)
        self._connected = connected
