"""What stands in each kind of certificate. Values in, certificates out; nothing is read or written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgewright_controller.unix_time import unix_ms

ROOT_LIFE: Final = timedelta(days=3650)
INTERMEDIATE_LIFE: Final = timedelta(days=1825)
# A broker that holds a list which has ended lets nobody in at all, so a list outlives several days without a new one.
CRL_LIFE: Final = timedelta(days=7)
# A peer's clock may be a little behind the controller's when it sees a new certificate.
SKEW: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class Issuer:
    """Who signs: its key, and its certificate (None: it signs its own, as a root does)."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate | None


@dataclass(frozen=True)
class Leaf:
    """What a leaf says. `client`: for clientAuth only, else for serverAuth only."""

    cn: str
    alternatives: tuple[x509.GeneralName, ...]
    life: timedelta
    client: bool

    @property
    def subject(self) -> x509.Name:
        """The leaf's whole subject: a common name."""
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.cn)])


def authority_subject(fleet: str, rank: str) -> x509.Name:
    """The subject of the fleet's "root" or "intermediate"."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, fleet),
            x509.NameAttribute(NameOID.COMMON_NAME, f"Edgewright {rank} CA"),
        ]
    )


def root(fleet: str, own: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    """The fleet's root, signed by itself."""
    return _authority(authority_subject(fleet, "root"), own.public_key(), Issuer(own, None), now)


def intermediate(fleet: str, public: ec.EllipticCurvePublicKey, issuer: Issuer, now: datetime) -> x509.Certificate:
    """The fleet's intermediate, which may issue leaves but no further authority."""
    return _authority(authority_subject(fleet, "intermediate"), public, issuer, now)


def leaf(form: Leaf, public: ec.EllipticCurvePublicKey, issuer: Issuer, now: datetime) -> x509.Certificate:
    """A leaf of this form for the holder of `public`. It never outlives its issuer."""
    usage = ExtendedKeyUsageOID.CLIENT_AUTH if form.client else ExtendedKeyUsageOID.SERVER_AUTH
    return (
        _builder(form.subject, public, issuer, now, form.life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.SubjectAlternativeName(form.alternatives), critical=False)
        .sign(issuer.key, hashes.SHA256())
    )


def revocation_list(revoked: Mapping[int, datetime], issuer: Issuer, now: datetime) -> x509.CertificateRevocationList:
    """The list of revoked serial numbers with when each was revoked, good for CRL_LIFE."""
    above = issuer.certificate
    if above is None:
        raise ValueError("a revocation list is issued by an authority that has a certificate")
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(above.subject)
        .last_update(now - SKEW)
        .next_update(now + CRL_LIFE)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        .add_extension(x509.CRLNumber(unix_ms(now)), critical=False)
    )
    for serial, when in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(when).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, hashes.SHA256())


def says(chain: bytes, form: Leaf, public: ec.EllipticCurvePublicKey, issuer: x509.Certificate, now: datetime) -> bool:
    """Whether the first certificate of `chain` is of this form, by this issuer, with over a third of its life left."""
    try:
        held = x509.load_pem_x509_certificate(chain)
        held.verify_directly_issued_by(issuer)
        alternatives = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    same = (held.public_key(), held.subject, tuple(alternatives)) == (public, form.subject, form.alternatives)
    return same and held.not_valid_before_utc <= now and held.not_valid_after_utc - now > form.life / 3


def _authority(
    subject: x509.Name, public: ec.EllipticCurvePublicKey, issuer: Issuer, now: datetime
) -> x509.Certificate:
    life, below = (ROOT_LIFE, 1) if issuer.certificate is None else (INTERMEDIATE_LIFE, 0)
    return (
        _builder(subject, public, issuer, now, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=below), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .sign(issuer.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, public: ec.EllipticCurvePublicKey, issuer: Issuer, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    above = issuer.certificate
    ends = now + life if above is None else min(now + life, above.not_valid_after_utc)
    of_issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if above is None else above.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(ends)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(of_issuer, critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
