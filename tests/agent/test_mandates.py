"""Mandates in a running agent: what lies in the folder is taken once, and an accepted one is not forgotten."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

import pytest

from edgewright_agent.database import StateDamaged
from edgewright_agent.lifecycle_state import Act, Fault, Outcome, Step
from edgewright_agent.mandate_folder import MandateFolder
from edgewright_agent.mandates import AGAIN_S, Mandates
from edgewright_agent.trust import Assignment, MetadataStale, Reason, TrustRefused
from edgewright_agent.update import ActFailed
from tests.agent.test_update import Bench, known


class Signed:
    """Believes the mandates that it was told of, and keeps the last."""

    def __init__(self) -> None:
        self.worth: dict[bytes, Assignment | Exception] = {}
        self.kept: bytes | None = None
        self.asked = 0

    def apply_mandate(self, document: bytes, holds: Collection[str], now: datetime) -> Assignment:
        self.asked += 1
        found = self.worth.get(document, TrustRefused(Reason.UNVERIFIED, "no signature"))
        if isinstance(found, Exception):
            raise found
        self.kept = document
        return found

    def mandate(self) -> bytes | None:
        return self.kept

    def generation(self) -> int:
        found = self.worth.get(self.kept or b"")
        return found.generation if isinstance(found, Assignment) else 0


class Device:
    """The loop on a real folder and a real executor."""

    def __init__(self, folder: Path) -> None:
        self.bench, self.trust, self.folder = Bench(folder), Signed(), MandateFolder(folder)
        self.looked: list[Path | None] = []
        self.folder.make()
        self.mandates = Mandates(self.folder, self.trust, self.bench.updates, self.looked.append)
        self.now = time.monotonic()

    def worth(self, document: bytes, generation: int, mark: str) -> None:
        one = known(mark)
        self.trust.worth[document] = Assignment(generation, one.release, one.target)

    async def once(self, later_s: float = 0.0) -> None:
        self.now += later_s
        await self.mandates.once(self.now)


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


async def test_what_lies_in_the_folder_is_taken_answered_and_gone(device: Device, tmp_path: Path) -> None:
    device.worth(b"good", 2, "a")
    good = device.folder.hand(b"good", tmp_path / "stick")
    bad = device.folder.hand(b"bad", None)
    await device.once()
    release = known("a").release.digest
    assert device.folder.answer(good) == {"generation": 2, "release": release, "held": False}
    assert device.folder.answer(bad) == {"refused": "no signature"}
    assert device.folder.answer(good) is None
    assert device.folder.waiting() == []
    assert (device.looked[-1], device.folder.content()) == (tmp_path / "stick", tmp_path / "stick")
    state = await device.bench.until(lambda state: state.outcome is Outcome.SUCCEEDED)
    assert (state.generation, state.active) == (2, release)


async def test_a_file_that_somebody_copied_there_is_taken_too(device: Device, tmp_path: Path) -> None:
    device.worth(b"good", 2, "a")
    (tmp_path / "mandates" / "from the post.mandate").write_bytes(b"good")
    (tmp_path / "mandates" / ".from.mandate.part").write_bytes(b"go")
    await device.once()
    assert device.bench.updates.state.generation == 2
    assert device.folder.waiting() == []


async def test_what_the_disk_does_not_take_stays_in_the_folder(device: Device) -> None:
    device.worth(b"good", 2, "a")
    device.folder.hand(b"good", None)
    device.bench.store.failures = 1
    with pytest.raises(StateDamaged):
        await device.once()
    assert len(device.folder.waiting()) == 1
    await device.once()
    assert device.bench.updates.state.generation == 2
    assert device.folder.waiting() == []


async def test_an_accepted_mandate_is_brought_again_until_it_serves_and_then_left_alone(device: Device) -> None:
    device.worth(b"good", 2, "a")
    device.trust.kept = b"good"  # accepted, and then the power went
    await device.once()
    await device.bench.until(lambda state: state.outcome is Outcome.SUCCEEDED)
    asked = device.trust.asked
    await device.once(later_s=AGAIN_S)
    assert device.trust.asked == asked


async def test_what_failed_for_want_of_the_stick_is_tried_again(device: Device) -> None:
    device.worth(b"good", 2, "a")
    device.bench.acts.on[Act.DOWNLOAD] = ActFailed(Fault.DOWNLOAD_FAILED, "no stick")
    device.folder.hand(b"good", None)
    await device.once()
    await device.bench.until(lambda state: state.step is Step.IDLE and state.outcome is Outcome.FAILED)
    device.bench.acts.on.clear()
    device.bench.ahead += 3600
    await device.once(later_s=AGAIN_S)
    await device.bench.until(lambda state: state.outcome is Outcome.SUCCEEDED)


async def test_one_that_ended_meanwhile_changes_nothing(device: Device, caplog: pytest.LogCaptureFixture) -> None:
    device.trust.worth[b"old"] = MetadataStale("the mandate ended")
    device.trust.kept = b"old"
    for _ in range(3):
        await device.once(later_s=AGAIN_S)
    assert device.bench.updates.state.generation == 0
    assert caplog.text.count("the mandate ended") == 1


async def test_the_content_of_one_that_was_overtaken_is_forgotten(device: Device, tmp_path: Path) -> None:
    device.worth(b"good", 2, "a")
    device.folder.hand(b"good", tmp_path / "stick")
    await device.once()
    device.trust.kept = None
    await device.once(later_s=AGAIN_S)
    assert (device.looked[-1], device.folder.content()) == (None, None)


def test_answers_that_nobody_fetched_are_gone_after_a_restart(device: Device, tmp_path: Path) -> None:
    device.folder.hand(b"bad", None)
    (handed,) = device.folder.waiting()
    device.folder.done(handed, {"refused": "why"})
    device.folder.make()
    assert list((tmp_path / "mandates").iterdir()) == []


def test_what_nobody_takes_can_be_taken_back(device: Device, tmp_path: Path) -> None:
    name = device.folder.hand(b"good", tmp_path / "stick")
    device.folder.take_back(name)
    assert list((tmp_path / "mandates").iterdir()) == []
