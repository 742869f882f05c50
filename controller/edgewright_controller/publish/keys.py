"""TUF keys as files: Ed25519, PKCS8 in PEM, made on first start. A key is durable before anything names it."""

from __future__ import annotations

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
