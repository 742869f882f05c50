"""Keys and certificates on disk. A key is durable before a certificate of it exists.

So a crash leaves a key alone at worst, and the next start makes its certificate. A certificate without its
key was never left by a crash: the key was lost, and that is said instead of quietly making another fleet.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import durable
from edgewright_controller.pki_forms import CRL_LIFE


class AuthorityError(Exception):
    """The fleet's keys or certificates are not usable as they stand; the text says which file and what to do."""


def pem(certificate: x509.Certificate) -> bytes:
    """The certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM)


def key(path: Path, *, of: Path | None = None) -> ec.EllipticCurvePrivateKey:
    """The P-256 key at `path`, made when absent. Raises AuthorityError, also when its certificate `of` outlived it."""
    if not path.exists():
        if of is not None and of.exists():
            raise AuthorityError(f"{path} is lost, but {of} is there; restore the key from your backup")
        made = ec.generate_private_key(ec.SECP256R1())
        encoded = made.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        durable.write(path, encoded, mode=0o600)
        return made
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise AuthorityError(f"{path} is damaged; restore it from your backup") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey) or not isinstance(loaded.curve, ec.SECP256R1):
        raise AuthorityError(f"{path} is not a P-256 key")
    return loaded


def load_certificate(path: Path) -> x509.Certificate:
    """The first certificate in the file. Raises AuthorityError, OSError."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError as error:
        raise AuthorityError(f"{path} is damaged; restore it from your backup") from error


def certificate(path: Path, own: ec.EllipticCurvePrivateKey, issue: Callable[[], x509.Certificate]) -> x509.Certificate:
    """The certificate at `path`, made by `issue` when absent. Raises AuthorityError when it is not of key `own`."""
    if not path.exists():
        issued = issue()
        durable.write(path, pem(issued))
        return issued
    held = load_certificate(path)
    if held.public_key() != own.public_key():
        raise AuthorityError(f"{path} is not the certificate of the key beside it; restore both from one backup")
    return held


def crl_left(path: Path, now: datetime) -> timedelta:
    """How long the list of revoked certificates at `path` still lets anybody in; nothing when it cannot be read, has
    ended, or begins in the future, as after the clock was set back."""
    try:
        held = x509.load_pem_x509_crl(path.read_bytes())
    except (OSError, ValueError):
        return timedelta()
    ends = held.next_update_utc
    if ends is None or now < held.last_update_utc:
        return timedelta()
    return max(timedelta(), ends - now)


def crl_ages(path: Path, now: datetime) -> bool:
    """Whether the list at `path` is a day old, or lets nobody in: then it is written anew."""
    return crl_left(path, now) < CRL_LIFE - timedelta(days=1)
