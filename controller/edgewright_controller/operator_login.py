"""An operator's own key and certificate, on the operator's machine: the first login, and renewal at half life.

A folder holds `client.toml`, which names the files of one identity: `NAME-SERIAL.key`, `NAME-SERIAL.crt` and `ca.crt`.
A renewal writes new files and then the TOML file, so a cut anywhere leaves a working set.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import grpc
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgewright_contract import digest, durable, enrolment_token
from edgewright_contract.v1 import enrolment_pb2, enrolment_pb2_grpc
from edgewright_controller.client import Access, ClientError, Fleet
from edgewright_controller.peers import PeerRefused, peer

DEADLINE_S: Final = 30.0
CLIENT: Final = "client.toml"
BUILT_IN: Final = "admin"


class LoginRefused(Exception):
    """There is no login with this token, or not into this folder; the text says what to do."""


@dataclass(frozen=True)
class LoggedIn:
    """Who has logged in, where the file for the commands is, and until when the certificate is good, in UTC."""

    name: str
    role: str
    fleet: str
    client_toml: Path
    not_after: datetime


def login(token: str, folder: Path, *, force: bool = False) -> LoggedIn:
    """Redeem a login token: key, certificate and client.toml in `folder`.

    A folder of another fleet is only taken over with `force`. Raises LoginRefused, OSError.
    """
    try:
        parsed = enrolment_token.parse(token)
    except enrolment_token.TokenError as error:
        raise LoginRefused(str(error)) from error
    ca = _pem(x509.load_der_x509_certificate(parsed.ca_der))
    before = folder / "ca.crt"
    if (folder / CLIENT).exists() and not force and (not before.exists() or before.read_bytes() != ca):
        raise LoginRefused(f"{folder / CLIENT} is for another fleet; name another --folder, or replace it with --force")
    # The key is kept before it is asked for, so that a cut after the answer can be repeated with the same token.
    durable.make_folder(folder.absolute(), mode=0o700)
    # It belongs to this token: a key that had a certificate from an earlier one gets no other.
    pending = folder.absolute() / f"{parsed.device}-{digest.of_bytes(token.encode())[:12]}-pending.key"
    key = _kept_key(pending)
    answer = _redeem(parsed, ca, _csr(key))
    if answer.ca_pem != ca:
        raise LoginRefused(f"the controller at {parsed.address} is of another authority than the token")
    place = Access(answer.controller_address, pending, pending, folder.absolute() / "ca.crt")
    access = _put(place, key, answer.certificate_chain_pem, ca, answer.fleet)
    for one in folder.absolute().glob(f"{parsed.device}-*-pending.key"):
        durable.unlink(one)
    ends = x509.load_pem_x509_certificate(access.certificate.read_bytes()).not_valid_after_utc
    return LoggedIn(answer.name, answer.role, answer.fleet, folder / CLIENT, ends)


def is_due(access: Access, now: datetime) -> bool:
    """Whether half of the life of an operator's own certificate is gone. Raises OSError, ValueError when damaged."""
    held = x509.load_pem_x509_certificate(access.certificate.read_bytes())
    if peer_name(held) == BUILT_IN:
        return False  # the controller renews that itself
    begins, ends = held.not_valid_before_utc, held.not_valid_after_utc
    return begins + (ends - begins) / 2 < now < ends


def renew(access: Access, client_toml: Path, fleet: Fleet) -> None:
    """Get another certificate under another key, and switch to it. Raises LoginRefused, ClientError, OSError."""
    if access.certificate.parent != client_toml.absolute().parent:
        raise LoginRefused(f"{client_toml} names files elsewhere; only those beside it are renewed")
    key = ec.generate_private_key(ec.SECP256R1())
    chain = fleet.renew_operator(_csr(key))
    old = (access.key, access.certificate)
    name = _fleet_of(access.certificate.read_bytes())
    made = _put(access, key, chain, access.ca.read_bytes(), name)
    for path in old:
        if path not in (made.key, made.certificate):
            with contextlib.suppress(OSError):
                durable.unlink(path)


def peer_name(certificate: x509.Certificate) -> str:
    """The operator's name in a certificate, empty when it is no operator's."""
    named = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    text = str(named[0].value) if named else ""
    return text.removeprefix("operator.") if text.startswith("operator.") else ""


def _fleet_of(chain: bytes) -> str:
    held = x509.load_pem_x509_certificate(chain)
    names = held.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uri.removeprefix("edgewright://").partition("/")[0]


def _put(place: Access, key: ec.EllipticCurvePrivateKey, chain: bytes, ca: bytes, fleet: str) -> Access:
    """Write an identity beside the one of `place`, and let client.toml name it.

    Raises LoginRefused for a certificate that is not the key's, or not by this CA.
    """
    folder, address = place.ca.parent, place.address
    try:
        who = peer(chain, fleet)
        certificates = x509.load_pem_x509_certificates(chain)
        issuers = [*certificates[1:], x509.load_pem_x509_certificate(ca)]
        for certificate, issuer in zip(certificates, issuers, strict=True):
            certificate.verify_directly_issued_by(issuer)
    except (PeerRefused, ValueError, TypeError, InvalidSignature) as error:
        raise LoginRefused(
            f"the controller at {address} sent a certificate that is not its fleet's: {error}"
        ) from error
    if who.kind != "operator" or certificates[0].public_key() != key.public_key():
        raise LoginRefused(
            f"the controller at {address} sent the certificate of {who.kind} {who.id}, or of another key"
        )
    stem = f"{who.id}-{who.serial[:12]}"
    made = Access(address, folder / f"{stem}.crt", folder / f"{stem}.key", folder / "ca.crt")
    durable.write(made.key, _private(key), mode=0o600)
    durable.write(made.certificate, chain)
    durable.write(made.ca, ca)
    text = (
        "# For edgewright's commands, which renew what it names.\n"
        f'address = "{address}"\ncertificate = "{made.certificate.name}"\nkey = "{made.key.name}"\nca = "ca.crt"\n'
    )
    durable.write(folder / CLIENT, text.encode(), mode=0o600)
    return made


def _redeem(token: enrolment_token.EnrolmentToken, ca: bytes, csr: bytes) -> Any:
    with grpc.secure_channel(token.address, grpc.ssl_channel_credentials(ca)) as channel:
        stub = enrolment_pb2_grpc.EnrolmentStub(channel)
        try:
            return stub.Login(enrolment_pb2.LoginRequest(token=token.secret, csr_der=csr), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            call: Any = error  # an RpcError of a call is the call itself, which its type does not say
            if call.code() is grpc.StatusCode.PERMISSION_DENIED:
                raise LoginRefused(f"the controller refused the token: {call.details()}") from error
            said = call.code().name.lower().replace("_", " ")
            raise LoginRefused(
                f"no login at {token.address} ({said}); check that the controller runs, and this machine's clock"
            ) from error


def _kept_key(path: Path) -> ec.EllipticCurvePrivateKey:
    if path.exists():
        try:
            held = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (ValueError, TypeError):
            held = None
        if isinstance(held, ec.EllipticCurvePrivateKey):
            return held
    made = ec.generate_private_key(ec.SECP256R1())
    durable.write(path, _private(made), mode=0o600)
    return made


def _csr(key: ec.EllipticCurvePrivateKey) -> bytes:
    # The controller ignores the request's names and writes its own.
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    plain = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


__all__ = ["ClientError", "LoggedIn", "LoginRefused", "is_due", "login", "peer_name", "renew"]
