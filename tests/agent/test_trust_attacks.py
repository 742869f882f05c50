"""What thieves and liars try on a device. Each test first shows that the honest case passes."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Targets

from edgewright_agent.trust import MetadataStale, Reason, Repository, TrustRefused
from edgewright_agent.trust_store import TrustStore
from edgewright_controller.director import Desired, Director
from edgewright_controller.publish import metadata
from edgewright_controller.publish.roots import Roots
from tests.agent.trust_fleet import (
    DAY,
    JETSON,
    MAC,
    NOW,
    Files,
    Fleet,
    Someone,
    chained,
    desired,
    of,
    release,
    resigned,
    rotated,
)
from tests.controller.signed_things import target

IMAGE, DIRECTOR = Repository.IMAGE, Repository.DIRECTOR


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "controller")


@pytest.fixture
def store(tmp_path: Path, fleet: Fleet) -> TrustStore:
    """A device that trusts generation 1, artifact a."""
    (tmp_path / "device").mkdir()
    made = fleet.store(tmp_path / "device" / "agent.sqlite")
    assert made.apply(fleet.answer(made, fleet.sign("a", 1)), JETSON, NOW).release == release("a")
    return made


def _refused(store: TrustStore, files: Files, reason: Reason, who: Someone = JETSON) -> None:
    """The files are refused for this reason, change nothing, and the device goes on as before."""
    held, marks = store.held(), store.marks()
    with pytest.raises(TrustRefused) as refused:
        store.apply(files, who, NOW)
    assert refused.value.reason is reason, refused.value
    assert (store.held(), store.marks()) == (held, marks)
    assert store.apply({}, JETSON, NOW).release == release("a")


def _update(fleet: Fleet, store: TrustStore, version: int = 2) -> Files:
    return fleet.answer(store, fleet.sign("b", version))


@pytest.mark.attack("replay of one device's metadata to another")
def test_another_devices_metadata_is_refused_and_does_not_raise_the_marks(fleet: Fleet, store: TrustStore) -> None:
    replayed = of(DIRECTOR, fleet.director.files(fleet.sign("b", 900, device="mac-01"), {}))
    _refused(store, replayed, Reason.OTHER_DEVICE)
    assert store.apply(_update(fleet, store), JETSON, NOW).release == release("b")


@pytest.mark.attack("metadata of another fleet under the same keys")
def test_metadata_of_another_fleet_under_the_same_keys_is_refused(
    tmp_path: Path, fleet: Fleet, store: TrustStore
) -> None:
    other = Director.open(tmp_path / "controller" / "director", fleet.keys, "other", NOW)
    signed = other.sign("jetson-01", desired(2, "b"), 2, NOW)
    _refused(store, of(DIRECTOR, other.files(signed, {})), Reason.OTHER_FLEET)
    assert store.apply(_update(fleet, store), JETSON, NOW).release == release("b")


@pytest.mark.attack("metadata of another controller")
def test_metadata_of_another_controller_is_refused(tmp_path: Path, fleet: Fleet, store: TrustStore) -> None:
    other = Fleet(tmp_path / "other")
    for version in range(3):
        other.image.publish([target("def"[version])], NOW)
    both = other.everything(other.sign("b", 900))
    _refused(store, {key: content for key, content in both.items() if key[0] == DIRECTOR}, Reason.UNVERIFIED)
    _refused(store, {key: content for key, content in both.items() if key[0] == IMAGE}, Reason.UNVERIFIED)


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_a_director_file_signed_by_a_wrong_key_is_refused(fleet: Fleet, store: TrustStore, role: str) -> None:
    honest = _update(fleet, store)
    name = "timestamp.json" if role == "timestamp" else f"2.{role}.json"
    forged = dict(honest)
    forged[DIRECTOR, name] = resigned(honest[DIRECTOR, name], CryptoSigner.generate_ed25519())
    _refused(store, forged, Reason.UNVERIFIED)
    assert store.apply(honest, JETSON, NOW).release == release("b")


@pytest.mark.attack("rollback to older metadata")
def test_older_metadata_is_refused(fleet: Fleet, store: TrustStore) -> None:
    older = fleet.everything(fleet.sign("a", 1))
    fleet.image.publish([target("d")], NOW)
    assert store.apply(_update(fleet, store), JETSON, NOW).release == release("b")
    for repository in Repository:
        files = {key: content for key, content in older.items() if key[0] == repository}
        with pytest.raises(TrustRefused) as refused:
            store.apply(files, JETSON, NOW)
        assert refused.value.reason is Reason.UNVERIFIED
    assert store.apply({}, JETSON, NOW).release == release("b")


@pytest.mark.attack("rollback after the newer metadata was lost or cut short")
@pytest.mark.parametrize("damage", ["substr(content, 1, 60)", "zeroblob(0)", "zeroblob(length(content))"])
def test_older_metadata_is_refused_even_when_the_newer_was_lost(
    tmp_path: Path, fleet: Fleet, store: TrustStore, damage: str
) -> None:
    older = fleet.everything(fleet.sign("a", 1))
    fleet.image.publish([target("d")], NOW)
    newest = fleet.sign("b", 2)
    assert store.apply(fleet.answer(store, newest), JETSON, NOW).release == release("b")
    with sqlite3.connect(tmp_path / "device" / "agent.sqlite") as other:
        other.execute(f"UPDATE trust_metadata SET content = {damage} WHERE role <> 'root'")
    with pytest.raises(TrustRefused) as refused:
        store.apply(older, JETSON, NOW)
    assert refused.value.reason in {Reason.ROLLBACK, Reason.GENERATION_LOWER}
    # Newer image metadata does not carry the director's older word through.
    mixed = older | {key: content for key, content in fleet.everything(newest).items() if key[0] == IMAGE}
    with pytest.raises(TrustRefused) as refused:
        store.apply(mixed, JETSON, NOW)
    assert refused.value.reason in {Reason.ROLLBACK, Reason.GENERATION_LOWER}
    assert store.apply(fleet.answer(store, newest), JETSON, NOW).release == release("b")


@pytest.mark.attack("lower generation under a higher version")
def test_a_lower_generation_under_a_higher_version_is_refused(fleet: Fleet, store: TrustStore) -> None:
    assert store.apply(_update(fleet, store, 5), JETSON, NOW).generation == 5
    signed = fleet.director.sign("jetson-01", desired(4, "a"), 6, NOW)
    with pytest.raises(TrustRefused, match="generation 4 after 5") as refused:
        store.apply(fleet.answer(store, signed), JETSON, NOW)
    assert refused.value.reason is Reason.GENERATION_LOWER


@pytest.mark.attack("one generation that says two things")
@pytest.mark.parametrize("mark", ["b", None])
def test_one_generation_does_not_say_two_things(fleet: Fleet, store: TrustStore, mark: str | None) -> None:
    again = fleet.director.sign("jetson-01", desired(1, "a"), 2, NOW)
    assert store.apply(fleet.answer(store, again), JETSON, NOW).release == release("a")
    changed = fleet.director.sign("jetson-01", desired(1, mark), 3, NOW)
    _refused(store, fleet.answer(store, changed), Reason.GENERATION_REUSED)


def test_a_wanted_rollback_is_a_higher_generation(fleet: Fleet, store: TrustStore) -> None:
    assert store.apply(_update(fleet, store), JETSON, NOW).release == release("b")
    assert store.apply(fleet.answer(store, fleet.sign("a", 3)), JETSON, NOW).release == release("a")


@pytest.mark.attack("mix and match of two versions")
def test_parts_of_two_versions_do_not_mix(fleet: Fleet, store: TrustStore) -> None:
    second, third = fleet.sign("b", 2), fleet.sign("c", 3)
    mixed = {
        (DIRECTOR, "timestamp.json"): third.timestamp,
        (DIRECTOR, "3.snapshot.json"): third.snapshot,
        (DIRECTOR, "3.targets.json"): second.targets,
    }
    _refused(store, mixed, Reason.UNVERIFIED)
    _refused(store, {**mixed, (DIRECTOR, "3.snapshot.json"): second.snapshot}, Reason.UNVERIFIED)
    assert store.apply({**mixed, (DIRECTOR, "3.targets.json"): third.targets}, JETSON, NOW).release == release("c")


@pytest.mark.attack("mix and match of an older list under a newer snapshot")
def test_an_older_list_of_artifacts_under_a_newer_snapshot_is_refused(fleet: Fleet, store: TrustStore) -> None:
    older = dict(fleet.image.files({}))["2.builder.json"]
    fleet.image.publish([target("d")], NOW)
    honest = fleet.answer(store, fleet.sign("a", 1))
    _refused(store, {**honest, (IMAGE, "3.builder.json"): older}, Reason.UNVERIFIED)
    assert store.apply(honest, JETSON, NOW).release == release("a")


@pytest.mark.parametrize(
    "withheld",
    [
        (DIRECTOR, "2.snapshot.json"),
        (DIRECTOR, "2.targets.json"),
        (IMAGE, "3.snapshot.json"),
        (IMAGE, "3.builder.json"),
    ],
)
def test_an_answer_with_a_hole_is_refused_and_a_whole_one_accepted(
    fleet: Fleet, store: TrustStore, withheld: tuple[Repository, str]
) -> None:
    fleet.image.publish([target("d")], NOW)
    whole = _update(fleet, store)
    _refused(store, {key: content for key, content in whole.items() if key != withheld}, Reason.INCOMPLETE)
    assert store.apply(whole, JETSON, NOW).release == release("b")


@pytest.mark.attack("freeze")
def test_a_frozen_repository_blocks_changes(fleet: Fleet, store: TrustStore) -> None:
    frozen = _update(fleet, store)
    assert store.apply({}, JETSON, NOW + DAY / 2).release == release("a")
    marks = store.marks()
    with pytest.raises(MetadataStale):
        store.apply(frozen, JETSON, NOW + 4 * DAY)
    assert store.marks() == marks


@pytest.mark.attack("endless data")
@pytest.mark.parametrize(
    ("name", "size"), [("timestamp.json", 16), ("2.snapshot.json", 64), ("2.targets.json", 256), ("2.root.json", 64)]
)
def test_endless_data_is_refused_before_it_is_parsed(fleet: Fleet, store: TrustStore, name: str, size: int) -> None:
    honest = _update(fleet, store)
    bloated = honest.get((DIRECTOR, name), b"{}") + b" " * (size << 10)
    _refused(store, {**honest, (DIRECTOR, name): bloated}, Reason.UNVERIFIED)
    assert store.apply(honest, JETSON, NOW).release == release("b")


@pytest.mark.attack("endless files")
def test_endless_files_are_refused(fleet: Fleet, store: TrustStore) -> None:
    honest = _update(fleet, store)
    many = {(DIRECTOR, f"{number}.root.json"): b"{}" for number in range(2, 1000)}
    _refused(store, honest | many, Reason.UNVERIFIED)
    assert store.apply(honest, JETSON, NOW).release == release("b")


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"[" * 10_000, b"null", b"\xff\xfe", b'{"signed": {"_type": "root"}}'])
@pytest.mark.parametrize("name", ["timestamp.json", "2.snapshot.json", "2.targets.json", "2.root.json"])
def test_rubbish_is_refused(fleet: Fleet, store: TrustStore, name: str, rubbish: bytes) -> None:
    _refused(store, {**_update(fleet, store), (DIRECTOR, name): rubbish}, Reason.UNVERIFIED)


@pytest.mark.attack("stolen director key")
def test_a_stolen_director_key_cannot_hand_out_what_was_never_published(fleet: Fleet, store: TrustStore) -> None:
    honest = fleet.sign("b", 2)
    unlisted = fleet.director.sign("jetson-01", desired(2, "e"), 2, NOW)
    _refused(store, fleet.answer(store, unlisted), Reason.UNKNOWN_TARGET)
    assert store.apply(fleet.answer(store, honest), JETSON, NOW).release == release("b")


def _directed(fleet: Fleet, **changes: object) -> Files:
    """Generation 2 at version 2 with something else in its one target, signed by the director's true key."""
    key = fleet.key("director-online")
    honest: Metadata[Targets] = Metadata.from_bytes(fleet.sign("b", 2).targets)
    one = honest.signed.targets[target("b").path]
    for name, value in changes.items():
        if name == "custom":
            assert isinstance(value, dict)
            one.unrecognized_fields["custom"] = {**one.custom, **value}
        else:
            setattr(one, name, value)
    signers = dict.fromkeys(("snapshot", "timestamp"), key)
    return chained(
        DIRECTOR, resigned(honest.to_bytes(), key, targets=honest.signed.targets), {}, signers=signers, version=2
    )


@pytest.mark.attack("director and image repository that disagree")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"length": 322}, Reason.DISAGREEMENT),
        ({"hashes": {"sha256": "c" * 64}}, Reason.DISAGREEMENT),
        ({"hashes": {"sha512": "b" * 128}}, Reason.DISAGREEMENT),
        ({"custom": {"hw_class": "gguf-cuda"}}, Reason.DISAGREEMENT),
        ({"custom": {"release": release("c").to_json()}}, Reason.DISAGREEMENT),
        ({"custom": {"release": replace(release("b"), accelerator="cuda").to_json()}}, Reason.DISAGREEMENT),
        ({"custom": {"release": {"edgewright_release": 1}}}, Reason.MALFORMED),
        ({"custom": {"release": None}}, Reason.MALFORMED),
    ],
)
def test_the_repositories_must_agree(
    fleet: Fleet, store: TrustStore, changes: dict[str, object], reason: Reason
) -> None:
    _refused(store, _directed(fleet, **changes), reason)
    assert store.apply(_directed(fleet), JETSON, NOW).release == release("b")


@pytest.mark.attack("stolen targets key that delegates to a role of its own")
def test_a_role_that_the_devices_do_not_know_cannot_list_artifacts(fleet: Fleet, store: TrustStore) -> None:
    """Whoever has targets, snapshot and timestamp keys of the image repository puts a role before the builder."""
    thief = CryptoSigner.generate_ed25519()
    image = {name.split(".")[-2]: content for name, content in fleet.image.files({})}
    evil = target("e")
    listed = metadata.sign(
        Targets(1, expires=NOW + DAY, targets={evil.path: metadata.target_file(evil, evil.custom)}), thief
    )
    honest: Metadata[Targets] = Metadata.from_bytes(image["targets"])
    delegations = honest.signed.delegations
    assert delegations is not None
    assert delegations.roles is not None
    role = DelegatedRole("evil", [thief.public_key.keyid], 1, terminating=False, paths=["models/*/*/*"])
    changed = Delegations(
        {**delegations.keys, thief.public_key.keyid: thief.public_key}, {"evil": role, **delegations.roles}
    )
    targets = resigned(image["targets"], fleet.key("image-targets"), version=2, delegations=changed)
    signers = {role: fleet.key(f"image-{role}") for role in ("snapshot", "timestamp")}
    files = chained(IMAGE, targets, {"builder": image["builder"], "evil": listed.data}, signers=signers, version=3)
    wanted = fleet.director.sign("jetson-01", desired(2, "e"), 2, NOW)
    _refused(store, files | of(DIRECTOR, fleet.director.files(wanted, {})), Reason.UNVERIFIED)


@pytest.mark.attack("builder that passes its right on")
def test_the_builder_cannot_pass_its_right_on(fleet: Fleet, store: TrustStore) -> None:
    thief = CryptoSigner.generate_ed25519()
    image = {name.split(".")[-2]: content for name, content in fleet.image.files({})}
    evil = target("e")
    listed = metadata.sign(
        Targets(1, expires=NOW + DAY, targets={evil.path: metadata.target_file(evil, evil.custom)}), thief
    )
    role = DelegatedRole("evil", [thief.public_key.keyid], 1, terminating=False, paths=["models/*/*/*"])
    delegations = Delegations({thief.public_key.keyid: thief.public_key}, {"evil": role})
    builder = resigned(image["builder"], fleet.builder.signer, version=3, delegations=delegations)
    signers = {role: fleet.key(f"image-{role}") for role in ("snapshot", "timestamp")}
    files = chained(IMAGE, image["targets"], {"builder": builder, "evil": listed.data}, signers=signers, version=3)
    wanted = fleet.director.sign("jetson-01", desired(2, "e"), 2, NOW)
    _refused(store, files | of(DIRECTOR, fleet.director.files(wanted, {})), Reason.UNKNOWN_TARGET)
    # The same builder's own artifacts are found all the same.
    honest = fleet.sign("b", 2)
    assert store.apply(files | of(DIRECTOR, fleet.director.files(honest, {})), JETSON, NOW).release == release("b")


def _far_ahead(fleet: Fleet, version: int) -> Files:
    """The director's word under a version far up, by someone who has its key."""
    return of(DIRECTOR, fleet.director.files(fleet.director.sign("jetson-01", desired(1, "a"), version, NOW), {}))


class _OtherKey:
    """The director's roots, whose online key is another."""

    def __init__(self, fleet: Fleet, key: CryptoSigner) -> None:
        self.above, self._key = fleet.director.roots.above, key

    def signer(self, _role: str) -> CryptoSigner:
        return self._key


@pytest.mark.attack("fast-forward of a device's versions")
def test_new_keys_outlive_a_thief_who_raised_the_versions(fleet: Fleet, store: TrustStore) -> None:
    assert store.apply(_far_ahead(fleet, 2**40), JETSON, NOW).release == release("a")
    # Under the stolen key nothing lower is believed.
    with pytest.raises(TrustRefused):
        store.apply(of(DIRECTOR, fleet.director.files(fleet.sign("b", 3), {})), JETSON, NOW)
    new = CryptoSigner.generate_ed25519()
    roles = dict.fromkeys(("timestamp", "snapshot", "targets"), new)
    root = rotated(fleet.director.first_root, fleet.key("director-root"), roles)
    recovered = Director("demo", cast(Roots, _OtherKey(fleet, new)))
    signed = recovered.sign("jetson-01", desired(3, "b"), 3, NOW)
    files = {**of(DIRECTOR, recovered.files(signed, {})), (DIRECTOR, "2.root.json"): root}
    # A root that the old root did not sign recovers nothing.
    forged = rotated(fleet.director.first_root, CryptoSigner.generate_ed25519(), roles)
    with pytest.raises(TrustRefused):
        store.apply({**files, (DIRECTOR, "2.root.json"): forged}, JETSON, NOW)
    assert store.apply(files, JETSON, NOW).release == release("b")
    # From now on the stolen key says nothing.
    with pytest.raises(TrustRefused):
        store.apply(_far_ahead(fleet, 2**41), JETSON, NOW)
    assert store.apply({}, JETSON, NOW).release == release("b")


@pytest.mark.attack("older build below the release epoch")
def test_a_model_never_falls_below_the_epoch_that_took_traffic(fleet: Fleet, store: TrustStore) -> None:
    fleet.image.publish([target("d", epoch=2)], NOW)
    raised = Desired(2, release("d"), target("d", epoch=2))
    found = store.apply(fleet.answer(store, fleet.director.sign("jetson-01", raised, 2, NOW)), JETSON, NOW)
    assert found.target is not None
    # Until it took traffic, the older one is the way back.
    assert store.apply(fleet.answer(store, fleet.sign("a", 3)), JETSON, NOW).release == release("a")
    store.activated(found.target)
    with pytest.raises(TrustRefused, match="here 2 was activated") as refused:
        store.apply(fleet.answer(store, fleet.sign("b", 4)), JETSON, NOW)
    assert refused.value.reason is Reason.EPOCH_LOWER
    again = replace(raised, generation=5)
    answer = fleet.answer(store, fleet.director.sign("jetson-01", again, 5, NOW))
    assert store.apply(answer, JETSON, NOW).release == release("d")


@pytest.mark.attack("own metadata shown as another's")
def test_metadata_for_us_is_not_for_others(tmp_path: Path, fleet: Fleet) -> None:
    mac = fleet.store(tmp_path / "mac.sqlite")
    with pytest.raises(TrustRefused) as refused:
        mac.apply(fleet.everything(fleet.sign("a", 1)), MAC, NOW)
    assert refused.value.reason is Reason.OTHER_DEVICE
    assert mac.apply(fleet.everything(fleet.sign("a", 1, device="mac-01")), MAC, NOW).release == release("a")
