"""The check-in: a device's status up, and down the signed metadata that it lacks.

One read of the ledger, one write only when there is news, one signature only when what the device should
have has changed or its metadata has lived half its life. Whatever a device may act upon is in the ledger
before it leaves this process.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Final, Protocol

from edgewright_contract.v1 import agent_pb2
from edgewright_controller import log
from edgewright_controller.director import Director, DirectorMetadata
from edgewright_controller.ledger import NotInLedger, devices
from edgewright_controller.service import standing
from edgewright_controller.service.presence import Presence
from edgewright_controller.service.unbroken import Unbroken
from edgewright_controller.service.unchanged import Unchanged, held
from edgewright_controller.unix_time import unix_ms

if TYPE_CHECKING:
    from edgewright_controller.ledger import Ledger
    from edgewright_controller.publish.image import ImageRepository
    from edgewright_controller.service.standing import Standing
    from edgewright_controller.service.unchanged import Glance

MAX_REASON_BYTES: Final = 2_000
MAX_DETAIL_BYTES: Final = 64 << 10
MAX_HELD: Final = 64
MAX_DAMAGED: Final = 64
MAX_RESULTS: Final = 64
# JSON's whole numbers end at twice that, so that there is always room above.
MAX_CLAIMED: Final = 1 << 52
MAX_INVENTORY_BYTES: Final = 64 << 10
# With a broker, a hint ends the wait; without one this is how long a change may take to be noticed.
IDLE_S: Final = 60
BUSY_S: Final = 5

_log = log.of(__name__)


class CheckInRefused(ValueError):
    """The request is not one that an agent of ours would make."""


class UnknownDevice(Exception):
    """The certificate is good, but the ledger has no such device."""


class Watcher(Protocol):
    """Who wants to know what devices report: the rollout."""

    def reported(self, device: str, status: agent_pb2.DeviceStatus) -> None:
        """A device's status changed. Must not block."""


class CheckIns:
    """Answers devices. One instance for all."""

    def __init__(
        self,
        ledger: Ledger,
        image: ImageRepository,
        director: Director,
        presence: Presence,
        watcher: Watcher,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._ledger, self._image, self._director = ledger, image, director
        self._presence, self._watcher, self._clock = presence, watcher, clock
        self._unbroken = Unbroken()
        self._told_ahead: set[str] = set()
        self.unchanged = Unchanged(ledger, image, director)
        # Two check-ins of one device at once must not sign two things under one version.
        self._answering: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def answer(self, device: str, request: agent_pb2.CheckInRequest) -> agent_pb2.CheckInResponse:
        """The answer to one check-in. Raises CheckInRefused, UnknownDevice."""
        _check(request)
        now = self._clock()
        if (same := self.unchanged.glance(device, request, now)) is not None:
            self._presence.seen(device)
            return _answer(same, request, now)
        async with self._answering.setdefault(device, asyncio.Lock()):
            known = await self._standing(device, request.spool_epoch)
            self._presence.seen(device)
            if standing.has_news(known, request):
                await self._record(device, request, now)
                known = await self._standing(device, request.spool_epoch)
            image = held(request, agent_pb2.REPOSITORY_IMAGE)
            director = held(request, agent_pb2.REPOSITORY_DIRECTOR)
            answer = _answer(known, request, now)
            answer.requests.extend(known.requests)
            if known.counts_from and self._would_refuse(device, known, request):
                return answer
            metadata = await self._signed(device, known, _highest(director), now)
        self.unchanged.agree(device, known.generation, metadata.version)
        answer.metadata.extend(_files(agent_pb2.REPOSITORY_IMAGE, self._image.files(image)))
        answer.metadata.extend(_files(agent_pb2.REPOSITORY_DIRECTOR, self._director.files(metadata, director)))
        return answer

    def _would_refuse(self, device: str, known: Standing, request: agent_pb2.CheckInRequest) -> bool:
        """Whether the device has more than this ledger, which came from a backup, can say to it now."""
        behind = [
            f"{name} {kind}"
            for name, repository, roots, versions in (
                ("image", agent_pb2.REPOSITORY_IMAGE, self._image.roots, self._image.offline_versions()),
                ("director", agent_pb2.REPOSITORY_DIRECTOR, self._director.roots, {}),
            )
            for kind, version in {**roots.offline_version(), **versions}.items()
            if held(request, repository).get(kind, 0) > version
        ]
        if behind and device not in self._told_ahead:
            self._told_ahead.add(device)
            _log.warning(
                "a device holds what people signed after the backup; take it up: edgewright keys publish REQUEST",
                device=device,
                newer=behind,
            )
        return bool(behind) or standing.is_ahead(known, request)

    async def status(self, device: str, status: agent_pb2.DeviceStatus) -> None:
        """A status that came another way, over MQTT. Old news changes nothing.

        Raises CheckInRefused, UnknownDevice.
        """
        request = agent_pb2.CheckInRequest(status=status)
        _check(request)
        self._presence.seen(device)
        await self._record(device, request, self._clock())

    async def _record(self, device: str, request: agent_pb2.CheckInRequest, now: datetime) -> None:
        # A device that leaves in the middle does not repeat what is stored, so the rollout must hear of it now.
        await self._unbroken.finish(self._record_and_tell(device, request, now))

    async def _record_and_tell(self, device: str, request: agent_pb2.CheckInRequest, now: datetime) -> None:
        try:
            newer = await self._ledger.write(lambda c: standing.record(c, device, request, unix_ms(now)))
        except NotInLedger as error:
            raise UnknownDevice(str(error)) from error
        if newer:
            self._watcher.reported(device, request.status)

    async def _standing(self, device: str, spool_epoch: bytes) -> Standing:
        try:
            return await self._ledger.read(lambda c: standing.of(c, device, spool_epoch))
        except NotInLedger as error:
            raise UnknownDevice(str(error)) from error

    async def _signed(self, device: str, known: Standing, claimed: int, now: datetime) -> DirectorMetadata:
        """`claimed`: the highest version that the device says it holds; if that is not so, it harms only itself."""
        current = known.metadata.version if known.metadata else 0
        passed = max(current, known.counts_from, claimed if claimed <= MAX_CLAIMED else 0)
        newest = current == passed != known.counts_from
        if known.metadata is not None and newest and not self._director.needs_new(known.metadata, known.desired, now):
            return known.metadata
        version = passed + 1
        made = await asyncio.to_thread(self._director.sign, device, known.desired, version, now)
        await self._ledger.write(lambda c: devices.put_metadata(c, device, made))
        return made


def _answer(known: Standing | Glance, request: agent_pb2.CheckInRequest, now: datetime) -> agent_pb2.CheckInResponse:
    """What is said to every device, whether or not something happened to it."""
    busy = known.generation > request.status.generation or request.status.step > agent_pb2.STEP_IDLE
    return agent_pb2.CheckInResponse(
        stored_sequence=known.stored_sequence,
        next_check_in_s=BUSY_S if busy else IDLE_S,
        server_unix_ms=unix_ms(now),
        inventory_wanted=not request.HasField("inventory") and request.inventory_digest != known.inventory_digest,
        generation=known.generation,
    )


def _highest(director: Mapping[str, int]) -> int:
    """The version of what was signed for the device; its root counts by itself."""
    return max((version for role, version in director.items() if role != "root"), default=0)


def _files(repository: agent_pb2.Repository, files: Sequence[tuple[str, bytes]]) -> list[agent_pb2.MetadataFile]:
    return [agent_pb2.MetadataFile(repository=repository, name=name, content=content) for name, content in files]


def _check(request: agent_pb2.CheckInRequest) -> None:
    limits: Mapping[str, tuple[int, int]] = {
        "status.reason": (len(request.status.reason.encode()), MAX_REASON_BYTES),
        "status.held_releases": (len(request.status.held_releases), MAX_HELD),
        "status.damaged": (len(request.status.damaged), MAX_DAMAGED),
        "status.damaged text": (
            max((len(one.encode()) for one in request.status.damaged), default=0),
            MAX_REASON_BYTES,
        ),
        "inventory": (request.inventory.ByteSize(), MAX_INVENTORY_BYTES),
        "status.generation": (request.status.generation, standing.MAX_SEQUENCE),
        "status.sequence": (request.status.sequence, standing.MAX_SEQUENCE),
        "spool_settled": (request.spool_settled, standing.MAX_SEQUENCE),
        "held": (len(request.held), MAX_HELD),
        "results": (len(request.results), MAX_RESULTS),
        "results.detail": (max((len(one.detail.encode()) for one in request.results), default=0), MAX_DETAIL_BYTES),
    }
    for name, (size, limit) in limits.items():
        if size > limit:
            raise CheckInRefused(f"{name}: {size}; at most {limit}")
    if len(request.spool_epoch) not in (0, 16):
        raise CheckInRefused(f"spool_epoch: {len(request.spool_epoch)} bytes; it has 16")
