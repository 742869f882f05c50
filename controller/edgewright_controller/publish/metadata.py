"""Making and reading single pieces of TUF metadata: expiry in whole seconds, signatures, lengths and hashes."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Generic, TypeVar

from securesystemslib.exceptions import StorageError
from securesystemslib.signer import Signer
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from edgewright_contract import digest
from edgewright_contract.targets import ImageTarget
from edgewright_controller.publish.errors import PublishError

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


@dataclass(frozen=True)
class Piece(Generic[S]):
    """One role's metadata: what is signed, and the signed bytes as they are handed out."""

    signed: S
    data: bytes

    @property
    def version(self) -> int:
        """The metadata's version."""
        return self.signed.version

    @property
    def meta(self) -> MetaFile:
        """How the role above names this piece."""
        return MetaFile(self.version, len(self.data), {"sha256": digest.of_bytes(self.data)})


def sign(signed: S, *signers: Signer) -> Piece[S]:
    """The piece, signed by all `signers`."""
    metadata = Metadata(signed)
    for one in signers:
        metadata.sign(one, append=True)
    return Piece(signed, metadata.to_bytes())


def read(path: Path, kind: type[S]) -> Piece[S]:
    """The piece at `path`. Raises PublishError when it is lost or damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise PublishError(f"{path} is lost or damaged; restore its folder from your backup") from error
    return Piece(parse(data, kind, str(path)), data)


def parse(data: bytes, kind: type[S], name: str) -> S:
    """What the metadata says. Raises PublishError, with `name`, when it is damaged or of another role."""
    try:
        metadata: Metadata[S] = Metadata.from_bytes(data)
    except (StorageError, DeserializationError, RepositoryError) as error:
        raise PublishError(f"{name} is lost or damaged; restore its folder from your backup") from error
    if not isinstance(metadata.signed, kind):
        raise PublishError(f"{name} is metadata of another role; restore its folder from your backup")
    return metadata.signed


def end(now: datetime, life: timedelta) -> datetime:
    """When metadata made now expires: TUF counts whole seconds."""
    return (now + life).replace(microsecond=0)


def half_gone(expires: datetime, life: timedelta, now: datetime) -> bool:
    """Whether half of a life that ends at `expires` is over."""
    return expires - now < life / 2


def target_file(target: ImageTarget, custom: object) -> TargetFile:
    """The target as TUF lists it, with this `custom` object."""
    return TargetFile(target.bundle_length, {"sha256": target.bundle}, target.path, {"custom": custom})
