"""A fleet's two real repositories and what their thieves can do, for the tests of a device's trust."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from edgewright_agent.trust import Repository
from edgewright_agent.trust_store import TrustStore
from edgewright_contract.release import Probe, Release
from edgewright_controller.director import Desired, Director, DirectorMetadata
from edgewright_controller.publish import ImageRepository, keys, metadata
from tests.controller.signed_things import KeyInHand, target

# Far from the machine's clock, so that a test fails if anything judges by that.
NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=timezone.utc)
DAY = timedelta(days=1)

Files = dict[tuple[Repository, str], bytes]


@dataclass(frozen=True)
class Someone:
    """Who a device is."""

    device: str = "jetson-01"
    fleet: str = "demo"


JETSON, MAC = Someone(), Someone("mac-01")


def release(mark: str) -> Release:
    """The release of `target(mark)`."""
    return Release("smollm2", "jetson", "gguf", mark * 64, "cpu", 1 << 30, {}, (Probe("hi", "Say hello."),))


def desired(generation: int, mark: str | None) -> Desired:
    """The release of this mark, or nothing, at this generation."""
    return Desired(generation, release(mark), target(mark)) if mark else Desired(generation)


class Fleet:
    """Both repositories of one controller, with the artifacts a, b and c published."""

    def __init__(self, folder: Path, fleet: str = "demo", now: datetime = NOW):
        self.keys = folder / "keys"
        self.builder = KeyInHand()
        self.image = ImageRepository.open(folder / "image", self.keys, now, builder=self.builder)
        self.director = Director.open(folder / "director", self.keys, fleet, now)
        self.image.publish([target(mark) for mark in "abc"], now)

    def key(self, name: str) -> CryptoSigner:
        """A key file, as whoever steals it has it: "image-timestamp", "director-online"…"""
        return keys.signer(self.keys / f"{name}.pem")

    def store(self, path: Path) -> TrustStore:
        """A newly enrolled device's store."""
        return TrustStore.create(path, self.image.first_root, self.director.first_root, not_before=NOW - DAY)

    def answer(self, store: TrustStore, signed: DirectorMetadata) -> Files:
        """What a check-in would answer to the device of `store`."""
        held: dict[Repository, dict[str, int]] = {repository: {} for repository in Repository}
        for each in store.held():
            held[each.repository][each.role] = each.version
        image = self.image.files(held[Repository.IMAGE])
        director = self.director.files(signed, held[Repository.DIRECTOR])
        return of(Repository.IMAGE, image) | of(Repository.DIRECTOR, director)

    def everything(self, signed: DirectorMetadata) -> Files:
        """All that there is, whatever a device holds."""
        return of(Repository.IMAGE, self.image.files({})) | of(Repository.DIRECTOR, self.director.files(signed, {}))

    def sign(
        self, mark: str | None, version: int, *, device: str = "jetson-01", now: datetime = NOW
    ) -> DirectorMetadata:
        """The director's word for a device; the generation is the version."""
        return self.director.sign(device, desired(version, mark), version, now)


def of(repository: Repository, files: Iterable[tuple[str, bytes]]) -> Files:
    """The files, as those of `repository`."""
    return {(repository, name): content for name, content in files}


def resigned(content: bytes, signer: CryptoSigner, **changes: Any) -> bytes:
    """Metadata with some of what is signed changed, signed by `signer` alone."""
    read: Metadata[Any] = Metadata.from_bytes(content)
    for name, value in changes.items():
        setattr(read.signed, name, value)
    read.signatures.clear()
    read.sign(signer)
    return read.to_bytes()


def chained(
    repository: Repository,
    targets: bytes,
    others: dict[str, bytes],
    *,
    signers: dict[str, CryptoSigner],
    version: int,
) -> Files:
    """Snapshot and timestamp of this version over targets and `others` (role → content), each named rightly."""
    pieces = {"targets": targets, **others}
    meta = {}
    files: Files = {}
    for role, content in pieces.items():
        read: Metadata[Targets] = Metadata.from_bytes(content)
        piece = metadata.Piece(read.signed, content)
        meta[f"{role}.json"] = piece.meta
        files[repository, f"{piece.version}.{role}.json"] = content
    expires = NOW + DAY
    snapshot = metadata.sign(Snapshot(version, expires=expires, meta=meta), signers["snapshot"])
    timestamp = metadata.sign(Timestamp(version, expires=expires, snapshot_meta=snapshot.meta), signers["timestamp"])
    files[repository, f"{version}.snapshot.json"] = snapshot.data
    files[repository, "timestamp.json"] = timestamp.data
    return files


def rotated(content: bytes, root: CryptoSigner, replaced: dict[str, CryptoSigner]) -> bytes:
    """The next root after `content`, in which these roles have new keys."""
    read: Metadata[Root] = Metadata.from_bytes(content)
    for role, signer in replaced.items():
        for keyid in list(read.signed.roles[role].keyids):
            read.signed.revoke_key(keyid, role)
        read.signed.add_key(signer.public_key, role)
    read.signed.version += 1
    read.signatures.clear()
    read.sign(root)
    return read.to_bytes()
