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
from edgewright_controller.publish import metadata
from edgewright_controller.publish.errors import PublishError
from edgewright_controller.publish.metadata import Piece

LIFE: Final = timedelta(days=365)
_NAME: Final = re.compile(r"([1-9][0-9]*)\.root\.json")


class Roots:
    """The root files of one repository, from version 1 to the current one."""

    def __init__(self, folder: Path, signer: CryptoSigner, chain: list[Piece[Root]]):
        self._folder, self._signer, self._chain = folder, signer, chain

    @classmethod
    def open(cls, folder: Path, root: CryptoSigner, roles: Mapping[str, CryptoSigner], now: datetime) -> Roots:
        """The chain in `folder`, made when absent. `roles` are the keys of timestamp, snapshot and targets.

        Raises PublishError when a version is lost or damaged, or the keys are not those that the chain names.
        """
        durable.make_folder(folder)
        numbers = sorted(int(match[1]) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name)))
        if not numbers:
            made = cls(folder, root, [])
            made._append(_first(root, roles, now))
            return made
        chain: list[Piece[Root]] = []
        for expected, number in enumerate(numbers, start=1):
            if number != expected:
                raise PublishError(f"{folder / f'{expected}.root.json'} is lost; restore {folder} from your backup")
            chain.append(metadata.read(folder / f"{number}.root.json", Root))
        _check(folder, chain, root, roles)
        return cls(folder, root, chain)

    @property
    def current(self) -> Root:
        """What the newest version says."""
        return self._chain[-1].signed

    @property
    def first(self) -> bytes:
        """Version 1, which devices get when they enrol."""
        return self._chain[0].data

    def above(self, held: int) -> list[tuple[str, bytes]]:
        """The versions that a client which holds `held` lacks, in the order in which it asks."""
        return [(f"{piece.version}.root.json", piece.data) for piece in self._chain[max(held, 1) :]]

    def refresh(self, now: datetime) -> None:
        """Sign the current root anew, one version higher, when half of its life is gone. Raises OSError."""
        if metadata.half_gone(self.current.expires, LIFE, now):
            later = Root.from_dict(self.current.to_dict())
            later.version += 1
            later.expires = metadata.end(now, LIFE)
            self._append(later)

    def _append(self, root: Root) -> None:
        piece = metadata.sign(root, self._signer)
        durable.write(self._folder / f"{root.version}.root.json", piece.data)
        self._chain = [*self._chain, piece]


def _first(root: CryptoSigner, roles: Mapping[str, CryptoSigner], now: datetime) -> Root:
    signers = {Root.type: root, **roles}
    keys = {signer.public_key.keyid: signer.public_key for signer in signers.values()}
    duties = {role: Role([signer.public_key.keyid], 1) for role, signer in signers.items()}
    return Root(1, expires=metadata.end(now, LIFE), keys=dict(keys), roles=duties, consistent_snapshot=True)


def _check(folder: Path, chain: list[Piece[Root]], root: CryptoSigner, roles: Mapping[str, CryptoSigner]) -> None:
    above = chain[0].signed
    try:
        for piece in chain:
            for judge in (above, piece.signed):
                read: Metadata[Root] = Metadata.from_bytes(piece.data)
                judge.verify_delegate(Root.type, read.signed_bytes, read.signatures)
            above = piece.signed
    except RepositoryError as error:
        raise PublishError(f"{folder}: the chain of roots does not hold ({error}); restore it") from error
    for role, signer in {Root.type: root, **roles}.items():
        if signer.public_key.keyid not in above.roles[role].keyids:
            newest = folder / f"{above.version}.root.json"
            raise PublishError(f"the key of role {role} is not the one that {newest} names; restore both together")
