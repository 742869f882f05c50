"""Signing requests and little questions about certificates, for the tests of the authority."""

from __future__ import annotations

from datetime import datetime, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)


def request(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, cn: str = "any-name") -> bytes:
    """A signing request that asks for the name `cn`, in DER."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn)])
    return (
        x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    )


def new_key() -> ec.EllipticCurvePrivateKey:
    """A fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def leaf_of(chain: bytes) -> x509.Certificate:
    """The first certificate of a chain."""
    return x509.load_pem_x509_certificates(chain)[0]
