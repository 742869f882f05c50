"""The image repository on disk: root, targets, the delegated role builder, snapshot, timestamp.

The second delegated role, mandate, signs nothing that stands here: see `mandates`.

A publication writes builder, snapshot and timestamp, each by the write rule and in this order. The timestamp is what
makes it visible: after a crash in between, the older repository stands as it was, and the next publication
writes over the leftovers. Readers see one consistent state at a time.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from edgewright_contract import durable
from edgewright_contract.mandate import PATHS
from edgewright_contract.mandate import ROLE as MANDATE
from edgewright_contract.targets import BUILDER, FOLDERS, ImageTarget
from edgewright_controller.publish import keys, metadata
from edgewright_controller.publish.builder import Builder, BuilderProcess
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.metadata import Piece
from edgewright_controller.publish.roots import Roots

TARGETS_LIFE: Final = timedelta(days=90)
SNAPSHOT_LIFE: Final = timedelta(days=7)
TIMESTAMP_LIFE: Final = timedelta(days=1)
# The whole metadata travels in one check-in's answer, which gRPC bounds at 4 MiB.
MAX_BUILDER_BYTES: Final = 3 << 20
_ROLES: Final = ("root", "targets", "snapshot", "timestamp")
_OLD: Final = re.compile(r"[0-9]+\.(snapshot|targets|builder)\.json")


@dataclass(frozen=True)
class Documents:
    """One consistent state as it was signed, for those who will have nobody to ask. `roots`: from version 1 on."""

    roots: tuple[bytes, ...]
    targets: bytes
    builder: bytes


@dataclass(frozen=True)
class _State:
    """One consistent repository, without its roots."""

    targets: Piece[Targets]
    builder: Piece[Targets]
    snapshot: Piece[Snapshot]
    timestamp: Piece[Timestamp]

    def files(self) -> dict[str, tuple[str, bytes]]:
        """Role → (file name, content), in the order in which a client asks."""
        return {
            "timestamp": ("timestamp.json", self.timestamp.data),
            "snapshot": (f"{self.snapshot.version}.snapshot.json", self.snapshot.data),
            "targets": (f"{self.targets.version}.targets.json", self.targets.data),
            BUILDER: (f"{self.builder.version}.{BUILDER}.json", self.builder.data),
        }

    def versions(self) -> dict[str, int]:
        """Role → version."""
        return {
            "timestamp": self.timestamp.version,
            "snapshot": self.snapshot.version,
            "targets": self.targets.version,
            BUILDER: self.builder.version,
        }


class ImageRepository:
    """What may exist. `open` makes one; safe to use from several threads."""

    def __init__(self, folder: Path, builder: Builder, roots: Roots):
        self._folder, self._builder, self.roots = folder, builder, roots
        self._lock = threading.Lock()
        self._state: _State

    @classmethod
    def open(cls, folder: Path, keys_folder: Path, now: datetime, *, builder: Builder | None = None) -> ImageRepository:
        """The repository in `folder`, made when absent; keys in `keys_folder`, the builder's in `builder/` below it.

        Raises PublishError when a key or a file is lost or damaged, OSError.
        """
        files = {role: keys_folder / f"image-{role}.pem" for role in _ROLES}
        roots = Roots.open(folder, files, now)
        opened = cls(folder, builder or BuilderProcess(keys_folder / "builder"), roots)
        if (folder / "timestamp.json").exists():
            opened._state = opened._read(now)
        else:
            mandate = keys.signer(keys_folder / "image-mandate.pem", of=folder / "timestamp.json")
            opened._state = opened._first(mandate.public_key, now)
        opened._sweep()
        return opened

    @property
    def first_root(self) -> bytes:
        """Version 1 of the root, which devices get when they enrol."""
        return self.roots.first

    def has(self, path: str) -> bool:
        """Whether a target of this path is published."""
        return path in self._state.builder.signed.targets

    def documents(self) -> Documents:
        """Roots, targets and the builder's list, as they stand now."""
        state = self._state
        roots = (self.roots.first, *(content for _, content in self.roots.above(1)))
        return Documents(roots, state.targets.data, state.builder.data)

    def files(self, held: Mapping[str, int]) -> list[tuple[str, bytes]]:
        """(name, content) of what a client lacks that holds these versions, role → version, 0 or absent for none."""
        state = self._state
        versions = state.versions()
        lacking = [file for role, file in state.files().items() if held.get(role, 0) != versions[role]]
        return self.roots.above(held.get("root", 1)) + lacking

    def publish(self, targets: Sequence[ImageTarget], now: datetime) -> None:
        """List these targets. What is listed already changes nothing, and starts no process.

        Raises PublishError when the builder refuses or its list grows too long; OSError.
        """
        with self._lock:
            listed = self._state.builder.signed.targets
            wanted = {target.path: metadata.target_file(target, target.custom) for target in targets}
            if any(listed.get(path) != file for path, file in wanted.items()):
                self._advance(now, builder=self._signed_builder({**listed, **wanted}, now))

    @property
    def targets(self) -> Piece[Targets]:
        """The list of delegations, as it stands."""
        return self._state.targets

    def next_builder(self) -> Key:
        """The public key that is to follow the builder's, made by the builder. Raises PublishError."""
        return self._builder.prepare()

    def install(self, root: bytes, targets: bytes, now: datetime) -> None:
        """Take up a root and a list of delegations that holders signed, and sign the rest anew by the keys they name.

        A crash anywhere in it is made good by the next `open`. Raises PublishError when they do not follow what
        stands; OSError.
        """
        with self._lock:
            piece = Piece(metadata.parse(targets, Targets, "the new targets"), targets)
            standing = self._state.targets.version
            if targets != self._state.targets.data and piece.version != standing + 1:
                raise PublishError(
                    f"targets {piece.version} do not follow targets {standing}; they were asked for earlier: make a new"
                    " request"
                )
            _verify(metadata.parse(root, Root, "the new root"), "targets", targets)
            self.roots.follower(root)
            if not _signed_by(self._state.builder.data, _builders(piece.signed)):
                self._builder.check_has(_builders(piece.signed))
            durable.write(self._folder / f"{piece.version}.targets.json", targets)
            self.roots.install(root)
            self._succeed(piece, now)

    def _succeed(self, targets: Piece[Targets], now: datetime) -> None:
        """Everything below a new root and new targets, signed by the keys that these name."""
        builder = self._state.builder
        keyids = _builders(targets.signed)
        if builder.signed.version and not _signed_by(builder.data, keyids):
            self._builder.adopt(keyids)
            builder = self._signed_builder(builder.signed.targets, now)
        self._advance(now, targets=targets, builder=builder)

    def offline_versions(self) -> Mapping[str, int]:
        """Role → version of what holders sign below the root."""
        return {} if self.roots.signer("targets") is not None else {"targets": self._state.targets.version}

    def count_from(self, floor: int, now: datetime) -> None:
        """See that every version that is signed online is above `floor`. What is already, is left.

        Raises PublishError, OSError.
        """
        with self._lock:
            targets, builder = self._state.targets, self._state.builder
            online = self.roots.signer("targets") is not None
            counted = [self._state.timestamp.version, self._state.snapshot.version, builder.version]
            if min([*counted, targets.version] if online else counted) > floor:
                return
            if online and targets.version <= floor:
                targets = self._signed_targets(targets.signed.delegations, floor + 1, now)
            if builder.version <= floor:
                builder = self._signed_builder(builder.signed.targets, now, above=floor)
            self._advance(now, targets=targets, builder=builder, above=floor)

    def refresh(self, now: datetime) -> None:
        """Sign anew whatever has lived half of its life. Call it every few hours.

        A builder that cannot sign keeps up nothing else: its own metadata has half of its life left, that of the
        timestamp is hours. Raises PublishError afterwards, OSError.
        """
        with self._lock:
            state = self._state
            self.roots.refresh(now)
            targets, builder = state.targets, state.builder
            failed: PublishError | None = None
            offline = self.roots.signer("targets") is None  # its holders renew it
            if not offline and metadata.half_gone(targets.signed.expires, TARGETS_LIFE, now):
                targets = self._signed_targets(targets.signed.delegations, targets.version + 1, now)
            if metadata.half_gone(builder.signed.expires, TARGETS_LIFE, now):
                try:
                    builder = self._signed_builder(builder.signed.targets, now)
                except PublishError as error:
                    failed = error
            changed = (targets, builder) != (state.targets, state.builder)
            if changed or metadata.half_gone(state.snapshot.signed.expires, SNAPSHOT_LIFE, now):
                self._advance(now, targets=targets, builder=builder)
            elif metadata.half_gone(state.timestamp.signed.expires, TIMESTAMP_LIFE, now):
                timestamp = self._signed_timestamp(state.snapshot, state.timestamp.version + 1, now)
                self._commit(replace(state, timestamp=timestamp))
            if failed is not None:
                raise failed

    def _advance(
        self,
        now: datetime,
        *,
        targets: Piece[Targets] | None = None,
        builder: Piece[Targets] | None = None,
        above: int = 0,
    ) -> None:
        state = self._state
        targets, builder = targets or state.targets, builder or state.builder
        snapshot = self._signed_snapshot(targets, builder, max(state.snapshot.version, above) + 1, now)
        timestamp = self._signed_timestamp(snapshot, max(state.timestamp.version, above) + 1, now)
        self._commit(_State(targets, builder, snapshot, timestamp))

    def _first(self, mandate: Key, now: datetime) -> _State:
        delegated = {
            BUILDER: (self._builder.public(), [f"{folder}/*/*/*" for folder in FOLDERS.values()]),
            MANDATE: (mandate, list(PATHS)),
        }
        roles = {
            name: DelegatedRole(name, [key.keyid], 1, terminating=True, paths=paths)
            for name, (key, paths) in delegated.items()
        }
        known = {key.keyid: key for key, _ in delegated.values()}
        targets = self._signed_targets(Delegations(known, roles), 1, now)
        builder = self._sign_as_builder(Targets(1, expires=metadata.end(now, TARGETS_LIFE)))
        snapshot = self._signed_snapshot(targets, builder, 1, now)
        state = _State(targets, builder, snapshot, self._signed_timestamp(snapshot, 1, now))
        self._commit(state)
        return state

    def _signed_builder(self, files: Mapping[str, TargetFile], now: datetime, above: int = 0) -> Piece[Targets]:
        version = max(self._state.builder.version, above) + 1
        piece = self._sign_as_builder(Targets(version, expires=metadata.end(now, TARGETS_LIFE), targets=dict(files)))
        if len(piece.data) > MAX_BUILDER_BYTES:
            raise PublishError(
                f"{len(files)} artifacts make {len(piece.data)} bytes of metadata, and a device accepts at most"
                f" {MAX_BUILDER_BYTES}; start a new fleet's repository or remove old artifacts"
            )
        return piece

    def _sign_as_builder(self, signed: Targets) -> Piece[Targets]:
        signature = self._builder.sign(signed)
        made = Metadata(signed, {signature.keyid: signature})
        return Piece(signed, made.to_bytes())

    def _signed_targets(self, delegations: Delegations | None, version: int, now: datetime) -> Piece[Targets]:
        signed = Targets(version, expires=metadata.end(now, TARGETS_LIFE), delegations=delegations)
        return metadata.sign(signed, self._signer("targets"))

    def _signed_snapshot(
        self, targets: Piece[Targets], builder: Piece[Targets], version: int, now: datetime
    ) -> Piece[Snapshot]:
        meta = {"targets.json": targets.meta, f"{BUILDER}.json": builder.meta}
        signed = Snapshot(version, expires=metadata.end(now, SNAPSHOT_LIFE), meta=meta)
        return metadata.sign(signed, self._signer("snapshot"))

    def _signed_timestamp(self, snapshot: Piece[Snapshot], version: int, now: datetime) -> Piece[Timestamp]:
        signed = Timestamp(version, expires=metadata.end(now, TIMESTAMP_LIFE), snapshot_meta=snapshot.meta)
        return metadata.sign(signed, self._signer("timestamp"))

    def _signer(self, role: str) -> CryptoSigner:
        signer = self.roots.signer(role)
        if signer is None:
            raise PublishError(f"the key of the image repository's {role} is not online; its holders sign it")
        return signer

    def _commit(self, state: _State) -> None:
        *before, last = reversed(state.files().values())
        for name, data in before:
            path = self._folder / name
            if not path.exists() or path.read_bytes() != data:
                durable.write(path, data)
        durable.write(self._folder / last[0], last[1])
        self._state = state
        self._sweep()

    def _sweep(self) -> None:
        """Remove versions that nothing names: older ones, and leftovers of a publication that was cut off."""
        current = {name for name, _ in self._state.files().values()}
        for path in self._folder.iterdir():
            if _OLD.fullmatch(path.name) and path.name not in current:
                path.unlink()

    def _read(self, now: datetime) -> _State:
        timestamp = metadata.read(self._folder / "timestamp.json", Timestamp)
        snapshot = metadata.read(self._folder / f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
        versions = {name: meta.version for name, meta in snapshot.signed.meta.items()}
        targets = metadata.read(self._folder / f"{versions.get('targets.json')}.targets.json", Targets)
        builder = metadata.read(self._folder / f"{versions.get(f'{BUILDER}.json')}.{BUILDER}.json", Targets)
        state = _State(targets, builder, snapshot, timestamp)
        try:
            self._check(state, self.roots.current)
            return state
        except PublishError:
            cut_off, before = self._cut_off(state), self.roots.before
            if cut_off is None or before is None:
                raise
        self._check(state, before)
        self._state = state
        self._succeed(cut_off, now)
        return self._state

    def _cut_off(self, state: _State) -> Piece[Targets] | None:
        """The targets of an installation that ended between its root and the rest."""
        path = self._folder / f"{state.targets.version + 1}.targets.json"
        if not path.exists():
            return None
        piece = metadata.read(path, Targets)
        _verify(self.roots.current, "targets", piece.data)
        return piece

    def _check(self, state: _State, root: Root) -> None:
        try:
            for role, (_, data) in state.files().items():
                _verify(state.targets.signed if role == BUILDER else root, role, data)
            state.timestamp.signed.snapshot_meta.verify_length_and_hashes(state.snapshot.data)
            for name, piece in (("targets.json", state.targets), (f"{BUILDER}.json", state.builder)):
                state.snapshot.signed.meta[name].verify_length_and_hashes(piece.data)
        except (RepositoryError, PublishError) as error:
            text = f"{self._folder}: the metadata does not hold together ({error}); restore it from your backup"
            raise PublishError(text) from error


def _verify(judge: Root | Targets, role: str, data: bytes) -> None:
    """Raise PublishError unless `judge` says that those who signed may speak for the role."""
    try:
        read: Metadata[Targets] = Metadata.from_bytes(data)
        judge.verify_delegate(role, read.signed_bytes, read.signatures)
    except (RepositoryError, ValueError) as error:
        raise PublishError(f"{role}: {error}") from error


def _builders(targets: Targets) -> Sequence[str]:
    roles = (targets.delegations.roles if targets.delegations else None) or {}
    return roles[BUILDER].keyids if BUILDER in roles else ()


def _signed_by(data: bytes, keyids: Sequence[str]) -> bool:
    read: Metadata[Targets] = Metadata.from_bytes(data)
    return any(keyid in read.signatures for keyid in keyids)
