"""An offline mandate on a device: what it is worth without a network, and who cannot make one or reuse it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Delegations, Metadata, TargetFile, Targets

from edgewright_agent.database import StateDamaged
from edgewright_agent.trust import Assignment, MetadataStale, Reason, Repository, TrustRefused
from edgewright_agent.trust_store import HeldVersion, TrustStore
from edgewright_contract import mandate as contract
from edgewright_controller.publish import mandates
from tests.agent.mandate_fleet import MandateFleet, altered, days
from tests.agent.trust_fleet import JETSON, MAC, NOW, Someone, desired, release, resigned, rotated
from tests.controller.signed_things import target


@pytest.fixture
def fleet(tmp_path: Path) -> MandateFleet:
    return MandateFleet(tmp_path / "controller")


@pytest.fixture
def store(tmp_path: Path, fleet: MandateFleet) -> TrustStore:
    """A device that has release a, by the director, as generation 5."""
    (tmp_path / "device").mkdir()
    made = fleet.store(tmp_path / "device" / "agent.sqlite")
    assert made.apply(fleet.answer(made, fleet.sign("a", 5)), JETSON, NOW).release == release("a")
    return made


def _database(tmp_path: Path) -> sqlite3.Connection:
    return sqlite3.connect(tmp_path / "device" / "agent.sqlite", isolation_level=None)


def _refused(store: TrustStore, document: bytes, *reasons: Reason, who: Someone = JETSON) -> None:
    """Nothing of it is kept, and the device still has what it had."""
    marks, held, mandate = store.marks(), store.held(), store.mandate()
    with pytest.raises(TrustRefused) as refused:
        store.apply_mandate(document, who, NOW)
    assert refused.value.reason in reasons, refused.value
    assert (store.marks(), store.held(), store.mandate()) == (marks, held, mandate)


def test_a_mandate_says_what_to_have_for_months_without_any_network(fleet: MandateFleet, store: TrustStore) -> None:
    document = fleet.mandate("b", 6, days=180)
    late = NOW + days(179)
    with pytest.raises(MetadataStale):
        store.apply({}, JETSON, late)
    assert store.apply_mandate(document, JETSON, late) == Assignment(6, release("b"), target("b"))
    assert store.mandate() == document


def test_a_device_that_was_never_given_anything_takes_a_mandate(tmp_path: Path, fleet: MandateFleet) -> None:
    fresh = fleet.store(tmp_path / "fresh.sqlite")
    assert fresh.apply_mandate(fleet.mandate("a", 1), JETSON, NOW).release == release("a")


def test_a_profiles_mandate_is_for_each_of_its_devices(tmp_path: Path, fleet: MandateFleet, store: TrustStore) -> None:
    document = fleet.mandate("b", 9, profile="jetson")
    other, theirs = Someone("jetson-02"), fleet.store(tmp_path / "second.sqlite")
    theirs.apply(fleet.answer(theirs, fleet.sign("c", 3, device="jetson-02")), other, NOW)
    assert store.apply_mandate(document, JETSON, NOW).release == release("b")
    assert theirs.apply_mandate(document, other, NOW).release == release("b")


def test_everything_is_there_after_a_restart(tmp_path: Path, fleet: MandateFleet, store: TrustStore) -> None:
    document = fleet.mandate("b", 6)
    found, marks = store.apply_mandate(document, JETSON, NOW), store.marks()
    store.close()
    again = TrustStore.open(tmp_path / "device" / "agent.sqlite")
    assert (again.mandate(), again.marks()) == (document, marks)
    assert again.apply_mandate(document, JETSON, NOW + days(30)) == found


def test_documents_and_marks_are_kept_together_or_not_at_all(
    tmp_path: Path, fleet: MandateFleet, store: TrustStore
) -> None:
    fleet.image.publish([target("d")], NOW)
    document, held, marks = fleet.mandate("d", 6), store.held(), store.marks()
    with _database(tmp_path) as other:
        other.execute("CREATE TRIGGER cut BEFORE INSERT ON trust_marks BEGIN SELECT RAISE(ABORT, 'power cut'); END")
    with pytest.raises(StateDamaged, match="power cut"):
        store.apply_mandate(document, JETSON, NOW)
    with _database(tmp_path) as other:
        other.execute("DROP TRIGGER cut")
    assert (store.held(), store.marks(), store.mandate()) == (held, marks, None)
    assert store.apply_mandate(document, JETSON, NOW).release == release("d")


def test_a_damaged_mandate_counts_as_not_held(tmp_path: Path, fleet: MandateFleet, store: TrustStore) -> None:
    document = fleet.mandate("b", 6)
    store.apply_mandate(document, JETSON, NOW)
    with _database(tmp_path) as other:
        other.execute("UPDATE trust_mandate SET document = substr(document, 1, 90)")
    assert store.mandate() is None
    assert store.apply_mandate(document, JETSON, NOW).release == release("b")
    assert store.mandate() == document


def test_the_director_goes_on_above_a_mandate(fleet: MandateFleet, store: TrustStore) -> None:
    fleet.image.publish([target("d")], NOW)
    document = fleet.mandate("d", 7)
    store.apply_mandate(document, JETSON, NOW)
    older = fleet.director.sign("jetson-01", desired(6, "c"), 6, NOW)
    with pytest.raises(TrustRefused) as refused:
        store.apply(fleet.answer(store, older), JETSON, NOW)
    assert refused.value.reason is Reason.GENERATION_LOWER
    # The ledger has learnt of it: the same generation says the same.
    adopted = fleet.director.sign("jetson-01", desired(7, "d"), 7, NOW)
    assert store.apply(fleet.answer(store, adopted), JETSON, NOW).release == release("d")
    assert store.mandate() == document
    newer = fleet.director.sign("jetson-01", desired(8, "b"), 8, NOW)
    assert store.apply(fleet.answer(store, newer), JETSON, NOW).release == release("b")
    assert store.mandate() is None
    assert store.apply({}, JETSON, NOW).release == release("b")


def test_the_lists_of_a_mandate_are_held_like_any_other(fleet: MandateFleet, store: TrustStore) -> None:
    fleet.image.publish([target("d")], NOW)
    store.apply_mandate(fleet.mandate("d", 6), JETSON, NOW)
    assert HeldVersion(Repository.IMAGE, "builder", 3) in store.held()
    answer = fleet.answer(store, fleet.director.sign("jetson-01", desired(6, "d"), 6, NOW))
    assert [name for where, name in answer if where == Repository.IMAGE] == ["timestamp.json", "4.snapshot.json"]
    assert store.apply(answer, JETSON, NOW).release == release("d")


def test_a_newer_list_that_the_device_has_counts_and_stays(fleet: MandateFleet, store: TrustStore) -> None:
    document = fleet.mandate("b", 6)
    fleet.image.publish([target("d")], NOW)
    store.apply(fleet.answer(store, fleet.sign("a", 5)), JETSON, NOW)
    assert store.apply_mandate(document, JETSON, NOW).release == release("b")
    assert HeldVersion(Repository.IMAGE, "builder", 3) in store.held()


def test_the_chain_of_roots_is_walked_to_the_end(fleet: MandateFleet, store: TrustStore) -> None:
    now = NOW
    for _ in range(3):
        now += days(200)
        fleet.image.refresh(now)
    document = fleet.mandate("b", 6, issued=now)
    assert store.apply_mandate(document, JETSON, now).release == release("b")
    assert HeldVersion(Repository.IMAGE, "root", 4) in store.held()


def test_a_release_that_failed_here_is_marked_as_held(fleet: MandateFleet, store: TrustStore) -> None:
    document = fleet.mandate("b", 6)
    assert not store.apply_mandate(document, JETSON, NOW).held
    assert store.apply_mandate(document, JETSON, NOW, holds={release("b").digest}).held


def test_two_of_three_holders_sign_one_after_the_other(fleet: MandateFleet, store: TrustStore) -> None:
    holders = [CryptoSigner.generate_ed25519() for _ in range(3)]
    fleet.delegate(*holders, threshold=2)
    once = fleet.mandate("b", 6, signer=holders[0])
    _refused(store, once, Reason.UNVERIFIED)
    _refused(store, mandates.sign(once, holders[0]), Reason.UNVERIFIED)
    assert store.apply_mandate(mandates.sign(once, holders[2]), JETSON, NOW).release == release("b")


@pytest.mark.attack("mandate on another device")
def test_a_mandate_is_not_for_another_device(tmp_path: Path, fleet: MandateFleet, store: TrustStore) -> None:
    document, mac = fleet.mandate("b", 6), fleet.store(tmp_path / "mac.sqlite")
    _refused(mac, document, Reason.OTHER_DEVICE, who=MAC)
    assert store.apply_mandate(document, JETSON, NOW).generation == 6


@pytest.mark.attack("mandate of another fleet")
def test_a_mandate_is_not_for_another_fleet(tmp_path: Path, fleet: MandateFleet, store: TrustStore) -> None:
    _refused(store, MandateFleet(tmp_path / "other").mandate("b", 6), Reason.UNVERIFIED)
    # Nor when one key signs for both.
    _refused(store, altered(fleet.mandate("b", 6), fleet.mandate_key, fields={"fleet": "other"}), Reason.OTHER_FLEET)
    assert store.apply_mandate(fleet.mandate("b", 6), JETSON, NOW).generation == 6


@pytest.mark.attack("expired mandate")
def test_an_expired_mandate_changes_nothing(fleet: MandateFleet, store: TrustStore) -> None:
    document, marks = fleet.mandate("b", 6, days=30), store.marks()
    for late in (days(30), days(400)):
        with pytest.raises(MetadataStale, match=r"the mandate ended on 2031-06-05|root ended on"):
            store.apply_mandate(document, JETSON, NOW + late)
    assert (store.marks(), store.mandate()) == (marks, None)
    assert store.apply_mandate(document, JETSON, NOW + days(29)).generation == 6
    with pytest.raises(MetadataStale):
        store.apply_mandate(document, JETSON, NOW + days(31))


@pytest.mark.attack("mandate under an expired root")
def test_a_mandate_under_an_expired_root_changes_nothing(fleet: MandateFleet, store: TrustStore) -> None:
    expires = NOW + days(400)
    late = altered(fleet.mandate("b", 6), fleet.mandate_key, expires=expires, fields={"issued": "2032-03-01T00:00:00Z"})
    with pytest.raises(MetadataStale, match="root ended on"):
        store.apply_mandate(late, JETSON, NOW + days(366))
    assert store.apply_mandate(fleet.mandate("b", 6), JETSON, NOW).generation == 6


@pytest.mark.attack("clock set back to revive a mandate")
def test_a_clock_set_back_revives_no_mandate(tmp_path: Path, fleet: MandateFleet, store: TrustStore) -> None:
    old = fleet.mandate("b", 6, days=30)
    fresh = fleet.store(tmp_path / "fresh.sqlite")
    assert fresh.apply_mandate(old, JETSON, NOW).generation == 6
    # What was signed later says that its time has come, so the old one's end has passed, whatever the clock says.
    later = NOW + days(80)
    fleet.image.refresh(later)
    assert store.apply_mandate(fleet.mandate("a", 5, issued=later), JETSON, later).generation == 5
    for clock in (NOW, NOW - days(3650)):
        with pytest.raises(MetadataStale):
            store.apply_mandate(old, JETSON, clock)


def test_a_clock_that_runs_wild_does_no_lasting_harm(fleet: MandateFleet, store: TrustStore) -> None:
    store.apply_mandate(fleet.mandate("b", 6, days=180), JETSON, NOW + days(179))
    assert store.marks().trusted_time < NOW + days(1)
    # Nor does a signer who writes a time to come.
    far = altered(fleet.mandate("c", 7), fleet.mandate_key, fields={"issued": "2031-07-01T00:00:00Z"})
    assert store.apply_mandate(far, JETSON, NOW).generation == 7
    assert store.marks().trusted_time < NOW + days(1)


@pytest.mark.attack("altered mandate")
def test_an_altered_mandate_is_refused(fleet: MandateFleet, store: TrustStore) -> None:
    honest = fleet.mandate("b", 6)
    harms: list[dict[str, Any]] = [
        {"fields": {"device_id": "mac-01"}},
        {"fields": {"generation": 7}},
        {"fields": {"device_id": None, "profile": "jetson"}},
        {"expires": NOW + days(170)},
        {"version": 7},
        {"targets": {}},
    ]
    for changes in harms:
        _refused(store, altered(honest, None, **changes), Reason.UNVERIFIED)
    assert store.apply_mandate(honest, JETSON, NOW).generation == 6


@pytest.mark.attack("mandate without a signature")
def test_an_unsigned_mandate_is_refused(fleet: MandateFleet, store: TrustStore) -> None:
    request = fleet.request("b", 6)
    _refused(store, request, Reason.UNVERIFIED)
    assert store.apply_mandate(mandates.sign(request, fleet.mandate_key), JETSON, NOW).generation == 6


@pytest.mark.attack("mandate signed by a stolen online or builder's key")
@pytest.mark.parametrize(
    "thief",
    ["image-snapshot", "image-timestamp", "image-targets", "image-root", "director-online", "director-root", "builder"],
)
def test_no_other_keys_signature_makes_a_mandate(fleet: MandateFleet, store: TrustStore, thief: str) -> None:
    honest = fleet.mandate("b", 6)
    key = fleet.builder.signer if thief == "builder" else fleet.key(thief)
    _refused(store, altered(honest, key), Reason.UNVERIFIED)
    assert store.apply_mandate(honest, JETSON, NOW).generation == 6


@pytest.mark.attack("director's word passed off as a mandate")
def test_a_directors_metadata_is_no_mandate(fleet: MandateFleet, store: TrustStore) -> None:
    honest = fleet.mandate("b", 6)
    papers = contract.parse(honest)
    _refused(store, replace(papers, mandate=fleet.sign("b", 6).targets).encode(), Reason.UNVERIFIED)
    _refused(store, replace(papers, mandate=papers.builder).encode(), Reason.UNVERIFIED)
    assert store.apply_mandate(honest, JETSON, NOW).generation == 6


@pytest.mark.attack("mandate by a removed mandate's key")
def test_a_removed_key_signs_no_mandates(fleet: MandateFleet, store: TrustStore) -> None:
    old, before = fleet.mandate("b", 6), fleet.mandate_key
    new = CryptoSigner.generate_ed25519()
    fleet.delegate(new)
    # A device that has not heard of it takes it still. Once it has, by the network or by a later mandate, it does not.
    later = fleet.mandate("c", 7, signer=new)
    _refused(store, altered(later, before), Reason.UNVERIFIED)
    assert store.apply_mandate(old, JETSON, NOW).generation == 6
    assert store.apply_mandate(later, JETSON, NOW).generation == 7
    _refused(store, altered(old, before, fields={"generation": 8}), Reason.UNVERIFIED)


@pytest.mark.attack("mandate that keeps a removed builder's list")
def test_a_removed_builders_list_is_no_use_to_a_mandate(fleet: MandateFleet, store: TrustStore) -> None:
    honest = fleet.mandate("b", 6)
    builder = fleet.builder.signer
    fleet.builder.signer = CryptoSigner.generate_ed25519()
    targets: Metadata[Targets] = Metadata.from_bytes(fleet.image.documents().targets)
    delegations = targets.signed.delegations
    assert delegations is not None
    assert delegations.roles is not None
    delegations.roles["builder"].keyids = [fleet.builder.public().keyid]
    del delegations.keys[builder.public_key.keyid]
    keys = {**delegations.keys, fleet.builder.public().keyid: fleet.builder.public()}
    signed = fleet.image._signed_targets(Delegations(keys, delegations.roles), targets.signed.version + 1, NOW)
    listed = fleet.image._sign_as_builder(Targets(9, expires=NOW + days(90), targets=_listed(honest)))
    fleet.image._advance(NOW, targets=signed, builder=listed)
    later = fleet.mandate("c", 7)
    assert store.apply_mandate(honest, JETSON, NOW).generation == 6
    assert store.apply_mandate(later, JETSON, NOW).generation == 7
    _refused(store, altered(honest, fleet.mandate_key, fields={"generation": 8}), Reason.UNVERIFIED)


def _listed(document: bytes) -> dict[str, TargetFile]:
    read: Metadata[Targets] = Metadata.from_bytes(contract.parse(document).builder)
    return dict(read.signed.targets)


@pytest.mark.attack("mandate for another profile")
def test_a_mandate_for_another_profile_is_refused(tmp_path: Path, fleet: MandateFleet, store: TrustStore) -> None:
    for_macs = altered(
        fleet.mandate("b", 9, profile="jetson"), fleet.mandate_key, fields={"profile": "mac"}, version=10
    )
    _refused(store, for_macs, Reason.OTHER_PROFILE)
    # Nothing was ever signed for this one, so no profile's mandate is for it.
    fresh = fleet.store(tmp_path / "fresh.sqlite")
    _refused(fresh, fleet.mandate("b", 9, profile="jetson"), Reason.OTHER_PROFILE)
    # A device that is to have nothing is of no profile any more.
    assert store.apply_mandate(fleet.mandate("b", 9, profile="jetson"), JETSON, NOW).generation == 9
    store.apply(fleet.answer(store, fleet.director.sign("jetson-01", desired(10, None), 10, NOW)), JETSON, NOW)
    _refused(store, fleet.mandate("b", 11, profile="jetson"), Reason.OTHER_PROFILE)


@pytest.mark.attack("profile's mandate that names another profile's release")
def test_a_profiles_mandate_names_a_release_of_that_profile(fleet: MandateFleet, store: TrustStore) -> None:
    honest = fleet.mandate("b", 6, profile="jetson")
    read: Metadata[Targets] = Metadata.from_bytes(contract.parse(honest).mandate)
    one = read.signed.targets[target("b").path]
    one.unrecognized_fields["custom"] = {**one.custom, "release": replace(release("b"), profile="mac").to_json()}
    _refused(store, altered(honest, fleet.mandate_key, targets=read.signed.targets), Reason.DISAGREEMENT)
    assert store.apply_mandate(honest, JETSON, NOW).generation == 6


@pytest.mark.attack("older mandate after a newer one")
def test_an_older_mandate_is_refused_after_a_newer_one(fleet: MandateFleet, store: TrustStore) -> None:
    first, second = fleet.mandate("b", 6), fleet.mandate("c", 7)
    assert store.apply_mandate(first, JETSON, NOW).release == release("b")
    assert store.apply_mandate(second, JETSON, NOW).release == release("c")
    _refused(store, first, Reason.GENERATION_LOWER)
    assert store.apply_mandate(second, JETSON, NOW).release == release("c")


@pytest.mark.attack("mandate below what the director gave since")
def test_a_mandate_is_refused_after_a_higher_generation_came_online(fleet: MandateFleet, store: TrustStore) -> None:
    document = fleet.mandate("b", 6)
    newer = fleet.director.sign("jetson-01", desired(7, "c"), 7, NOW)
    assert store.apply(fleet.answer(store, newer), JETSON, NOW).release == release("c")
    _refused(store, document, Reason.GENERATION_LOWER)
    assert store.apply_mandate(fleet.mandate("b", 8), JETSON, NOW).release == release("b")


@pytest.mark.attack("one generation, two mandates")
def test_one_generation_does_not_say_two_things(fleet: MandateFleet, store: TrustStore) -> None:
    assert store.apply_mandate(fleet.mandate("b", 6), JETSON, NOW).release == release("b")
    _refused(store, fleet.mandate("c", 6), Reason.GENERATION_REUSED)
    assert store.apply_mandate(fleet.mandate("b", 6, days=30), JETSON, NOW).release == release("b")


@pytest.mark.attack("mandate for an artifact that no builder listed")
def test_a_mandate_names_only_what_the_builder_listed(fleet: MandateFleet, store: TrustStore) -> None:
    honest = fleet.mandate("b", 6)
    evil = target("e")
    read: Metadata[Targets] = Metadata.from_bytes(contract.parse(honest).mandate)
    one = read.signed.targets[target("b").path]
    one.path, one.hashes = evil.path, {"sha256": evil.bundle}
    one.unrecognized_fields["custom"] = {"hw_class": evil.hw_class, "release": release("e").to_json()}
    _refused(store, altered(honest, fleet.mandate_key, targets={evil.path: one}), Reason.UNKNOWN_TARGET)
    assert store.apply_mandate(honest, JETSON, NOW).generation == 6


@pytest.mark.attack("mandate with another list than it was signed over")
def test_the_lists_in_the_file_are_those_that_were_signed_over(fleet: MandateFleet, store: TrustStore) -> None:
    honest = fleet.mandate("b", 6)
    fleet.image.publish([target("d")], NOW)
    fleet.delegate(fleet.mandate_key)
    newer = contract.parse(fleet.mandate("d", 7))
    _refused(store, replace(contract.parse(honest), builder=newer.builder).encode(), Reason.UNVERIFIED)
    _refused(store, replace(contract.parse(honest), targets=newer.targets).encode(), Reason.UNVERIFIED)
    # The same version with other bytes, by a thief of the builder's key.
    forged = resigned(contract.parse(honest).builder, fleet.builder.signer, targets=_with_evil(honest))
    _refused(store, replace(contract.parse(honest), builder=forged).encode(), Reason.UNVERIFIED)
    assert store.apply_mandate(honest, JETSON, NOW).generation == 6


def _with_evil(document: bytes) -> dict[str, TargetFile]:
    listed = _listed(document)
    return {**listed, target("e").path: listed[target("b").path]}


@pytest.mark.attack("mandate with older lists after the newer were lost")
def test_older_lists_are_refused_even_when_the_newer_were_lost(
    tmp_path: Path, fleet: MandateFleet, store: TrustStore
) -> None:
    document = fleet.mandate("b", 6)
    fleet.image.publish([target("d")], NOW)
    store.apply(fleet.answer(store, fleet.sign("a", 5)), JETSON, NOW)
    with _database(tmp_path) as other:
        other.execute("DELETE FROM trust_metadata")
    _refused(store, document, Reason.ROLLBACK)
    assert store.apply_mandate(fleet.mandate("b", 6), JETSON, NOW).generation == 6


@pytest.mark.attack("mandate for longer than any may last")
def test_a_mandate_lasts_180_days_and_no_longer(fleet: MandateFleet, store: TrustStore) -> None:
    honest = fleet.mandate("b", 6, days=180)
    key = fleet.mandate_key
    _refused(store, altered(honest, key, expires=NOW + days(182)), Reason.TOO_LONG)
    # Nor by lasting as long from now, having been issued before.
    _refused(store, altered(honest, key, fields={"issued": "2031-04-26T07:08:09Z"}), Reason.TOO_LONG)
    # Nor by claiming that it will be issued one day.
    ahead = altered(honest, key, expires=NOW + days(300), fields={"issued": "2031-09-01T00:00:00Z"})
    _refused(store, ahead, Reason.TOO_LONG)
    # A clock that is a day behind does no harm, one that is months behind is named as the cause.
    with pytest.raises(TrustRefused, match="clock is behind"):
        store.apply_mandate(fleet.mandate("b", 6, issued=NOW + days(60), days=180), JETSON, NOW)
    assert store.apply_mandate(honest, JETSON, NOW - days(0.5)).generation == 6


def test_lists_that_had_ended_when_it_was_issued_carry_no_mandate(fleet: MandateFleet, store: TrustStore) -> None:
    honest = fleet.mandate("b", 6, days=150)
    late = altered(honest, fleet.mandate_key, fields={"issued": "2031-08-14T07:08:09Z"})
    with pytest.raises(MetadataStale, match=r"targets ended on 2031-08-04; make it anew"):
        store.apply_mandate(late, JETSON, NOW + days(100))
    assert store.apply_mandate(honest, JETSON, NOW + days(100)).generation == 6


def test_a_mandate_names_one_target_delegates_to_nobody_and_means_its_lists(
    fleet: MandateFleet, store: TrustStore
) -> None:
    honest, key = fleet.mandate("b", 6), fleet.mandate_key
    _refused(store, altered(honest, key, targets={}), Reason.MALFORMED)
    _refused(store, altered(honest, key, delegations=Delegations({}, {})), Reason.MALFORMED)
    read: Metadata[Targets] = Metadata.from_bytes(contract.parse(honest).mandate)
    image = read.signed.unrecognized_fields["image"]
    other = {**image, "builder": {**image["builder"], "version": 9}}
    _refused(store, altered(honest, key, fields={"image": other}), Reason.UNVERIFIED)
    _refused(store, altered(honest, key, fields={"image": None}), Reason.MALFORMED)
    assert store.apply_mandate(honest, JETSON, NOW).generation == 6


@pytest.mark.attack("mandate for a release below the epoch that took traffic")
def test_a_mandate_does_not_go_below_the_epoch(fleet: MandateFleet, store: TrustStore) -> None:
    fleet.image.publish([target("d", epoch=2)], NOW)
    document = fleet.mandate("b", 6)
    assert store.apply_mandate(document, JETSON, NOW).generation == 6
    store.activated(target("d", epoch=2))
    _refused(store, document, Reason.EPOCH_LOWER)


def test_a_mandate_for_other_hardware_is_refused(fleet: MandateFleet, store: TrustStore) -> None:
    document = fleet.mandate("b", 6)
    with pytest.raises(TrustRefused) as refused:
        store.apply_mandate(document, JETSON, NOW, accepted_hw_classes={"gguf-cuda"})
    assert refused.value.reason is Reason.WRONG_HARDWARE
    assert store.apply_mandate(document, JETSON, NOW, accepted_hw_classes={"gguf-cpu"}).generation == 6


@pytest.mark.attack("mandate under a forged root")
def test_a_forged_root_carries_no_mandate(fleet: MandateFleet, store: TrustStore) -> None:
    honest = fleet.mandate("b", 6)
    papers, thief = contract.parse(honest), CryptoSigner.generate_ed25519()
    forged = rotated(papers.roots[0], thief, {"root": thief, "targets": thief})
    targets = resigned(papers.targets, thief)
    _refused(store, replace(papers, roots=(*papers.roots, forged), targets=targets).encode(), Reason.UNVERIFIED)
    _refused(store, replace(papers, roots=(forged,), targets=targets).encode(), Reason.UNVERIFIED)
    assert store.apply_mandate(honest, JETSON, NOW).generation == 6


def test_a_targets_key_that_a_newer_root_removed_carries_no_mandate(fleet: MandateFleet, store: TrustStore) -> None:
    honest = fleet.mandate("b", 6)
    papers, new = contract.parse(honest), CryptoSigner.generate_ed25519()
    root = rotated(papers.roots[0], fleet.key("image-root"), {"targets": new})
    _refused(store, replace(papers, roots=(papers.roots[0], root)).encode(), Reason.UNVERIFIED)
    assert store.apply_mandate(honest, JETSON, NOW).generation == 6


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"\x08\x01", b"\x08\x02", b"\xff" * 100, b"[" * 10_000])
def test_rubbish_is_refused(store: TrustStore, rubbish: bytes) -> None:
    _refused(store, rubbish, Reason.MALFORMED)


@pytest.mark.parametrize("part", ["mandate", "targets", "builder", "roots"])
@pytest.mark.parametrize("rubbish", [b"{}", b"[" * 10_000, b"null", b'{"signed": {"_type": "root"}}'])
def test_rubbish_in_a_mandate_is_refused(fleet: MandateFleet, store: TrustStore, part: str, rubbish: bytes) -> None:
    papers = contract.parse(fleet.mandate("b", 6))
    parts: dict[str, Any] = {part: (*papers.roots, rubbish) if part == "roots" else rubbish}
    bad = replace(papers, **parts)
    _refused(store, bad.encode(), Reason.UNVERIFIED)


@pytest.mark.attack("endless mandate")
def test_a_mandate_that_is_too_large_is_refused_before_it_is_parsed(fleet: MandateFleet, store: TrustStore) -> None:
    honest = fleet.mandate("b", 6)
    _refused(store, honest + b" " * (16 << 20), Reason.MALFORMED)
    assert store.apply_mandate(honest, JETSON, NOW).generation == 6
