"""What the image repository says is what a real client reads; what it said survives a crash at any write."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Metadata, Targets

from edgewright_contract import targets as contract
from edgewright_controller.publish import ImageRepository, PublishError
from tests.controller.signed_things import NOW, KeyInHand, look_up, target


@pytest.fixture
def builder() -> KeyInHand:
    return KeyInHand()


@pytest.fixture
def repository(tmp_path: Path, builder: KeyInHand) -> ImageRepository:
    return ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW, builder=builder)


def _names(files: list[tuple[str, bytes]]) -> list[str]:
    return [name for name, _ in files]


def test_a_real_client_finds_a_published_target(repository: ImageRepository) -> None:
    repository.publish([target("a"), target("b", epoch=3)], NOW)
    found = look_up(repository.first_root, repository.files({}), target("b").path)
    assert found is not None
    assert contract.parse(found.path, found.length, found.hashes, found.custom) == target("b", epoch=3)
    assert look_up(repository.first_root, repository.files({}), target("c").path) is None
    assert repository.has(target("a").path)
    assert not repository.has(target("c").path)


def test_publishing_the_same_again_makes_no_version_and_asks_nobody(
    repository: ImageRepository, builder: KeyInHand
) -> None:
    repository.publish([target("a")], NOW)
    before, asked = repository.files({}), builder.asked
    repository.publish([target("a")], NOW + timedelta(minutes=5))
    assert repository.files({}) == before
    assert builder.asked == asked


def test_a_publication_raises_builder_snapshot_and_timestamp_only(repository: ImageRepository) -> None:
    assert _names(repository.files({})) == ["timestamp.json", "1.snapshot.json", "1.targets.json", "1.builder.json"]
    repository.publish([target("a")], NOW)
    assert _names(repository.files({})) == ["timestamp.json", "2.snapshot.json", "1.targets.json", "2.builder.json"]


def test_counts_go_on_above_a_number_once(repository: ImageRepository, builder: KeyInHand) -> None:
    repository.publish([target("a")], NOW)
    repository.count_from(1000, NOW)
    above = ["timestamp.json", "1001.snapshot.json", "1001.targets.json", "1001.builder.json"]
    assert _names(repository.files({})) == above
    assert look_up(repository.first_root, repository.files({}), target("a").path) is not None
    before, asked = repository.files({}), builder.asked
    repository.count_from(1000, NOW)
    assert (repository.files({}), builder.asked) == (before, asked)
    repository.publish([target("b")], NOW)
    assert _names(repository.files({}))[1::2] == ["1002.snapshot.json", "1002.builder.json"]
    repository.count_from(1000, NOW)
    assert _names(repository.files({}))[1] == "1002.snapshot.json"


def test_a_client_gets_only_what_it_lacks(repository: ImageRepository) -> None:
    held = {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1, "builder": 1}
    assert repository.files(held) == []
    repository.publish([target("a")], NOW)
    assert _names(repository.files(held)) == ["timestamp.json", "2.snapshot.json", "2.builder.json"]
    assert _names(repository.files({**held, "timestamp": 2, "snapshot": 2})) == ["2.builder.json"]


def test_it_stands_as_it_was_when_opened_again(tmp_path: Path, repository: ImageRepository, builder: KeyInHand) -> None:
    repository.publish([target("a")], NOW)
    again = ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW, builder=builder)
    assert again.files({}) == repository.files({})
    assert again.first_root == repository.first_root
    again.publish([target("b")], NOW)
    for mark in "ab":
        assert look_up(again.first_root, again.files({}), target(mark).path) is not None


def test_a_crash_before_the_timestamp_leaves_the_older_repository(
    tmp_path: Path, repository: ImageRepository, builder: KeyInHand
) -> None:
    repository.publish([target("a")], NOW)
    before = repository.files({})
    timestamp = (tmp_path / "image" / "timestamp.json").read_bytes()
    older = {path.name: path.read_bytes() for path in (tmp_path / "image").iterdir()}
    repository.publish([target("b")], NOW)
    newer = {path.name: path.read_bytes() for path in (tmp_path / "image").iterdir()}
    # On disk as after a cut: all files of both, the older timestamp.
    for name, data in (newer | older).items():
        (tmp_path / "image" / name).write_bytes(data)
    assert (tmp_path / "image" / "timestamp.json").read_bytes() == timestamp
    cut = ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW, builder=builder)
    assert cut.files({}) == before
    assert not cut.has(target("b").path)
    assert sorted(path.name for path in (tmp_path / "image").iterdir()) == sorted(older)
    cut.publish([target("c")], NOW)
    assert look_up(cut.first_root, cut.files({}), target("c").path) is not None


@pytest.mark.parametrize("left", [[], ["1.root.json"], ["1.root.json", "1.builder.json", "1.targets.json"]])
def test_a_first_start_that_was_cut_off_is_completed(tmp_path: Path, left: list[str]) -> None:
    builder = KeyInHand()
    ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW, builder=builder)
    for path in (tmp_path / "image").iterdir():
        if path.name not in left:
            path.unlink()
    again = ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW, builder=builder)
    again.publish([target("a")], NOW)
    assert look_up(again.first_root, again.files({}), target("a").path) is not None


def test_refresh_changes_nothing_while_everything_is_young(repository: ImageRepository) -> None:
    before = repository.files({})
    repository.refresh(NOW + timedelta(hours=11))
    assert repository.files({}) == before


@pytest.mark.parametrize(
    ("age", "lacking"),
    [
        (timedelta(hours=13), ["timestamp.json"]),
        (timedelta(days=4), ["timestamp.json", "2.snapshot.json"]),
        (timedelta(days=46), ["timestamp.json", "2.snapshot.json", "2.targets.json", "2.builder.json"]),
        (
            timedelta(days=183),
            ["2.root.json", "timestamp.json", "2.snapshot.json", "2.targets.json", "2.builder.json"],
        ),
    ],
)
def test_refresh_signs_anew_what_has_lived_half_its_life(
    repository: ImageRepository, age: timedelta, lacking: list[str]
) -> None:
    held = {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1, "builder": 1}
    repository.refresh(NOW + age)
    assert _names(repository.files(held)) == lacking


def test_a_builder_that_cannot_sign_keeps_up_nothing_else(tmp_path: Path, builder: KeyInHand) -> None:
    long_ago = NOW - timedelta(days=46)
    repository = ImageRepository.open(tmp_path / "image", tmp_path / "keys", long_ago, builder=builder)
    repository.publish([target("a")], long_ago)
    builder.refuses = True
    with pytest.raises(PublishError, match="out of order"):
        repository.refresh(NOW)
    found = look_up(repository.first_root, repository.files({}), target("a").path)
    assert found is not None, "nothing that a client is given has expired"
    builder.refuses = False
    repository.refresh(NOW)
    assert "3.builder.json" in _names(repository.files({}))


def test_a_client_walks_through_renewed_roots(tmp_path: Path, repository: ImageRepository, builder: KeyInHand) -> None:
    for days in (200, 400):
        repository.refresh(NOW + timedelta(days=days))
    again = ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW, builder=builder)
    again.publish([target("a")], NOW + timedelta(days=400))
    assert _names(again.files({"root": 1}))[:2] == ["2.root.json", "3.root.json"]
    assert _names(again.files({"root": 2}))[:2] == ["3.root.json", "timestamp.json"]
    assert look_up(again.first_root, again.files({}), target("a").path) is not None


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_a_lost_key_is_named_and_never_replaced(tmp_path: Path, repository: ImageRepository, role: str) -> None:
    key = tmp_path / "keys" / f"image-{role}.pem"
    key.unlink()
    with pytest.raises(PublishError, match=f"image-{role}.pem is lost.*restore the key"):
        ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW, builder=KeyInHand())
    assert not key.exists()


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp"])
def test_a_key_that_the_root_does_not_name_is_refused(tmp_path: Path, repository: ImageRepository, role: str) -> None:
    ImageRepository.open(tmp_path / "other", tmp_path / "otherkeys", NOW, builder=KeyInHand())
    shutil.copy(tmp_path / "otherkeys" / f"image-{role}.pem", tmp_path / "keys" / f"image-{role}.pem")
    with pytest.raises(PublishError, match=f"image-{role}.pem is not the one that .*1.root.json names"):
        ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW, builder=KeyInHand())


@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "1.targets.json", "2.builder.json"])
def test_a_damaged_file_is_reported(tmp_path: Path, repository: ImageRepository, name: str) -> None:
    repository.publish([target("a")], NOW)
    file = tmp_path / "image" / name
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(PublishError, match="restore"):
        ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW, builder=KeyInHand())


def test_a_forged_list_of_artifacts_on_disk_is_reported(tmp_path: Path, repository: ImageRepository) -> None:
    file = tmp_path / "image" / "1.builder.json"
    thief = KeyInHand()
    forged: Metadata[Targets] = Metadata.from_bytes(file.read_bytes())
    forged.signatures.clear()
    forged.sign(thief.signer)
    file.write_bytes(forged.to_bytes())
    with pytest.raises(PublishError, match="does not hold together"):
        ImageRepository.open(tmp_path / "image", tmp_path / "keys", NOW, builder=KeyInHand())
