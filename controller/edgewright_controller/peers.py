"""Who is on the other end of a connection, by its certificate. Pure; the TLS layer has checked the chain already."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import NameOID

from edgewright_contract import digest, names

SCHEME: Final = "edgewright://"
_ID: Final = names.ID_PATTERN
_URI: Final = re.compile(
    rf"edgewright://(?P<fleet>{_ID})/(?:device/(?P<device>{_ID})|service/(?P<service>{_ID})"
    rf"|operator/(?P<operator>{_ID})\?role=(?P<role>{_ID}))"
)

Kind = Literal["device", "operator", "service"]


class PeerRefused(Exception):
    """The certificate does not say who its holder is in this fleet."""


@dataclass(frozen=True)
class Peer:
    """`id` without prefix ("jetson-01", "admin", "controller-1"); `role` only for operators, else empty.

    `serial` is lower-case hex, as the ledger keeps it; the two times are in UTC; `key_sha256` is of the public key
    (SubjectPublicKeyInfo, DER), in hex.
    """

    kind: Kind
    id: str
    role: str
    serial: str
    not_after: datetime
    key_sha256: str
    not_before: datetime


def peer(pem: bytes, fleet: str) -> Peer:
    """The holder of a certificate: exactly one edgewright:// URI, of this fleet, that says what the CN says.

    Raises PeerRefused.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        alternatives = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        common = [attribute.value for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except (ValueError, x509.ExtensionNotFound) as error:
        raise PeerRefused(f"the certificate names nobody: {error}") from error
    uris = [uri for uri in alternatives.get_values_for_type(x509.UniformResourceIdentifier) if uri.startswith(SCHEME)]
    if len(uris) != 1 or len(common) != 1:
        raise PeerRefused(f"{len(uris)} {SCHEME} URIs and {len(common)} common names; exactly one of each is needed")
    match = _URI.fullmatch(uris[0])
    if match is None:
        raise PeerRefused(f"{uris[0]!r} names neither a device, a service nor an operator")
    if match["fleet"] != fleet:
        raise PeerRefused(f"the certificate is of fleet {match['fleet']!r}, not of {fleet!r}")
    kind: Kind
    if match["device"]:
        kind, id_, cn = "device", match["device"], match["device"]
    elif match["service"]:
        kind, id_, cn = "service", match["service"], names.SERVICE_PREFIX + match["service"]
    else:
        kind, id_, cn = "operator", match["operator"], names.OPERATOR_PREFIX + match["operator"]
    if common[0] != cn:
        raise PeerRefused(f"the common name {common[0]!r} contradicts {uris[0]!r}")
    serial, key = f"{certificate.serial_number:x}", key_digest(certificate.public_key())
    begins, ends = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return Peer(kind, id_, match["role"] or "", serial, ends, key, begins)


def key_digest(public: CertificatePublicKeyTypes) -> str:
    """What names a public key: the sha256 of its SubjectPublicKeyInfo in DER, in hex."""
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return digest.of_bytes(public.public_bytes(serialization.Encoding.DER, spki))
