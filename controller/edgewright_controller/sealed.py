"""Secrets under a passphrase: scrypt makes the key (RFC 7914), ChaCha20-Poly1305 seals and authenticates (RFC 8439).

What stands beside the sealed bytes in clear is authenticated with them, so neither part can be changed alone.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

MIN_PASSPHRASE: Final = 12
# 128 MiB and about half a second for each guess.
_COST, _BLOCK, _LANES = 1 << 17, 8, 1
# A file that somebody else wrote must not make us use more than 1 GiB.
_MAX_COST: Final = 1 << 20
_SALT, _NONCE = 16, 12


class SealedError(ValueError):
    """The sealed bytes cannot be opened; the text says why, as far as that can be known."""


@dataclass(frozen=True)
class Work:
    """How a passphrase becomes a key. `cost` is scrypt's n, a power of two."""

    salt: bytes
    cost: int = _COST

    @classmethod
    def new(cls) -> Work:
        """With a salt of its own."""
        return cls(secrets.token_bytes(_SALT))

    def key(self, passphrase: str) -> bytes:
        """32 bytes. Raises SealedError when the work is out of bounds."""
        if len(self.salt) != _SALT or self.cost & (self.cost - 1) or not 1 << 14 <= self.cost <= _MAX_COST:
            raise SealedError(f"the work factor {self.cost} is out of bounds; the file is damaged, or not ours")
        return Scrypt(salt=self.salt, length=32, n=self.cost, r=_BLOCK, p=_LANES).derive(passphrase.encode())


def check_passphrase(passphrase: str) -> None:
    """Raise SealedError for one that is too short to protect anything."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise SealedError(f"a passphrase of {len(passphrase)} characters is too short; use at least {MIN_PASSPHRASE}")


def seal(key: bytes, content: bytes, beside: bytes) -> bytes:
    """`content` sealed under `key`, bound to `beside`. The nonce is random, so a key is good for many contents."""
    nonce = secrets.token_bytes(_NONCE)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, content, beside)


def unseal(key: bytes, sealed: bytes, beside: bytes) -> bytes:
    """What was sealed. Raises SealedError."""
    try:
        return ChaCha20Poly1305(key).decrypt(sealed[:_NONCE], sealed[_NONCE:], beside)
    except (InvalidTag, ValueError) as error:
        raise SealedError("the passphrase is another one, or the file was changed") from error


def work_from(document: Any) -> Work:
    """The work that a file states. Raises SealedError."""
    try:
        return Work(bytes.fromhex(document["salt"]), int(document["cost"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SealedError(f"it does not say how its passphrase becomes a key: {error!r}") from error


def work_to(work: Work) -> dict[str, Any]:
    """The work, for a file."""
    return {"salt": work.salt.hex(), "cost": work.cost}
