"""The short way of a check-in: taken when nothing happened, and never when something did."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.director import Director
from edgewright_controller.ledger import Ledger, devices, requests, telemetry
from edgewright_controller.publish.image import ImageRepository
from edgewright_controller.service.check_in import CheckIns
from edgewright_controller.service.presence import Presence
from edgewright_controller.service.unchanged import Unchanged
from tests.controller.ledger_rows import EPOCH, envelope, fill, opened
from tests.controller.signed_things import KeyInHand

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
JETSON = "jetson-01"


class _Nobody:
    def reported(self, device: str, status: agent_pb2.DeviceStatus) -> None:
        """No rollout runs."""


@dataclass
class Room:
    ledger: Ledger
    image: ImageRepository
    director: Director
    check_ins: CheckIns
    unchanged: Unchanged
    releases: list[str]
    now: datetime = NOW
    request: agent_pb2.CheckInRequest = field(default_factory=agent_pb2.CheckInRequest)

    async def settle(self) -> None:
        """Check in until the device holds everything."""
        self.request.status.sequence = 1
        self.request.spool_epoch = EPOCH
        answer = await self.check_ins.answer(JETSON, self.request)
        for file in answer.metadata:
            signed = json.loads(file.content)["signed"]
            role = file.name.removesuffix(".json").rpartition(".")[2]
            self.request.held.add(repository=file.repository, role=role, version=signed["version"])
        for repository in (agent_pb2.REPOSITORY_IMAGE, agent_pb2.REPOSITORY_DIRECTOR):
            self.request.held.add(repository=repository, role="root", version=1)
        await self.check_ins.answer(JETSON, self.request)

    @property
    def short(self) -> bool:
        """Whether the short way is taken now."""
        return self.unchanged.glance(JETSON, self.request, self.now) is not None


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[Room]:
    with opened(tmp_path) as ledger:
        digests = ledger.write_now(fill)
        image = ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW, builder=KeyInHand())
        director = Director.open(tmp_path / "director", tmp_path / "keys", "demo", NOW)
        made = CheckIns(ledger, image, director, Presence(), _Nobody(), clock=lambda: NOW)
        room = Room(ledger, image, director, made, made.unchanged, digests)
        await room.settle()
        yield room


async def test_a_device_to_which_nothing_happened_gets_the_same_answer_on_the_short_way(room: Room) -> None:
    assert room.short
    short = await room.check_ins.answer(JETSON, room.request)
    restarted = CheckIns(room.ledger, room.image, room.director, Presence(), _Nobody(), clock=lambda: NOW)
    assert restarted.unchanged.glance(JETSON, room.request, NOW) is None
    assert await restarted.answer(JETSON, room.request) == short
    assert restarted.unchanged.glance(JETSON, room.request, NOW) is not None


async def test_the_short_way_tells_how_far_the_telemetry_is_stored(room: Room) -> None:
    assert (await room.check_ins.answer(JETSON, room.request)).stored_sequence == 0
    await room.ledger.write(lambda c: telemetry.store(c, [(JETSON, envelope(JETSON, 1), 5)]))
    assert room.short
    assert (await room.check_ins.answer(JETSON, room.request)).stored_sequence == 1


async def _assigned(room: Room) -> None:
    await room.ledger.write(lambda c: devices.set_desired(c, JETSON, room.releases[0], reason="", now_ms=1))


async def _asked(room: Room) -> None:
    kind = agent_pb2.DeviceRequest.KIND_PROBE_NOW
    await room.ledger.write(lambda c: requests.ask(c, "r-1", JETSON, kind, argument="", now_ms=1))


async def _refreshed(room: Room) -> None:
    room.image.refresh(NOW + timedelta(days=1))


async def _aged(room: Room) -> None:
    room.now = NOW + timedelta(days=2)


async def _spoke(room: Room) -> None:
    room.request.status.sequence = 2


async def _brought_an_inventory(room: Room) -> None:
    room.request.inventory.os = "Linux"


async def _answered(room: Room) -> None:
    room.request.results.add(id="r-0", succeeded=True)


async def _lost_its_timestamp(room: Room) -> None:
    del room.request.held[0]


async def _is_ahead(room: Room) -> None:
    room.request.status.generation = 7


async def _holds_what_was_never_made(room: Room) -> None:
    for one in room.request.held:
        one.version += 1


@pytest.mark.parametrize(
    "happened",
    [
        _assigned,
        _asked,
        _refreshed,
        _aged,
        _spoke,
        _brought_an_inventory,
        _answered,
        _lost_its_timestamp,
        _is_ahead,
        _holds_what_was_never_made,
    ],
)
async def test_whatever_happens_to_a_device_is_looked_at_closely(
    room: Room, happened: Callable[[Room], Awaitable[None]]
) -> None:
    assert room.short
    await happened(room)
    assert not room.short


async def test_after_a_new_generation_the_old_metadata_does_not_count_as_agreeing(room: Room) -> None:
    await _assigned(room)
    answer = await room.check_ins.answer(JETSON, room.request)
    assert answer.generation == 1
    assert any(file.name == "2.targets.json" for file in answer.metadata)


async def test_a_device_that_is_not_enrolled_is_never_answered_so(room: Room) -> None:
    room.unchanged.agree("stranger", 0, 1)
    assert room.unchanged.glance("stranger", room.request, NOW) is None
