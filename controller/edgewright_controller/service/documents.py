"""Small documents of the store, read whole and checked against the digest that names them."""

from __future__ import annotations

from typing import BinaryIO, Final, Protocol

from edgewright_contract import digest
from edgewright_controller.compile.store import StoreError

MAX_BYTES: Final = 3 << 20  # what travels in one answer


class NotKept(LookupError):
    """The document is not in the store any more, or not with the bytes that its name says."""


class Documents(Protocol):
    """What the views need of the artifact store."""

    def has(self, artifact: str, /) -> bool:
        """Whether the artifact is in the store with all its files."""

    def open_object(self, sha256: str, /) -> BinaryIO:
        """A document by its digest. Raises KeyError, StoreError, OSError when it is not here."""


def document(store: Documents, sha256: str) -> bytes:
    """The document of this digest. Raises NotKept."""
    try:
        with store.open_object(sha256) as file:
            data = file.read(MAX_BYTES + 1)
    except (KeyError, StoreError, OSError) as error:
        raise NotKept(f"{sha256[:12]} is not in the store any more") from error
    if digest.of_bytes(data) != sha256:
        raise NotKept(f"{sha256[:12]} is damaged in the store")
    return data
