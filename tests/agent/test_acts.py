"""The acts of an update, where they meet a disk that fails."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.acts import DeviceActs
from edgewright_agent.database import StateDamaged
from edgewright_agent.engines.supervision import Serving
from edgewright_agent.gateway import Routes
from edgewright_agent.holdings import Holdings
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.lifecycle_state import CIRCUMSTANCES, Act, Fault, Goal, Lifecycle, Step
from edgewright_agent.slots import Slots
from edgewright_agent.state_store import KnownRelease, StateStore
from edgewright_agent.update import ActFailed
from edgewright_contract import bundle, digest
from edgewright_contract.release import Release
from edgewright_contract.targets import ImageTarget
from tests import model_files
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
        journal = DownloadJournal(folder / "agent.sqlite")
        self.acts = DeviceActs(
            self.store,
            self.slots,
            journal,
            source=nobody,
            serving=self.serving,
            settings=echo.ALL,
            holdings=Holdings(self.store, self.slots, journal, 0),
            reserve=0,
            on_progress=lambda: None,
            on_wait=lambda seconds, reason: None,
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


def staged(place: Place, folder: Path, files: dict[str, bytes], chat_template: str = "") -> Lifecycle:
    """An artifact that is here already, as an older agent took it in, and a release of it that is to be verified."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    listed = bundle.from_folder(folder)
    place.slots.adopt(listed.digest, listed.encode(), folder)
    made = known("a")
    options = {"chat_template": chat_template} if chat_template else {}
    release = replace(made.release, artifact=listed.digest, options=options)
    state = Lifecycle(step=Step.VERIFYING, release=release.digest)
    place.store.save(state, KnownRelease(release, replace(made.target, bundle=listed.digest)))
    return state


@pytest.mark.attack("unsafe artifact that an older agent took in")
async def test_what_is_here_already_is_judged_by_todays_rules_before_it_starts(place: Place, tmp_path: Path) -> None:
    honest = staged(place, tmp_path / "honest", model_files.artifact("gguf"))
    await place.acts.perform(Act.VERIFY, honest)
    for name, data, said in (
        ("hook.py", b"import os", "hook.py: files of this kind"),
        ("README.md", pickle.dumps({}, 4), "README.md: a pickle"),
        ("config.json", b'{"auto_map": 1}', "config.json: auto_map"),
    ):
        state = staged(place, tmp_path / name, model_files.artifact("gguf") | {name: data})
        with pytest.raises(ActFailed, match=said) as caught:
            await place.acts.perform(Act.VERIFY, state)
        assert caught.value.fault is Fault.ARTIFACT_UNSAFE


async def test_a_pinned_template_is_looked_for_before_the_engine_starts(place: Place, tmp_path: Path) -> None:
    pinned = digest.of_bytes(model_files.TEMPLATE.encode())
    files = model_files.artifact("gguf")
    await place.acts.perform(Act.VERIFY, staged(place, tmp_path / "one", files, pinned))
    state = staged(place, tmp_path / "two", files | {"README.md": b"other"}, "0" * 64)
    with pytest.raises(ActFailed, match="its chat template is not the one that release") as caught:
        await place.acts.perform(Act.VERIFY, state)
    assert caught.value.fault is Fault.ARTIFACT_UNSAFE
