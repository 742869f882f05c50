"""A repository's chain of root metadata, which says whose keys speak for each role.

Every version is kept: a device that slept for years walks from the root it was given to the current one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Role, Root

from edgewright_contract import durable
from edgewright_controller.publish import holders, keys, metadata
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.metadata import Piece

LIFE: Final = timedelta(days=365)
_NAME: Final = re.compile(r"([1-9][0-9]*)\.root\.json")


class Roots:
    """The root files of one repository, from version 1 to the current one, and the keys of it that are online."""

    def __init__(self, folder: Path, key_files: Mapping[str, Path], chain: list[Piece[Root]]):
        self._folder, self._key_files, self._chain = folder, key_files, chain
        self._signers: Mapping[str, CryptoSigner] = {}

    @classmethod
    def open(cls, folder: Path, key_files: Mapping[str, Path], now: datetime) -> Roots:
        """The chain in `folder`, made when absent, with new keys. `key_files`: role → where its key lies while online.

        Raises PublishError when a version is lost or damaged, or a key that the chain names and nobody holds; OSError.
        """
        durable.make_folder(folder)
        numbers = _versions(folder)
        if not numbers:
            made = cls(folder, key_files, [])
            signers = {role: keys.signer(path) for role, path in key_files.items()}
            piece = metadata.sign(_first(signers, now), signers[Root.type])
            durable.write(folder / "1.root.json", piece.data)
            made._signers, made._chain = signers, [piece]
            return made
        chain: list[Piece[Root]] = []
        for expected, number in enumerate(numbers, start=1):
            if number != expected:
                raise PublishError(f"{folder / f'{expected}.root.json'} is lost; restore {folder} from your backup")
            chain.append(metadata.read(folder / f"{number}.root.json", Root))
        _check(folder, chain)
        opened = cls(folder, key_files, chain)
        opened._take_keys()
        return opened

    @property
    def current(self) -> Root:
        """What the newest version says."""
        return self._chain[-1].signed

    def offline_version(self) -> Mapping[str, int]:
        """Role → version, when holders sign the root; empty when the controller does."""
        return {} if self.signer(Root.type) is not None else {Root.type: self.current.version}

    @property
    def newest(self) -> bytes:
        """The newest version, signed."""
        return self._chain[-1].data

    @property
    def before(self) -> Root | None:
        """What the version before the newest says."""
        return self._chain[-2].signed if len(self._chain) > 1 else None

    @property
    def first(self) -> bytes:
        """Version 1, which devices get when they enrol."""
        return self._chain[0].data

    def signer(self, role: str) -> CryptoSigner | None:
        """The key of a role, None when holders have it."""
        return self._signers.get(role)

    def key_file(self, role: str) -> Path:
        """Where the key of a role lies while it is online."""
        return self._key_files[role]

    def above(self, held: int) -> list[tuple[str, bytes]]:
        """The versions that a client which holds `held` lacks, in the order in which it asks."""
        return [(f"{piece.version}.root.json", piece.data) for piece in self._chain[max(held, 1) :]]

    def refresh(self, now: datetime) -> None:
        """Sign the current root anew, one version higher, when half of its life is gone and its key is online.

        What holders sign, they renew. Raises OSError.
        """
        signer = self.signer(Root.type)
        if signer is not None and metadata.half_gone(self.current.expires, LIFE, now):
            later = Root.from_dict(self.current.to_dict())
            later.version += 1
            later.expires = metadata.end(now, LIFE)
            piece = metadata.sign(later, signer)
            durable.write(self._folder / f"{later.version}.root.json", piece.data)
            self._chain = [*self._chain, piece]

    def install(self, content: bytes) -> None:
        """Take up the next root, signed by holders: its keys speak from now on. What stands already changes nothing.

        Raises PublishError when it does not follow the current one; OSError.
        """
        piece = self.follower(content)
        if piece is None:
            return
        durable.write(self._folder / f"{piece.version}.root.json", content)
        self._chain = [*self._chain, piece]
        self._take_keys()

    def follower(self, content: bytes) -> Piece[Root] | None:
        """The next root in `content`, checked, as are the keys it wants here; None for the one that stands.

        Raises PublishError.
        """
        if content == self.newest:
            return None
        piece = Piece(metadata.parse(content, Root, "the new root"), content)
        if piece.version != self.current.version + 1:
            raise PublishError(
                f"root {piece.version} does not follow root {self.current.version} of {self._folder}; it was asked for"
                " earlier: make a new request"
            )
        _check(self._folder, [*self._chain, piece])
        for role, path in self._key_files.items():
            if keyids := _online(piece.signed, role):
                keys.check_at_hand(path, keyids)
        return piece

    def _take_keys(self) -> None:
        """The keys that the newest root names, from their files. What holders have need not be here."""
        newest = self._folder / f"{self.current.version}.root.json"
        taken: dict[str, CryptoSigner] = {}
        for role, path in self._key_files.items():
            if keyids := _online(self.current, role):
                # Roles that share one key share one object.
                known = next((taken[other] for other in taken if self._key_files[other] == path), None)
                taken[role] = known or keys.named(path, keyids, of=newest)
        self._signers = taken


def _online(root: Root, role: str) -> list[str]:
    """The keys of a role that must be here; none when holders have them."""
    keyids = root.roles[role].keyids
    return [] if any(holders.holder_of(root.keys[keyid]) for keyid in keyids) else keyids


def newest(folder: Path) -> Root:
    """What the newest root in `folder` says, for who only looks: the chain below it is not checked. Raises
    PublishError."""
    return metadata.read(folder / f"{max(_versions(folder), default=1)}.root.json", Root).signed


def _versions(folder: Path) -> list[int]:
    return sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))


def _first(signers: Mapping[str, CryptoSigner], now: datetime) -> Root:
    known = {signer.public_key.keyid: signer.public_key for signer in signers.values()}
    duties = {role: Role([signer.public_key.keyid], 1) for role, signer in signers.items()}
    return Root(1, expires=metadata.end(now, LIFE), keys=dict(known), roles=duties, consistent_snapshot=True)


def _check(folder: Path, chain: list[Piece[Root]]) -> None:
    above = chain[0].signed
    try:
        for piece in chain:
            for judge in (above, piece.signed):
                read: Metadata[Root] = Metadata.from_bytes(piece.data)
                judge.verify_delegate(Root.type, read.signed_bytes, read.signatures)
            above = piece.signed
    except RepositoryError as error:
        raise PublishError(f"{folder}: the chain of roots does not hold ({error}); restore it") from error
