"""A request for the intermediate authority's certificate, on its way to whoever keeps the root authority's key.

It carries what is asked (a signing request by the intermediate's own key) and, once it was signed, the certificate.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import names
from edgewright_controller import pki_forms
from edgewright_controller.peers import key_digest
from edgewright_controller.pki import CsrRefused, requested_key
from edgewright_controller.pki_files import AuthorityError, pem

FORMAT: Final = "edgewright-authority-request-1"


@dataclass(frozen=True)
class AuthorityRequest:
    """`csr` and `certificate` are PEM, the latter empty until it was signed; `root` is the root's certificate."""

    fleet: str
    csr: str
    root: str
    certificate: str = ""

    def encode(self) -> bytes:
        """The request's file."""
        return json.dumps({"format": FORMAT, **self.__dict__}, indent=1).encode() + b"\n"

    @property
    def key(self) -> ec.EllipticCurvePublicKey:
        """The intermediate's key, whose holder asks. Raises AuthorityError."""
        try:
            return requested_key(x509.load_pem_x509_csr(self.csr.encode()).public_bytes(serialization.Encoding.DER))
        except (CsrRefused, ValueError) as error:
            raise AuthorityError(f"the request for the intermediate is damaged: {error}") from error


def is_one(content: bytes) -> bool:
    """Whether this file is a request to the root authority, and not one to the holders."""
    return FORMAT.encode() in content[:200]


def ask(fleet: str, own: ec.EllipticCurvePrivateKey, root: x509.Certificate) -> AuthorityRequest:
    """The request for a new certificate of the intermediate with this key."""
    subject = pki_forms.authority_subject(fleet, "intermediate")
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(own, hashes.SHA256())
    return AuthorityRequest(fleet, csr.public_bytes(serialization.Encoding.PEM).decode(), pem(root).decode())


def decode(content: bytes) -> AuthorityRequest:
    """The request in a file. Raises AuthorityError."""
    try:
        document = json.loads(content)
        if document.pop("format") != FORMAT:
            raise AuthorityError("not a request to the root authority")
        request = AuthorityRequest(**{name: str(document[name]) for name in ("fleet", "csr", "root", "certificate")})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise AuthorityError(f"not a request to the root authority: {error!r}") from error
    if not names.is_id(request.fleet):  # it is shown on a terminal
        raise AuthorityError(f"not a request to the root authority: {request.fleet!r} is not a fleet's name")
    _ = request.key
    return request


def describe(request: AuthorityRequest) -> list[str]:
    """What the keeper of the root must know before signing."""
    days = pki_forms.INTERMEDIATE_LIFE.days
    return [
        f"fleet {request.fleet}: the intermediate authority asks for a certificate of {days} days",
        f"its key: {key_digest(request.key)}",
    ]


def sign(request: AuthorityRequest, fleet: str, own: ec.EllipticCurvePrivateKey, now: datetime) -> AuthorityRequest:
    """The request with the certificate, by the root's key. Raises AuthorityError for a root that is not its own."""
    root = _certificate(request.root, "the root's certificate in the request")
    if fleet != request.fleet or root.subject != pki_forms.authority_subject(fleet, "root"):
        raise AuthorityError(f"the request is of fleet {request.fleet!r}, and the key is of fleet {fleet!r}")
    if root.public_key() != own.public_key():
        raise AuthorityError("the root's certificate in the request is not of this key")
    made = pki_forms.intermediate(fleet, request.key, pki_forms.Issuer(own, root), now)
    return replace(request, certificate=pem(made).decode())


def signed(request: AuthorityRequest, own: ec.EllipticCurvePrivateKey, root: x509.Certificate) -> x509.Certificate:
    """The certificate that a request came back with, for the intermediate with this key below this root.

    Raises AuthorityError when it has none, or one for another key or by another root.
    """
    if not request.certificate:
        raise AuthorityError("nobody has signed it yet: edgewright keys sign REQUEST --keys root-ca.keys")
    made = _certificate(request.certificate, "the certificate in the request")
    try:
        made.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise AuthorityError("the certificate in the request is not by this fleet's root") from error
    if made.public_key() != own.public_key():
        raise AuthorityError("the certificate in the request is for another key; make a new request")
    return made


def _certificate(text: str, name: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(text.encode())
    except ValueError as error:
        raise AuthorityError(f"{name} is damaged") from error
