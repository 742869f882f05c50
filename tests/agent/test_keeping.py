"""Old versions stay as long as there is room for them, and what is needed stays whatever it takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from edgewright_agent.holdings import Holdings
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.keeping import Holding, spare, surplus, taken
from edgewright_agent.lifecycle_state import Goal, Lifecycle
from edgewright_agent.slots import Slots
from edgewright_agent.state_store import KnownRelease, StateStore
from edgewright_contract import bundle
from edgewright_contract.release import Release
from edgewright_contract.targets import ImageTarget


def held(name: str, needed_at: float, files: Mapping[int, int]) -> Holding:
    return Holding(name, {(1, inode): size for inode, size in files.items()}, needed_at)


OLD, OLDER, NEW = held("old", 2, {1: 10, 2: 5}), held("older", 1, {3: 10, 2: 5}), held("new", 3, {4: 10, 2: 5})


def test_what_is_shared_counts_once_and_is_not_to_be_had_while_anything_needs_it() -> None:
    assert taken([OLD, OLDER, NEW]) == 35
    assert spare([OLD, OLDER, NEW], {"new"}) == 20
    assert spare([OLD, OLDER, NEW], {"old", "older", "new"}) == 0


def test_the_oldest_goes_first_and_no_more_than_has_to() -> None:
    assert surplus([NEW, OLD, OLDER], {"new"}, 35) == []
    assert surplus([NEW, OLD, OLDER], {"new"}, 34) == ["older"]
    assert surplus([NEW, OLD, OLDER], {"new"}, 24) == ["older", "old"]
    assert surplus([NEW, OLD, OLDER], {"new", "older"}, 0) == ["old"]


HOLDINGS = st.lists(
    st.builds(
        held,
        st.sampled_from("abcdefgh"),
        st.floats(0, 9),
        st.dictionaries(st.integers(0, 9), st.just(7), max_size=4),
    ),
    unique_by=lambda one: one.name,
)


@given(HOLDINGS, st.sets(st.sampled_from("abcdefgh")), st.integers(-1, 80))
def test_what_is_needed_never_goes_and_what_goes_had_to(holdings: list[Holding], needed: set[str], quota: int) -> None:
    gone = surplus(holdings, needed, quota)
    assert not needed.intersection(gone)
    left = [one for one in holdings if one.name not in gone]
    assert taken(left) <= quota or {one.name for one in left} <= needed
    if gone:
        before = [one for one in holdings if one.name not in gone[:-1]]
        assert taken(before) > quota, "the last one to go was one too many"


class Disk:
    """A device's real stores with artifacts of 100 kB, each needed later than the one before."""

    def __init__(self, state: Path, quota: int) -> None:
        self.slots, self.store = Slots(state), StateStore(state / "agent.sqlite")
        self.journal = DownloadJournal(state / "agent.sqlite")
        self.holdings = Holdings(self.store, self.slots, self.journal, quota)
        self._state, self._made = state, 0

    def artifact(self, *, size: int = 100_000) -> str:
        files = self._state / "made"
        files.mkdir()
        (files / "model.gguf").write_bytes(os.urandom(size))
        listed = bundle.from_folder(files)
        self.slots.adopt(listed.digest, listed.encode(), files)
        self._age(self.slots.document(listed.digest), self.slots.artifact(listed.digest))
        return listed.digest

    def download(self, name: str, size: int = 100_000) -> None:
        folder = self.slots.make_partial(name)
        (folder / "bundle").write_bytes(bytes(size))
        self.journal.record(name, "b" * 64, [1])
        self._age(folder)

    def _age(self, *paths: Path) -> None:
        self._made += 1
        for path in paths:
            os.utime(path, (self._made, self._made))

    def release(self, artifact: str) -> KnownRelease:
        release = Release("smollm2", "jetson", "gguf", artifact, "cpu", 1)
        target = ImageTarget("model", "smollm2", "gguf-cpu", "gguf", artifact, 1, "b" * 64, 1)
        return KnownRelease(release, target)

    def lives(self, active: str, previous: str = "", release: str = "", pending: str = "") -> Lifecycle:
        """The state in which these artifacts are active, previous, and so on, as it is saved."""
        known = {one: self.release(one) for one in (active, previous, release, pending) if one}
        digests = {one: release.release.digest for one, release in known.items()} | {"": ""}
        goal = Goal(9, digests[pending]) if pending else None
        state = Lifecycle(active=digests[active], previous=digests[previous], release=digests[release], pending=goal)
        for one in known.values():
            self.store.save(state, one)
        return state


def test_without_a_quota_nothing_stays_that_is_not_needed(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 0)
    old, previous, active, staged = (disk.artifact() for _ in range(4))
    disk.download("c" * 64)
    state = disk.lives(active=active, previous=previous, release=staged)
    assert disk.holdings.collect(state) == sorted([old, "c" * 64])
    assert disk.slots.names() == sorted([active, previous, staged])


def test_old_versions_and_downloads_stay_up_to_the_quota_and_the_oldest_go_first(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 450_000)
    oldest, active, old = (disk.artifact() for _ in range(3))
    disk.download("c" * 64)
    state = disk.lives(active=active)
    assert disk.holdings.collect(state) == []
    assert disk.holdings.to_reuse(state)[:2] == [active, "c" * 64]
    assert 300_000 < disk.holdings.spare_bytes() < 350_000
    staged = disk.artifact()
    state = disk.lives(active=active, release=staged)
    assert disk.holdings.collect(state) == [oldest]
    assert disk.journal.done("c" * 64, "b" * 64) == {1}
    assert disk.slots.names() == sorted([active, old, staged])
    newest = disk.artifact(size=200_000)
    assert disk.holdings.collect(disk.lives(active=active, release=newest, previous=staged)) == sorted([old, "c" * 64])
    assert disk.journal.done("c" * 64, "b" * 64) == set()


def test_what_is_needed_stays_whatever_the_quota(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 1)
    active, previous, staged, waiting = (disk.artifact() for _ in range(4))
    state = disk.lives(active=active, previous=previous, release=staged, pending=waiting)
    assert disk.holdings.collect(state) == []
    assert not disk.holdings.make_room(state)


def test_for_an_artifact_that_comes_room_is_made_the_oldest_first(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 1 << 30)
    oldest, active, old = (disk.artifact() for _ in range(3))
    state = disk.lives(active=active)
    assert disk.holdings.make_room(state)
    assert disk.slots.names() == sorted([active, old])
    assert disk.holdings.make_room(state)
    assert disk.slots.names() == [active]
    assert not disk.holdings.make_room(state)
    assert oldest not in disk.slots.names()


def test_what_was_needed_lately_is_not_the_oldest(tmp_path: Path) -> None:
    disk = Disk(tmp_path, 250_000)
    first, second, third = (disk.artifact() for _ in range(3))
    disk.holdings.collect(disk.lives(active=first, previous=second, release=third))
    assert disk.holdings.collect(disk.lives(active=third, previous=second)) == [first]
