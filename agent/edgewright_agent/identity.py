"""Who this device is: a key that never leaves it, a certificate, the fleet's CA, and where its controller stands.

STATE/identity holds key.pem, certificate.pem, ca.pem and enrolment.json, each written whole. enrolment.json comes last:
a device with it is enrolled, a device without it enrols again with the same token and gets the same certificate.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgewright_contract import canonical, durable, enrolment_token, names
from edgewright_contract.enrolment_token import EnrolmentToken

FOLDER: Final = "identity"
DEADLINE_S: Final = 30.0
_AGAIN: Final = "enrol the device again: edgewright-agent enroll --token …"


class IdentityError(Exception):
    """The device has no usable identity, or could not get one; the text says what to do."""


@dataclass(frozen=True)
class Identity:
    """An enrolled device. Addresses are host:port; `mqtt_address` is empty when there is no broker.

    `not_after`: when the certificate ends, in UTC. A device serves on after that; it only cannot connect.
    """

    device: str
    fleet: str
    key_path: Path
    certificate_path: Path
    ca_path: Path
    controller_address: str
    mqtt_address: str
    not_after: datetime

    @classmethod
    def load(cls, state: Path) -> Identity:
        """The identity in the state folder, checked for being whole. Raises IdentityError."""
        folder = state / FOLDER
        document = _enrolment(folder)
        if document is None:
            raise IdentityError(
                f"{state} belongs to no enrolled device; run: edgewright-agent enroll --token …,"
                " with the token that `edgewright enroll create` prints"
            )
        device, fleet = document["device"], document["fleet"]
        certificate = _check_files(folder, device, fleet)
        return cls(
            device=device,
            fleet=fleet,
            key_path=folder / "key.pem",
            certificate_path=folder / "certificate.pem",
            ca_path=folder / "ca.pem",
            controller_address=document["controller_address"],
            mqtt_address=document["mqtt_address"],
            not_after=certificate.not_valid_after_utc,
        )


def make_key_and_csr(folder: Path) -> bytes:
    """A signing request (DER) of the key in `folder`, which is made when absent and kept when there.

    Raises IdentityError when the key is damaged, OSError.
    """
    path = folder / "key.pem"
    if path.exists():
        key = _key(path)
    else:
        durable.make_folder(folder, mode=0o700)
        key = ec.generate_private_key(ec.SECP256R1())
        plain = serialization.NoEncryption()
        pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        durable.write(path, pem, mode=0o600)
    # The controller ignores the request's names and writes its own.
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def enrol(token: str, state: Path) -> Identity:
    """Redeem the token, and keep what it gives in the state folder: identity, and the roots of trust.

    A device that was enrolled with this token before is left as it is. After a power cut anywhere, run it again
    with the same token within ten minutes; later, with a new one. Raises IdentityError, StateDamaged, OSError.
    """
    try:
        parsed = enrolment_token.parse(token)
    except enrolment_token.TokenError as error:
        raise IdentityError(str(error)) from error
    folder = state / FOLDER
    secret_sha256 = hashlib.sha256(parsed.secret.encode()).hexdigest()
    before = _enrolment(folder)
    if before is not None and before["device"] != parsed.device:
        raise IdentityError(
            f"{state} belongs to device {before['device']}, and the token is for {parsed.device};"
            " give each device a state folder of its own"
        )
    if before is not None and before["token_sha256"] == secret_sha256:
        return Identity.load(state)
    if before is not None and not _same_ca(folder / "ca.pem", parsed.ca_der):
        # Before the token is spent for nothing.
        raise IdentityError(
            f"{state} belongs to fleet {before['fleet']}, and the token is of another controller; give this device"
            " a state folder of its own, or remove the old one"
        )
    csr = make_key_and_csr(folder)
    answer = _redeem(parsed, csr)
    chain = _check_answer(answer, parsed, _key(folder / "key.pem"))
    _trust(state, answer, chain[0].not_valid_before_utc)
    durable.write(folder / "certificate.pem", b"".join(_pem(each) for each in chain))
    durable.write(folder / "ca.pem", _pem(x509.load_der_x509_certificate(parsed.ca_der)))
    document = {
        "device": answer.device,
        "fleet": answer.fleet,
        "controller_address": answer.controller_address,
        "mqtt_address": answer.mqtt_address,
        "token_sha256": secret_sha256,
    }
    durable.write(folder / "enrolment.json", canonical.encode(document))
    return Identity.load(state)


def _same_ca(path: Path, ca_der: bytes) -> bool:
    """Whether the token's CA is the one known; one that is lost or damaged may be had again."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).public_bytes(serialization.Encoding.DER) == ca_der
    except (OSError, ValueError):
        return True


def _redeem(token: EnrolmentToken, csr: bytes) -> Any:
    import grpc

    from edgewright_contract.v1 import enrolment_pb2, enrolment_pb2_grpc

    ca = _pem(x509.load_der_x509_certificate(token.ca_der))
    with grpc.secure_channel(token.address, grpc.ssl_channel_credentials(ca)) as channel:
        stub = enrolment_pb2_grpc.EnrolmentStub(channel)
        try:
            return stub.Enrol(enrolment_pb2.EnrolRequest(token=token.secret, csr_der=csr), timeout=DEADLINE_S)
        except grpc.RpcError as error:
            call: Any = error  # an RpcError of a call is the call itself, which its type does not say
            if call.code() is grpc.StatusCode.PERMISSION_DENIED:
                raise IdentityError(f"the controller refused the token: {call.details()}") from error
            said = f"{call.code().name.lower().replace('_', ' ')}: {(call.details() or '')[:300]}"
            raise IdentityError(
                f"no enrolment at {token.address} ({said}); check that the controller runs and try again"
            ) from error


def _check_answer(answer: Any, token: EnrolmentToken, key: ec.EllipticCurvePrivateKey) -> list[x509.Certificate]:
    """The chain, when the answer is what the token promised."""
    try:
        chain = x509.load_pem_x509_certificates(answer.certificate_chain_pem)
        issuers = [*chain[1:], x509.load_der_x509_certificate(token.ca_der)]
        for certificate, issuer in zip(chain, issuers, strict=True):
            certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IdentityError(f"the controller at {token.address} sent a certificate that its CA did not sign") from error
    if answer.device != token.device or not names.is_id(answer.fleet):
        raise IdentityError(f"the controller at {token.address} enrolled {answer.device!r}, not {token.device!r}")
    _check_leaf(chain[0], key, answer.device, answer.fleet, f"the controller at {token.address}")
    for what, address in (("controller", answer.controller_address), ("MQTT", answer.mqtt_address)):
        if not enrolment_token.is_address(address) and (what == "controller" or address):
            raise IdentityError(f"the controller at {token.address} gave {address!r} as {what} address, not host:port")
    return chain


def _trust(state: Path, answer: Any, not_before: datetime) -> None:
    from edgewright_agent.trust import TrustRefused
    from edgewright_agent.trust_store import OtherAnchor, TrustStore

    try:
        roots = (answer.image_root, answer.director_root)
        TrustStore.create(state / "agent.sqlite", *roots, not_before=not_before).close()
    except (OtherAnchor, TrustRefused) as error:
        raise IdentityError(str(error)) from error


def _enrolment(folder: Path) -> dict[str, str] | None:
    path = folder / "enrolment.json"
    if not path.exists():
        return None
    wanted = ("device", "fleet", "controller_address", "mqtt_address", "token_sha256")
    try:
        document = json.loads(path.read_bytes())
        found = {key: document[key] for key in wanted}
    except (ValueError, KeyError, TypeError) as error:
        raise IdentityError(f"{path} is damaged; remove it and {_AGAIN}") from error
    if not all(isinstance(value, str) for value in found.values()):
        raise IdentityError(f"{path} is damaged; remove it and {_AGAIN}")
    return found


def _check_files(folder: Path, device: str, fleet: str) -> x509.Certificate:
    path = folder / "certificate.pem"
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    except (OSError, ValueError) as error:
        raise IdentityError(f"{folder}: certificate.pem or ca.pem is lost or damaged; {_AGAIN}") from error
    _check_leaf(certificate, _key(folder / "key.pem"), device, fleet, str(path))
    return certificate


def _check_leaf(leaf: x509.Certificate, key: ec.EllipticCurvePrivateKey, device: str, fleet: str, source: str) -> None:
    common = [attribute.value for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = alternatives.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound):
        uris = []
    if leaf.public_key() != key.public_key() or common != [device] or uris != [names.device_uri(fleet, device)]:
        raise IdentityError(f"{source}: the certificate is not that of {device} and its key; {_AGAIN}")


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"{path} is lost or damaged; remove it and {_AGAIN}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityError(f"{path} is not an elliptic-curve key; remove it and {_AGAIN}")
    return key


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
