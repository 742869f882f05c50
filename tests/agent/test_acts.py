"""The acts of an update, where they meet a disk that fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.acts import DeviceActs
from edgewright_agent.database import StateDamaged
from edgewright_agent.engines.supervision import Serving
from edgewright_agent.gateway import Routes
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.lifecycle_state import CIRCUMSTANCES, Act, Goal, Lifecycle, Step
from edgewright_agent.slots import Slots
from edgewright_agent.state_store import KnownRelease, StateStore
from edgewright_agent.update import ActFailed
from edgewright_contract.release import Release
from edgewright_contract.targets import ImageTarget
from tests.agent import echo


def known(mark: str) -> KnownRelease:
    release = Release("smollm2", "jetson", "gguf", mark * 64, "cpu", 1)
    return KnownRelease(release, ImageTarget("model", "smollm2", "gguf-cpu", "gguf", mark * 64, 1, "b" * 64, 1))


class FailingStore(StateStore):
    """Reads no release while `fails`."""

    fails = False

    def known(self, digest: str) -> KnownRelease | None:
        if self.fails:
            raise StateDamaged("agent.sqlite: database or disk is full")
        return super().known(digest)


class Place:
    """Acts over real stores, with no controller."""

    def __init__(self, folder: Path) -> None:
        self.store = FailingStore(folder / "agent.sqlite")
        self.slots = Slots(folder)
        self.activated: list[ImageTarget] = []
        self.serving = Serving(echo.ALL, folder / "engines", Routes(), lambda _: None)
        nobody: Any = None
        self.acts = DeviceActs(
            self.store,
            self.slots,
            DownloadJournal(folder / "agent.sqlite"),
            source=nobody,
            serving=self.serving,
            settings=echo.ALL,
            reserve=0,
            on_progress=lambda: None,
            on_activated=self._note,
        )

    def _note(self, target: ImageTarget) -> None:
        if self.store.fails:
            raise StateDamaged("agent.sqlite: database or disk is full")
        self.activated.append(target)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def test_a_state_that_cannot_be_written_is_the_devices_circumstance_and_not_the_releases_fault(
    place: Place,
) -> None:
    new = known("a")
    state = Lifecycle(step=Step.VERIFYING, release=new.release.digest)
    place.store.save(state, new)
    place.store.fails = True
    with pytest.raises(ActFailed, match="database or disk is full") as caught:
        await place.acts.perform(Act.VERIFY, state)
    assert caught.value.fault in CIRCUMSTANCES


async def test_a_goal_that_comes_during_a_drain_keeps_its_release(place: Place) -> None:
    old, new = known("a"), known("c")
    draining = Lifecycle(step=Step.DRAINING, release=old.release.digest, active=old.release.digest)
    place.store.save(draining, old)
    queued = Lifecycle(
        step=Step.DRAINING,
        release=old.release.digest,
        active=old.release.digest,
        pending=Goal(2, new.release.digest),
    )
    place.store.save(queued, new)  # while the drain waits for requests in hand
    await place.acts.perform(Act.DRAIN, draining)
    assert place.store.known(new.release.digest) == new
    assert place.activated == [old.target]


async def test_that_an_artifact_took_traffic_is_noted_again_later_when_the_disk_is_full(
    place: Place, tmp_path: Path
) -> None:
    new = known("a")
    state = Lifecycle(step=Step.SWITCHING, release=new.release.digest)
    place.store.save(state, new)
    candidate = await place.serving.start_beside(echo.spec(tmp_path / "artifact", model="smollm2"))
    old = await place.serving.start_beside(echo.spec(tmp_path / "old", model="smollm2"))
    await place.serving.switch(old)
    place.acts._candidate = candidate
    await place.acts.perform(Act.SWITCH, state)
    assert place.serving.active is candidate
    draining = Lifecycle(step=Step.DRAINING, release=new.release.digest, active=new.release.digest)
    place.store.fails = True
    with pytest.raises(ActFailed):  # which ends a drain all the same: the new version serves
        await place.acts.perform(Act.DRAIN, draining)
    assert not old.running, "whatever the disk says, the old engine gives its memory back"
    place.store.fails = False
    await place.acts._note_activated(draining)  # as the next start does
    assert place.activated == [new.target]
    await place.serving.stop(0)
