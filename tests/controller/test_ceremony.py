"""Keys in people's hands, and other keys after them: every role, also after a theft, with devices that slept meanwhile.

The devices are real: their trust stores read what the controller's repositories hand out.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata

from edgewright_agent.trust import MetadataStale, Repository, TrustRefused
from edgewright_agent.trust_store import TrustStore
from edgewright_contract import durable
from edgewright_controller.director import Director, DirectorMetadata
from edgewright_controller.publish import (
    ImageRepository,
    PublishError,
    builder_signer,
    ceremony,
    holders,
    keys,
    metadata,
)
from edgewright_controller.publish.builder import BuilderProcess
from edgewright_controller.publish.ceremony import Repositories
from edgewright_controller.publish.holders import Holder
from edgewright_controller.publish.signing_request import SigningRequest, check, collected, decode, describe
from edgewright_controller.publish.succession import changed_holders, present_threshold
from edgewright_controller.sealed import SealedError
from tests.agent.trust_fleet import DAY, JETSON, NOW, Files, chained, desired, of, release
from tests.controller.signed_things import target

IMAGE, DIRECTOR = Repository.IMAGE, Repository.DIRECTOR


class BuilderHere(BuilderProcess):
    """The builder's signer in this process, at the fleet's time."""

    def __init__(self, folder: Path, clock: Callable[[], datetime]) -> None:
        super().__init__(folder)
        self._folder, self._clock = folder, clock

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        return builder_signer.answer(request, self._folder, self._clock())


class Offline:
    """A fleet whose roots and targets are held by alice, bob and carol, two of whom must sign."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now = folder, NOW
        self.open()
        self.image.publish([target(mark) for mark in "ab"], NOW)
        self.first = (self.image.first_root, self.director.first_root)
        self.people = {name: holders.new(name, "demo") for name in ("alice", "bob", "carol")}
        asked = ceremony.request(
            self.repositories, why="offline", now=NOW, holders=[one.public for one in self.people.values()]
        )
        ceremony.publish(self.repositories, self.signed(asked, "alice", "bob"), NOW)

    def open(self) -> None:
        """As a controller does at its start."""
        self.image = ImageRepository.open(
            self.folder / "image",
            self.folder / "keys",
            self.now,
            builder=BuilderHere(self.folder / "keys" / "builder", lambda: self.now),
        )
        self.director = Director.open(self.folder / "director", self.folder / "keys", "demo", self.now)
        self.repositories = Repositories("demo", self.image, self.director)

    def signed(self, request: SigningRequest, *names: str) -> SigningRequest:
        for name in names:
            request, _ = request.signed_by(self.people[name])
        return request

    def rotate(self, *roles: str, by: Sequence[str] = ("alice", "bob")) -> None:
        """Other keys for these roles, or a renewal."""
        asked = ceremony.request(self.repositories, why="rotation", now=self.now, roles=roles)
        ceremony.publish(self.repositories, self.signed(asked, *by), self.now)

    def device(self, name: str) -> TrustStore:
        return TrustStore.create(self.folder / f"{name}.sqlite", *self.first, not_before=NOW - DAY)

    def sign(self, mark: str, version: int) -> DirectorMetadata:
        return self.director.sign("jetson-01", desired(version, mark), version, self.now)

    def answer(self, store: TrustStore, signed: DirectorMetadata) -> Files:
        held: dict[Repository, dict[str, int]] = {repository: {} for repository in Repository}
        for each in store.held():
            held[each.repository][each.role] = each.version
        return of(IMAGE, self.image.files(held[IMAGE])) | of(DIRECTOR, self.director.files(signed, held[DIRECTOR]))

    def update(self, store: TrustStore, mark: str, version: int) -> None:
        """A check-in that gives the device another artifact."""
        given = store.apply(self.answer(store, self.sign(mark, version)), JETSON, self.now)
        assert given.release == release(mark)

    def key(self, name: str) -> CryptoSigner:
        """A key file as a thief copies it."""
        return keys.load(self.folder / "keys" / f"{name}.pem")


@pytest.fixture
def fleet(tmp_path: Path) -> Offline:
    return Offline(tmp_path)


def refused(store: TrustStore, files: Files, now: datetime = NOW) -> None:
    """Nothing of it is believed, and the device goes on with what it has."""
    before = store.apply({}, JETSON, now)
    marks = store.marks()
    with pytest.raises(TrustRefused):
        store.apply(files, JETSON, now)
    assert store.marks() == marks
    assert store.apply({}, JETSON, now) == before


def test_devices_follow_when_the_keys_go_to_people(fleet: Offline) -> None:
    store = fleet.device("d")
    fleet.update(store, "a", 1)
    assert fleet.repositories.controller_as_holder().signers == {}
    assert [path.name for path in ceremony.forget_online_keys(fleet.repositories)] == [
        "image-root.pem",
        "image-targets.pem",
        "director-root.pem",
        "image-mandate.pem",
    ]
    fleet.open()
    fleet.image.publish([target("c")], NOW)
    fleet.update(store, "c", 2)
    fleet.now = NOW + 60 * DAY
    fleet.image.refresh(fleet.now)
    assert fleet.image.targets.signed.version == 2, "what people sign is not renewed without them"


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "director", "builder"])
def test_each_online_role_gets_another_key_while_a_device_sleeps(fleet: Offline, role: str) -> None:
    awake, asleep = fleet.device("awake"), fleet.device("asleep")
    fleet.update(awake, "a", 1)
    fleet.update(asleep, "a", 1)
    for version in (2, 3):
        fleet.rotate(role)
        fleet.update(awake, "ab"[version % 2], version)
    fleet.open()
    fleet.image.publish([target("c")], NOW)
    fleet.update(asleep, "c", 4)
    fleet.update(awake, "c", 4)


def _chain(fleet: Offline, signers: Mapping[str, CryptoSigner], version: int, listed: bytes) -> Files:
    """A thief's snapshot and timestamp over a list of artifacts."""
    return chained(IMAGE, fleet.image.targets.data, {"builder": listed}, signers=dict(signers), version=version)


def _listed(fleet: Offline) -> bytes:
    return next(data for name, data in fleet.image.files({}) if name.endswith("builder.json"))


@pytest.mark.attack("stolen snapshot and timestamp keys, after their rotation")
def test_stolen_snapshot_and_timestamp_keys_are_worthless_after_the_rotation(fleet: Offline) -> None:
    store = fleet.device("d")
    fleet.update(store, "a", 1)
    stolen = {role: fleet.key(f"image-{role}") for role in ("snapshot", "timestamp")}
    far = _chain(fleet, stolen, 2**40, _listed(fleet))
    assert store.apply(far, JETSON, NOW).release == release("a"), "while the keys are good, the thief raises versions"
    fleet.rotate("snapshot", "timestamp")
    fleet.update(store, "b", 2)
    refused(store, _chain(fleet, stolen, 2**41, _listed(fleet)))
    fleet.update(store, "a", 3)


@pytest.mark.attack("fast-forward by a stolen director key, and recovery")
def test_a_stolen_director_key_is_worthless_after_the_rotation(fleet: Offline) -> None:
    store = fleet.device("d")
    fleet.update(store, "a", 1)
    thief = Director.open(fleet.folder / "director", _copied(fleet), "demo", NOW)
    ahead = thief.sign("jetson-01", desired(2, "b"), 2**40, NOW)
    assert store.apply(of(DIRECTOR, thief.files(ahead, {})), JETSON, NOW).release == release("b")
    fleet.rotate("director")
    assert fleet.director.needs_new(ahead, desired(2, "b"), NOW), "what the old key signed is signed anew"
    fleet.update(store, "a", 3)
    later = thief.sign("jetson-01", desired(9, "b"), 2**41, NOW)
    refused(store, of(DIRECTOR, thief.files(later, {})))


def _copied(fleet: Offline) -> Path:
    """All online keys, as a thief copies them."""
    return Path(shutil.copytree(fleet.folder / "keys", fleet.folder / "stolen"))


@pytest.mark.attack("stolen builder key, after its rotation")
def test_a_stolen_builder_key_is_worthless_after_the_rotation(fleet: Offline) -> None:
    store = fleet.device("d")
    fleet.update(store, "a", 1)
    stolen = _copied(fleet) / "builder"
    fleet.rotate("builder")
    fleet.image.publish([target("c")], NOW)
    fleet.update(store, "c", 2)
    # The thief has everything that is online, and the old builder's key.
    listed: Metadata[Any] = Metadata.from_bytes(_listed(fleet))
    evil = target("e")
    listed.signed.targets[evil.path] = metadata.target_file(evil, evil.custom)
    listed.signed.version += 1
    listed.signatures.clear()
    listed.sign(keys.load(stolen / "builder.pem"))
    online = {role: fleet.key(f"image-{role}") for role in ("snapshot", "timestamp")}
    wanted = fleet.director.sign("jetson-01", desired(3, "e"), 3, NOW)
    files = _chain(fleet, online, 99, listed.to_bytes()) | of(DIRECTOR, fleet.director.files(wanted, {}))
    refused(store, files)


@pytest.mark.attack("one stolen holder of two that must sign")
def test_one_holder_alone_moves_nothing(fleet: Offline) -> None:
    store = fleet.device("d")
    fleet.update(store, "a", 1)
    asked = ceremony.request(fleet.repositories, why="theft", now=NOW, roles=["snapshot"])
    alone = fleet.signed(asked, "alice", "alice")
    with pytest.raises(PublishError, match=r"signatures are missing .image-root: 1 more for the present root"):
        ceremony.publish(fleet.repositories, alone, NOW)
    root = next(change.next for change in alone.changes if change.subject == "image-root")
    refused(store, {(IMAGE, "3.root.json"): root})
    ceremony.publish(fleet.repositories, fleet.signed(alone, "carol"), NOW)
    fleet.update(store, "b", 2)


@pytest.mark.attack("root keys that were online, after the ceremony")
def test_the_roots_former_key_is_worthless_after_the_ceremony(fleet: Offline) -> None:
    store = fleet.device("d")
    fleet.update(store, "a", 1)
    former = fleet.key("image-root")
    second = Metadata.from_bytes(fleet.image.roots.newest)
    second.signed.version = 3
    second.signatures.clear()
    second.sign(former)
    refused(store, {(IMAGE, "3.root.json"): second.to_bytes()})


@pytest.mark.attack("a holder who left signs on")
def test_a_holder_who_left_signs_nothing_any_more(fleet: Offline) -> None:
    store = fleet.device("d")
    fleet.update(store, "a", 1)
    dave = holders.new("dave", "demo")
    people = changed_holders(fleet.repositories.standing(), [dave.public], ["alice"])
    assert [one.name for one in people] == ["bob", "carol", "dave"]
    asked = ceremony.request(fleet.repositories, why="alice leaves", now=NOW, holders=people)
    fleet.people["dave"] = dave
    # The new root counts the old holders and the new ones.
    with pytest.raises(PublishError, match="1 more for the new root"):
        ceremony.publish(fleet.repositories, fleet.signed(asked, "alice", "bob"), NOW)
    ceremony.publish(fleet.repositories, fleet.signed(asked, "alice", "bob", "dave"), NOW)
    fleet.update(store, "b", 2)
    following = ceremony.request(fleet.repositories, why="renewal", now=NOW)
    with pytest.raises(PublishError, match="no key of alice is asked for"):
        fleet.signed(following, "alice")
    ceremony.publish(fleet.repositories, fleet.signed(following, "carol", "dave"), NOW)
    fleet.update(store, "a", 3)


def test_a_device_that_slept_through_years_of_ceremonies_walks_through_all_roots(fleet: Offline) -> None:
    store = fleet.device("d")
    fleet.update(store, "a", 1)
    for round_, pair in enumerate((("alice", "bob"), ("bob", "carol"), ("alice", "carol")), start=1):
        fleet.now = NOW + round_ * 60 * DAY
        fleet.rotate("snapshot", "director", by=pair)
        fleet.open()
        fleet.image.refresh(fleet.now)
    given = store.apply(fleet.answer(store, fleet.sign("b", 2)), JETSON, fleet.now)
    assert given.release == release("b")


def test_expired_roots_block_changes_and_the_ceremony_cures_it(fleet: Offline) -> None:
    store = fleet.device("d")
    fleet.update(store, "a", 1)
    fleet.now = NOW + 400 * DAY
    fleet.open()
    fleet.image.refresh(fleet.now - timedelta(days=370))
    with pytest.raises(MetadataStale):
        store.apply(fleet.answer(store, fleet.sign("b", 2)), JETSON, fleet.now)
    fleet.rotate()
    fleet.image.refresh(fleet.now)
    fleet.update(store, "b", 2)


class PowerCut(Exception):
    """The process ends here."""


@dataclass
class Cut:
    """Ends the process's writing after some files."""

    left: int

    def write(self, path: Path, data: bytes, *, mode: int = 0o644) -> None:
        if not self.left:
            raise PowerCut
        self.left -= 1
        real_write(path, data, mode=mode)


real_write = durable.write


@pytest.mark.parametrize("left", range(8))
def test_a_rotation_that_was_cut_off_anywhere_is_made_good(
    fleet: Offline, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    store = fleet.device("d")
    fleet.update(store, "a", 1)
    roles = ("snapshot", "timestamp", "director", "builder")
    asked = ceremony.request(fleet.repositories, why="rotation", now=NOW, roles=roles)
    signed = fleet.signed(asked, "alice", "bob")
    with monkeypatch.context() as patch, contextlib.suppress(PowerCut):
        patch.setattr("edgewright_contract.durable.write", Cut(left).write)
        ceremony.publish(fleet.repositories, signed, NOW)
    fleet.open()
    fleet.update(store, "b", 2)
    ceremony.publish(fleet.repositories, signed, NOW)
    fleet.open()
    fleet.image.publish([target("c")], NOW)
    fleet.update(store, "c", 3)
    versions = [fleet.image.roots.current.version, fleet.director.roots.current.version]
    assert versions == [3, 3]


@pytest.mark.attack("a prepared key that was copied, after its request was abandoned")
@pytest.mark.parametrize("role", ["snapshot", "timestamp", "director", "builder"])
def test_a_request_made_again_has_another_key_and_the_first_changes_nothing(fleet: Offline, role: str) -> None:
    first = ceremony.request(fleet.repositories, why="abandoned", now=NOW, roles=[role])
    second = ceremony.request(fleet.repositories, why="after a theft", now=NOW, roles=[role])
    assert [one.proposed for one in first.changes] != [one.proposed for one in second.changes]
    before = {path: path.read_bytes() for path in fleet.folder.rglob("*") if path.is_file()}
    with pytest.raises(PublishError, match="make a new request"):
        ceremony.publish(fleet.repositories, fleet.signed(first, "alice", "bob"), NOW)
    assert before == {path: path.read_bytes() for path in fleet.folder.rglob("*") if path.is_file()}
    ceremony.publish(fleet.repositories, fleet.signed(second, "alice", "bob"), NOW)
    fleet.open()


def test_as_many_holders_sign_as_before_when_nobody_says_otherwise(fleet: Offline) -> None:
    assert present_threshold(fleet.repositories.standing()) == 2
    people = [one.public for one in fleet.people.values()]
    asked = ceremony.request(fleet.repositories, why="three", now=NOW, holders=people, threshold=3)
    ceremony.publish(fleet.repositories, fleet.signed(asked, *fleet.people), NOW)
    assert present_threshold(fleet.repositories.standing()) == 3


def _changed(request: SigningRequest, subject: str, **changes: object) -> SigningRequest:
    """The request with one document's content changed, without its signatures."""
    done = []
    for change in request.changes:
        read: Metadata[Any] = Metadata.from_bytes(change.next)
        if change.subject == subject:
            for name, value in changes.items():
                setattr(read.signed, name, value)
            read.signatures.clear()
        done.append(replace(change, next=read.to_bytes()))
    return replace(request, changes=tuple(done))


def _with_threshold(root: Any) -> None:
    root.roles["root"].threshold = 1


def _for_ever(root: Any) -> None:
    root.expires = NOW + 900 * DAY


def _lists_an_artifact(targets: Any) -> None:
    evil = target("e")
    targets.targets[evil.path] = metadata.target_file(evil, evil.custom)


def _widens(targets: Any) -> None:
    targets.delegations.roles["mandate"].paths = ["models/*/*/*"]


def _says_more(targets: Any) -> None:
    targets.unrecognized_fields["note"] = "x"


@pytest.mark.attack("a signing request that asks for more than it shows")
@pytest.mark.parametrize(
    ("subject", "change", "message"),
    [
        ("image-root", _for_ever, "it would be good until 2033-.*at most 365 days are signed"),
        ("image-targets", _lists_an_artifact, "changes more than keys"),
        ("image-targets", _widens, "changes more than keys"),
        ("image-targets", _says_more, "changes more than keys"),
    ],
)
def test_a_request_that_no_honest_controller_makes_is_not_for_signing(
    fleet: Offline, subject: str, change: Callable[[Any], None], message: str
) -> None:
    asked = ceremony.request(fleet.repositories, why="renewal", now=NOW)
    check(asked, NOW)
    bad = []
    for one in asked.changes:
        read: Metadata[Any] = Metadata.from_bytes(one.next)
        if one.subject == subject:
            change(read.signed)
        bad.append(replace(one, next=read.to_bytes()))
    with pytest.raises(PublishError, match=message):
        check(replace(asked, changes=tuple(bad)), NOW)
    with pytest.raises(PublishError, match=message):
        ceremony.publish(fleet.repositories, fleet.signed(replace(asked, changes=tuple(bad)), "alice", "bob"), NOW)


@pytest.mark.attack("a signing request with a forged account of what stands")
def test_what_stands_must_vouch_for_itself(fleet: Offline) -> None:
    """A lower threshold is shown as a change; a request that claims it stood before would show none."""
    asked = ceremony.request(fleet.repositories, why="renewal", now=NOW)
    forged = []
    for one in asked.changes:
        now, then = Metadata.from_bytes(one.now), Metadata.from_bytes(one.next)
        if one.subject == "image-root":
            _with_threshold(now.signed)
            _with_threshold(then.signed)
        forged.append(replace(one, now=now.to_bytes(), next=then.to_bytes()))
    with pytest.raises(PublishError, match="image-root: what stands now, by this request, nobody has signed"):
        check(replace(asked, changes=tuple(forged)), NOW)
    honest = [
        replace(one, next=changed.next) if one.subject == "image-root" else one
        for one, changed in zip(asked.changes, forged, strict=True)
    ]
    shown = describe(replace(asked, changes=tuple(honest)))
    assert any(line.startswith("  root: 2 of alice") and "→ 1 of alice" in line for line in shown)


def _one_alone(root: Any) -> None:
    root.roles["root"].threshold = 1


def _strangers_key(root: Any) -> None:
    """Beside the holders', and nobody's."""
    own = CryptoSigner.generate_ed25519().public_key
    root.roles["root"].keyids.append(own.keyid)
    root.keys[own.keyid] = own


def _key_by_anothers_id(root: Any) -> None:
    """The thief's key under the id and the name of a holder's: it would be shown as no change."""
    taken = root.roles["targets"].keyids[0]
    known, own = root.keys[taken], CryptoSigner.generate_ed25519().public_key
    root.keys[taken] = SSlibKey(taken, own.keytype, own.scheme, own.keyval, dict(known.unrecognized_fields))


def _takes_the_host_its_key(root: Any) -> None:
    root.roles["snapshot"].keyids = [root.roles["targets"].keyids[0]]


@pytest.mark.attack("a signing request that gives a thief's key a holder's id")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_key_by_anothers_id, "which is not its id"),
        (_one_alone, "1 holder alone would sign root"),
        (_strangers_key, "keys of nobody"),
        (_takes_the_host_its_key, "snapshot signs online with one key"),
    ],
)
def test_keys_are_what_they_are_called_and_holders_stay_two(
    fleet: Offline, change: Callable[[Any], None], message: str
) -> None:
    asked = ceremony.request(fleet.repositories, why="renewal", now=NOW)
    check(asked, NOW)
    first, *others = asked.changes
    read: Metadata[Any] = Metadata.from_bytes(first.next)
    change(read.signed)
    bad = replace(asked, changes=(replace(first, next=read.to_bytes()), *others))
    with pytest.raises(PublishError, match=message):
        check(bad, NOW)


@pytest.mark.attack("a signing request that moves the cursor of a holder's terminal")
def test_a_requests_words_hide_nothing(fleet: Offline) -> None:
    asked = ceremony.request(fleet.repositories, why="renewal", now=NOW)
    shown = describe(replace(asked, why="renewal\x1b[8m\r\nfleet demo"))
    assert shown[0] == "fleet demo: renewal?[8m??fleet demo"
    assert all(line.isprintable() for line in shown)
    assert any(line.startswith("  targets: stays with 2 of alice") for line in shown)


def test_what_is_wrong_with_a_request_is_said_and_changes_nothing(fleet: Offline) -> None:
    asked = ceremony.request(fleet.repositories, why="renewal", now=NOW)
    good = fleet.signed(asked, "alice", "bob")
    assert decode(good.encode()) == good
    apart = collected([fleet.signed(asked, "alice"), fleet.signed(asked, "bob")])
    assert not apart.missing
    before = fleet.repositories.standing()
    stranger = holders.new("eve", "demo")
    for bad, message in (
        (lambda: fleet.signed(replace(asked, fleet="other"), "alice"), "is of fleet 'other', and the keys"),
        (lambda: asked.signed_by(stranger), "no key of eve is asked for"),
        (lambda: ceremony.publish(fleet.repositories, replace(good, fleet="other"), NOW), "is of fleet 'other'"),
        (lambda: ceremony.publish(fleet.repositories, asked, NOW), "signatures are missing"),
        (lambda: decode(b"{"), "not a signing request"),
        (lambda: decode(_changed(good, "image-root", version=9).encode()), "version 9 does not follow version 2"),
        (lambda: collected([good, ceremony.request(fleet.repositories, why="", now=NOW + DAY)]), "not copies"),
        (lambda: ceremony.request(fleet.repositories, why="", now=NOW, roles=["root"]), "'root' is no role"),
    ):
        with pytest.raises(PublishError, match=message):
            bad()
    assert fleet.repositories.standing() == before
    ceremony.publish(fleet.repositories, good, NOW)
    fleet.rotate()
    with pytest.raises(PublishError, match="it was asked for earlier: make a new request"):
        ceremony.publish(fleet.repositories, good, NOW)


@pytest.mark.parametrize("side", ["now", "next"])
@pytest.mark.parametrize("subject", ["image-root", "director-root", "image-targets"])
def test_a_request_that_names_a_key_which_it_does_not_hold_is_none(fleet: Offline, subject: str, side: str) -> None:
    document = json.loads(ceremony.request(fleet.repositories, why="renewal", now=NOW).encode())
    assert decode(json.dumps(document).encode()).missing
    signed = next(one for one in document["changes"] if one["subject"] == subject)[side]["signed"]
    holder = signed["delegations"] if subject == "image-targets" else signed
    holder["keys"].pop(next(iter(holder["keys"])))
    with pytest.raises(PublishError, match=rf"{subject}: .* is with a key '.*' that it does not hold"):
        decode(json.dumps(document).encode())


def test_a_holders_file_opens_by_its_passphrase_only(tmp_path: Path) -> None:
    made: Holder = holders.new("alice", "demo")
    content = holders.encode(made, "correct horse battery")
    opened = holders.decode(content, "correct horse battery")
    assert {duty: one.public_key for duty, one in opened.signers.items()} == dict(made.public.keys)
    assert b"PRIVATE" not in content
    with pytest.raises(SealedError, match="the passphrase is another one, or the file was changed"):
        holders.decode(content, "correct horse batterz")
    with pytest.raises(SealedError, match="the passphrase is another one, or the file was changed"):
        holders.decode(content.replace(b'"demo"', b'"deme"'), "correct horse battery")
    with pytest.raises(SealedError, match="too short; use at least 12"):
        holders.encode(made, "short")
    with pytest.raises(SealedError, match="out of bounds"):
        holders.decode(content.replace(b'"cost": 131072', b'"cost": 1073741824'), "correct horse battery")
    with pytest.raises(PublishError, match="public keys of a holder only"):
        holders.decode(holders.encode_public(made.public), "")
    assert holders.decode_public(holders.encode_public(made.public)) == made.public
