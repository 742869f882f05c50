"""An honest fleet and a device that keeps what it trusts through cuts and damage."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from edgewright_agent.database import StateDamaged
from edgewright_agent.trust import Assignment, MetadataStale, Reason, Repository, TrustRefused
from edgewright_agent.trust_store import HeldVersion, OtherAnchor, TrustStore
from tests.agent.trust_fleet import DAY, JETSON, MAC, NOW, Fleet, release
from tests.controller.signed_things import target


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "controller")


@pytest.fixture
def store(tmp_path: Path, fleet: Fleet) -> TrustStore:
    (tmp_path / "device").mkdir()
    return fleet.store(tmp_path / "device" / "agent.sqlite")


def _database(tmp_path: Path) -> sqlite3.Connection:
    return sqlite3.connect(tmp_path / "device" / "agent.sqlite", isolation_level=None)


def test_a_device_learns_what_it_should_have(fleet: Fleet, store: TrustStore) -> None:
    found = store.apply(fleet.answer(store, fleet.sign("a", 1)), JETSON, NOW)
    assert found == Assignment(1, release("a"), target("a"))


def test_a_check_in_that_sends_nothing_new_says_the_same_again(fleet: Fleet, store: TrustStore) -> None:
    signed = fleet.sign("a", 1)
    first = store.apply(fleet.answer(store, signed), JETSON, NOW)
    assert fleet.answer(store, signed) == {}
    assert store.apply({}, JETSON, NOW + timedelta(hours=2)) == first


def test_each_generation_replaces_the_one_before_and_the_last_can_be_nothing(fleet: Fleet, store: TrustStore) -> None:
    for version, mark in enumerate(["a", "b", "a", None], start=1):
        found = store.apply(fleet.answer(store, fleet.sign(mark, version)), JETSON, NOW)
        assert found == Assignment(version, release(mark) if mark else None, target(mark) if mark else None)


def test_a_newer_artifact_is_found_after_a_publication(fleet: Fleet, store: TrustStore) -> None:
    store.apply(fleet.answer(store, fleet.sign("a", 1)), JETSON, NOW)
    fleet.image.publish([target("d")], NOW)
    answer = fleet.answer(store, fleet.sign("d", 2))
    assert [name for where, name in answer if where == Repository.IMAGE] == [
        "timestamp.json",
        "3.snapshot.json",
        "3.builder.json",
    ]
    assert store.apply(answer, JETSON, NOW).target == target("d")


def test_the_builders_list_is_kept_even_when_nothing_is_desired(fleet: Fleet, store: TrustStore) -> None:
    store.apply(fleet.answer(store, fleet.sign(None, 1)), JETSON, NOW)
    assert HeldVersion(Repository.IMAGE, "builder", 2) in store.held()


def test_what_is_held_is_said_for_each_role(fleet: Fleet, store: TrustStore) -> None:
    roots = {HeldVersion(Repository.IMAGE, "root", 1), HeldVersion(Repository.DIRECTOR, "root", 1)}
    assert set(store.held()) == roots
    store.apply(fleet.answer(store, fleet.sign("a", 7)), JETSON, NOW)
    image = {"timestamp": 2, "snapshot": 2, "targets": 1, "builder": 2}
    director = dict.fromkeys(("timestamp", "snapshot", "targets"), 7)
    assert set(store.held()) == (
        roots
        | {HeldVersion(Repository.IMAGE, role, version) for role, version in image.items()}
        | {HeldVersion(Repository.DIRECTOR, role, version) for role, version in director.items()}
    )


def test_a_device_that_slept_for_years_walks_through_the_roots(fleet: Fleet, store: TrustStore) -> None:
    store.apply(fleet.answer(store, fleet.sign("a", 1)), JETSON, NOW)
    now = NOW
    for _ in range(5):
        now += timedelta(days=200)
        fleet.image.refresh(now)
        fleet.director.refresh(now)
    answer = fleet.answer(store, fleet.sign("b", 2, now=now))
    assert (Repository.IMAGE, "6.root.json") in answer
    assert store.apply(answer, JETSON, now).release == release("b")
    assert HeldVersion(Repository.DIRECTOR, "root", 6) in store.held()
    assert store.apply({}, JETSON, now).release == release("b")


def test_a_release_that_failed_here_is_marked_as_held(fleet: Fleet, store: TrustStore) -> None:
    answer = fleet.answer(store, fleet.sign("a", 1))
    assert not store.apply(answer, JETSON, NOW).held
    assert store.apply({}, JETSON, NOW, holds={release("a").digest}).held


def test_an_idle_check_in_judges_by_time_damage_and_name_all_the_same(
    tmp_path: Path, fleet: Fleet, store: TrustStore
) -> None:
    first = store.apply(fleet.answer(store, fleet.sign("a", 1)), JETSON, NOW)
    assert store.apply({}, JETSON, NOW) == first
    with pytest.raises(TrustRefused):
        store.apply({}, MAC, NOW)
    with pytest.raises(TrustRefused):
        store.apply({}, JETSON, NOW, accepted_hw_classes=())
    with pytest.raises(MetadataStale):
        store.apply({}, JETSON, NOW + DAY)
    assert store.apply({}, JETSON, NOW) == first
    with _database(tmp_path) as other:
        other.execute("DELETE FROM trust_metadata WHERE role = 'builder'")
    with pytest.raises(TrustRefused) as refused:
        store.apply({}, JETSON, NOW)
    assert refused.value.reason is Reason.INCOMPLETE


def test_a_device_takes_only_its_kinds_of_hardware(fleet: Fleet, store: TrustStore) -> None:
    answer = fleet.answer(store, fleet.sign("a", 1))
    with pytest.raises(TrustRefused, match="gguf-cuda") as refused:
        store.apply(answer, JETSON, NOW, accepted_hw_classes={"gguf-cuda"})
    assert refused.value.reason is Reason.WRONG_HARDWARE
    assert store.apply(answer, JETSON, NOW, accepted_hw_classes={"gguf-cpu", "gguf-cuda"}).generation == 1


def test_everything_is_there_after_a_restart(tmp_path: Path, fleet: Fleet, store: TrustStore) -> None:
    first = store.apply(fleet.answer(store, fleet.sign("a", 1)), JETSON, NOW)
    marks = store.marks()
    store.close()
    again = TrustStore.open(tmp_path / "device" / "agent.sqlite")
    assert again.marks() == marks
    assert again.apply({}, JETSON, NOW) == first


def test_leftovers_of_a_round_that_was_cut_off_are_removed(tmp_path: Path, store: TrustStore) -> None:
    leftover = tmp_path / "device" / "trust-round-abc"
    (leftover / "root_history").mkdir(parents=True)
    TrustStore.open(tmp_path / "device" / "agent.sqlite")
    assert not leftover.exists()


def test_a_round_leaves_no_file_behind(tmp_path: Path, fleet: Fleet, store: TrustStore) -> None:
    store.apply(fleet.answer(store, fleet.sign("a", 1)), JETSON, NOW)
    with pytest.raises(TrustRefused):
        store.apply({(Repository.IMAGE, "timestamp.json"): b"rubbish"}, JETSON, NOW)
    assert [path.name for path in (tmp_path / "device").iterdir() if "sqlite" not in path.name] == []


def test_bytes_and_marks_are_kept_together_or_not_at_all(tmp_path: Path, fleet: Fleet, store: TrustStore) -> None:
    first = store.apply(fleet.answer(store, fleet.sign("a", 1)), JETSON, NOW)
    held, marks = store.held(), store.marks()
    with _database(tmp_path) as other:
        other.execute("CREATE TRIGGER cut BEFORE INSERT ON trust_marks BEGIN SELECT RAISE(ABORT, 'power cut'); END")
    with pytest.raises(StateDamaged, match="power cut"):
        store.apply(fleet.answer(store, fleet.sign("b", 2)), JETSON, NOW)
    with _database(tmp_path) as other:
        other.execute("DROP TRIGGER cut")
    assert (store.held(), store.marks()) == (held, marks)
    assert store.apply({}, JETSON, NOW) == first
    assert store.apply(fleet.answer(store, fleet.sign("b", 2)), JETSON, NOW).release == release("b")


@pytest.mark.attack("lost or truncated metadata cache")
@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "builder"])
@pytest.mark.parametrize(
    "damage", ["UPDATE trust_metadata SET content = substr(content, 1, 50)", "DELETE FROM trust_metadata"]
)
def test_metadata_that_was_lost_or_cut_short_is_fetched_again(
    tmp_path: Path, fleet: Fleet, store: TrustStore, role: str, damage: str
) -> None:
    signed = fleet.sign("a", 1)
    first = store.apply(fleet.answer(store, signed), JETSON, NOW)
    with _database(tmp_path) as other:
        assert other.execute(f"{damage} WHERE role = ?", (role,)).rowcount >= 1
    if role != "root":
        assert role not in {held.role for held in store.held() if held.repository == Repository.IMAGE}
    assert store.apply(fleet.answer(store, signed), JETSON, NOW) == first
    assert role in {held.role for held in store.held()}


def test_a_root_lost_in_the_middle_is_fetched_again(tmp_path: Path, fleet: Fleet, store: TrustStore) -> None:
    now = NOW
    for _ in range(3):
        now += timedelta(days=200)
        fleet.image.refresh(now)
        fleet.director.refresh(now)
    signed = fleet.sign("a", 1, now=now)
    store.apply(fleet.answer(store, signed), JETSON, now)
    with _database(tmp_path) as other:
        other.execute("DELETE FROM trust_metadata WHERE role = 'root' AND version IN (1, 2)")
    assert HeldVersion(Repository.IMAGE, "root", 1) in store.held()
    assert store.apply(fleet.answer(store, signed), JETSON, now).release == release("a")


@pytest.mark.attack("damaged marks of trust")
@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE trust_marks SET document = substr(document, 1, 40)",
        "UPDATE trust_marks SET document = replace(document, '\"generation\": 1', '\"generation\": 0')",
        "DELETE FROM trust_marks",
        "UPDATE trust_anchor SET content = substr(content, 1, 40) WHERE repository = 1",
        "DELETE FROM trust_anchor WHERE repository = 2",
    ],
)
def test_damaged_marks_or_anchors_are_never_replaced_by_fresh_ones(
    tmp_path: Path, fleet: Fleet, store: TrustStore, damage: str
) -> None:
    store.apply(fleet.answer(store, fleet.sign("a", 1)), JETSON, NOW)
    with _database(tmp_path) as other:
        assert other.execute(damage).rowcount == 1
    for act in (
        lambda: store.apply(fleet.everything(fleet.sign("b", 2)), JETSON, NOW),
        lambda: TrustStore.open(tmp_path / "device" / "agent.sqlite"),
    ):
        with pytest.raises(StateDamaged, match="enrol the device again"):
            act()


def test_a_store_that_was_never_made_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(StateDamaged, match="edgewright-agent enroll"):
        TrustStore.open(tmp_path / "agent.sqlite")
    assert not (tmp_path / "agent.sqlite").exists()


def test_making_a_store_again_keeps_its_marks(tmp_path: Path, fleet: Fleet, store: TrustStore) -> None:
    store.apply(fleet.answer(store, fleet.sign("a", 1)), JETSON, NOW)
    assert fleet.store(tmp_path / "device" / "agent.sqlite").marks() == store.marks()


@pytest.mark.attack("another controller's roots over the device's own")
def test_a_store_of_another_controller_is_not_taken_over(tmp_path: Path, store: TrustStore) -> None:
    with pytest.raises(OtherAnchor, match="another controller"):
        Fleet(tmp_path / "other").store(tmp_path / "device" / "agent.sqlite")


def test_old_metadata_blocks_changes_until_newer_comes(fleet: Fleet, store: TrustStore) -> None:
    first = store.apply(fleet.answer(store, fleet.sign("a", 1)), JETSON, NOW)
    late = NOW + 2 * DAY
    with pytest.raises(MetadataStale, match=r"image repository: timestamp\.json is expired"):
        store.apply({}, JETSON, late)
    fleet.image.refresh(late)
    signed = fleet.sign("a", 1)
    assert store.apply(fleet.answer(store, signed), JETSON, late) == first
    later = NOW + 4 * DAY
    fleet.image.refresh(later)
    with pytest.raises(MetadataStale, match="director repository"):
        store.apply(fleet.answer(store, signed), JETSON, later)
    newer = fleet.sign("a", 2, now=later)
    assert store.apply(fleet.answer(store, newer), JETSON, later).generation == 2


@pytest.mark.attack("clock set back ten years")
def test_a_clock_that_fell_back_is_not_believed(fleet: Fleet, store: TrustStore) -> None:
    signed = fleet.sign("a", 1)
    store.apply(fleet.answer(store, signed), JETSON, NOW)
    late = NOW + 5 * DAY
    fleet.image.refresh(late)
    store.apply(fleet.answer(store, fleet.sign("b", 2, now=late)), JETSON, late)
    assert store.apply({}, JETSON, NOW - 3650 * DAY).release == release("b")
    # Signed when the clock says, but over by the time that this device has seen already.
    with pytest.raises(MetadataStale):
        store.apply(fleet.answer(store, fleet.sign("b", 3, now=NOW)), JETSON, NOW)


@pytest.mark.attack("clock before the enrolment")
def test_a_new_device_does_not_believe_a_clock_before_its_own_enrolment(tmp_path: Path, fleet: Fleet) -> None:
    old = Fleet(tmp_path / "old", now=NOW - 30 * DAY)
    store = old.store(tmp_path / "agent.sqlite")  # enrolled a day before NOW
    signed = old.sign("a", 1, now=NOW - 30 * DAY)
    with pytest.raises(MetadataStale):
        store.apply(old.everything(signed), JETSON, NOW - 30 * DAY)


@pytest.mark.attack("clock set ahead")
def test_a_clock_that_ran_ahead_does_no_lasting_harm(fleet: Fleet, store: TrustStore) -> None:
    store.apply(fleet.answer(store, fleet.sign("a", 1)), JETSON, NOW)
    marks = store.marks()
    with pytest.raises(MetadataStale):
        store.apply(fleet.answer(store, fleet.sign("b", 2)), JETSON, NOW + 3650 * DAY)
    assert store.marks() == marks
    assert store.apply(fleet.answer(store, fleet.sign("b", 2)), JETSON, NOW).release == release("b")
