"""TUF keys as files: Ed25519, PKCS8 in PEM, made on first start. A key is durable before anything names it."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from edgewright_contract import durable
from edgewright_controller.publish.errors import PublishError


def signer(path: Path, *, of: Path | None = None) -> CryptoSigner:
    """The key at `path`, made when absent.

    Raises PublishError when it is damaged, or absent while metadata `of` it is there; OSError.
    """
    if not path.exists():
        if of is not None and of.exists():
            raise PublishError(f"{path} is lost, but {of} names it; restore the key from your backup")
        durable.make_folder(path.parent, mode=0o700)
        made = CryptoSigner.generate_ed25519()
        durable.write(path, made.private_bytes, mode=0o600)
        return made
    return load(path)


def following(path: Path) -> Path:
    """Where the key lies that follows the one at `path` once it is named."""
    return path.with_suffix(".next.pem")


def prepare(path: Path) -> CryptoSigner:
    """A new key that is to follow the one at `path`, in place of one that was prepared before: whoever broke in since
    may have copied that. Raises OSError.
    """
    durable.make_folder(path.parent, mode=0o700)
    made = CryptoSigner.generate_ed25519()
    durable.write(following(path), made.private_bytes, mode=0o600)
    return made


def check_at_hand(path: Path, keyids: Collection[str]) -> None:
    """Raise PublishError unless one of these keys lies at `path`, or was prepared to follow the one there."""
    if not any(file.exists() and load(file).public_key.keyid in keyids for file in (path, following(path))):
        raise PublishError(
            f"neither {path} nor the key that was prepared to follow it is the one asked for: the request is"
            " of another host, or a newer one was made since; make a new request"
        )


def named(path: Path, keyids: Collection[str], *, of: Path) -> CryptoSigner:
    """The key that metadata `of` a role names: the one at `path`, or the one that was prepared to follow it, which then
    takes its place for good.

    Raises PublishError when it is lost or damaged, or neither is named; OSError.
    """
    follower = following(path)
    if follower.exists() and load(follower).public_key.keyid in keyids:
        os.replace(follower, path)
        durable.sync_folder(path.parent)
    held = signer(path, of=of)
    if held.public_key.keyid not in keyids:
        raise PublishError(f"the key {path} is not the one that {of} names; restore both together")
    return held


def load(path: Path, passphrase: str | None = None) -> CryptoSigner:
    """The key at `path`, which is encrypted when there is a `passphrase`. Raises PublishError, OSError."""
    secret = passphrase.encode() if passphrase is not None else None
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), password=secret)
    except TypeError as error:
        what = (
            "is encrypted; give its passphrase" if passphrase is None else "is not encrypted; leave the passphrase out"
        )
        raise PublishError(f"{path} {what}") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        why = "is damaged" if passphrase is None else "is damaged, or its passphrase is another one"
        raise PublishError(f"{path} {why}; restore it from your backup") from error
    if not isinstance(loaded, Ed25519PrivateKey):
        raise PublishError(f"{path} is not an Ed25519 key; restore it from your backup")
    return CryptoSigner(loaded)


def remove(path: Path) -> None:
    """Remove a key's file for good, as far as that goes: its bytes are written over first. Raises OSError."""
    with open(path, "r+b") as file:
        file.write(b"\0" * path.stat().st_size)
        file.flush()
        os.fsync(file.fileno())
    durable.unlink(path)
    durable.sync_folder(path.parent)
