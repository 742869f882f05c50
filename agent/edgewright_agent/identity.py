"""Who this device is: a key that never leaves it, a certificate, the fleet's CA, and where its controller stands.

STATE/identity holds key and certificate (`key_pairs`), ca.pem and enrolment.json, each written whole. enrolment.json
comes last: a device with it is enrolled, a device without it enrols again with the same token and gets the same
certificate.
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgewright_agent.certificate_life import Life
from edgewright_agent.device_key import AGAIN, DeviceKey, FileKeys, IdentityError, KeyStore
from edgewright_agent.key_pairs import Pairs
from edgewright_contract import canonical, durable, enrolment_token, names

__all__ = ["FOLDER", "Identity", "IdentityError"]

FOLDER: Final = "identity"
CA_FILE: Final = "ca.pem"
ENROLMENT_FILE: Final = "enrolment.json"
_FILES: Final = FileKeys()


@dataclass(frozen=True)
class Identity:
    """An enrolled device. Addresses are host:port; `mqtt_address` is empty when there is no broker, `enrolment_address`
    when the device enrolled with a version that did not keep it.

    `life` is that of the certificate. A device serves on after its end; it only cannot connect.
    """

    device: str
    fleet: str
    key: DeviceKey
    certificate_path: Path
    ca_path: Path
    controller_address: str
    mqtt_address: str
    enrolment_address: str
    life: Life
    keys: KeyStore = field(default=_FILES, repr=False, compare=False)

    @classmethod
    def load(cls, state: Path, keys: KeyStore = _FILES) -> Identity:
        """The identity in the state folder, checked for being whole. Raises IdentityError, OSError."""
        folder = state / FOLDER
        document = enrolment(folder)
        if document is None:
            raise IdentityError(
                f"{state} belongs to no enrolled device; run: edgewright-agent enroll --token …,"
                " with the token that `edgewright enroll create` prints"
            )
        device, fleet = document["device"], document["fleet"]
        pair = Pairs(folder, keys).current()
        try:
            certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
            x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
        except (OSError, ValueError) as error:
            raise IdentityError(f"{pair.certificate} or {folder / CA_FILE} is lost or damaged; {AGAIN}") from error
        key = keys.load(pair.folder)
        check_leaf(certificate, key.public_key(), device, fleet, str(pair.certificate))
        return cls(
            device=device,
            fleet=fleet,
            key=key,
            certificate_path=pair.certificate,
            ca_path=folder / CA_FILE,
            controller_address=document["controller_address"],
            mqtt_address=document["mqtt_address"],
            enrolment_address=document["enrolment_address"],
            life=life_of(certificate),
            keys=keys,
        )

    def tls_context(self) -> ssl.SSLContext:
        """A context for a connection of this device, with the pair that is in use at this moment.

        Raises IdentityError, OSError.
        """
        pair = Pairs(self.ca_path.parent, self.keys).current()
        context = ssl.create_default_context(cafile=str(self.ca_path))
        self.keys.load(pair.folder).use_in(context, pair.certificate)
        return context


def enrolment(folder: Path) -> dict[str, str] | None:
    """What was said at the enrolment, None before it. Raises IdentityError when it is damaged."""
    path = folder / ENROLMENT_FILE
    if not path.exists():
        return None
    wanted = ("device", "fleet", "controller_address", "mqtt_address", "token_sha256")
    try:
        document = json.loads(path.read_bytes())
        found = {key: document[key] for key in wanted}
        found["enrolment_address"] = document.get("enrolment_address", "")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise IdentityError(f"{path} is damaged; remove it and {AGAIN}") from error
    if not all(isinstance(value, str) for value in found.values()):
        raise IdentityError(f"{path} is damaged; remove it and {AGAIN}")
    return found


def keep_enrolment_address(folder: Path, address: str) -> None:
    """Remember where the device may come back. Raises IdentityError, OSError."""
    document = enrolment(folder)
    if document is not None and enrolment_token.is_address(address) and document["enrolment_address"] != address:
        durable.write(folder / ENROLMENT_FILE, canonical.encode({**document, "enrolment_address": address}))


def check_chain(
    chain_pem: bytes, ca: x509.Certificate, public: ec.EllipticCurvePublicKey, *, device: str, fleet: str, source: str
) -> x509.Certificate:
    """The leaf of a chain that ends in `ca` and is of this device and key.

    Raises IdentityError, which names `source`.
    """
    try:
        chain = x509.load_pem_x509_certificates(chain_pem)
        for certificate, issuer in zip(chain, [*chain[1:], ca], strict=True):
            certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise IdentityError(f"{source} sent a certificate that the fleet's CA did not sign") from error
    check_leaf(chain[0], public, device, fleet, source)
    return chain[0]


def check_leaf(leaf: x509.Certificate, public: ec.EllipticCurvePublicKey, device: str, fleet: str, source: str) -> None:
    """Raise IdentityError, which names `source`, unless the leaf is that of this device and key."""
    common = [attribute.value for attribute in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = alternatives.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound):
        uris = []
    if leaf.public_key() != public or common != [device] or uris != [names.device_uri(fleet, device)]:
        raise IdentityError(f"{source}: the certificate is not that of {device} and its key; {AGAIN}")


def life_of(certificate: x509.Certificate) -> Life:
    """From when until when it is good."""
    return Life(certificate.not_valid_before_utc, certificate.not_valid_after_utc)
