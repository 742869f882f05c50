"""A certificate authority for one test: a root, and leaves for 127.0.0.1 and for devices."""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


@dataclass(frozen=True)
class Leaf:
    """PEM files of one key and its certificate."""

    key: Path
    certificate: Path
    ca: Path


class ThrowawayCa:
    """`server()` and `device(id)` write PEM files below `folder`."""

    def __init__(self, folder: Path, fleet: str = "fleet") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._fleet = folder, fleet
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throwaway root")])
        basic = x509.BasicConstraints(ca=True, path_length=None)
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(basic, True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def server(self) -> Leaf:
        """For 127.0.0.1 and localhost."""
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return self.leaf("service.controller-1", names, ExtendedKeyUsageOID.SERVER_AUTH)

    def device(self, device: str) -> Leaf:
        """For a device, named as the contract says."""
        uri = x509.UniformResourceIdentifier(f"edgewright://{self._fleet}/device/{device}")
        return self.leaf(device, [uri], ExtendedKeyUsageOID.CLIENT_AUTH)

    def sign(self, csr_der: bytes, device: str, ends_in: datetime.timedelta = datetime.timedelta(days=1)) -> bytes:
        """A chain (PEM) for a device's own key, as a controller gives it."""
        uri = x509.UniformResourceIdentifier(f"edgewright://{self._fleet}/device/{device}")
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, device)])
        key = x509.load_der_x509_csr(csr_der).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        certificate = (
            self._builder(subject, key, ends_in)
            .add_extension(x509.SubjectAlternativeName([uri]), False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)

    def leaf(self, name: str, alternatives: list[x509.GeneralName], usage: x509.ObjectIdentifier) -> Leaf:
        """Of whatever kind."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName(alternatives), False)
            .add_extension(x509.ExtendedKeyUsage([usage]), False)
            .sign(self._key, hashes.SHA256())
        )
        leaf = Leaf(self._folder / f"{name}.key", self._folder / f"{name}.pem", self.ca)
        leaf.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        leaf.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return leaf

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        ends_in: datetime.timedelta = datetime.timedelta(days=1),
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.timezone.utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + ends_in)
        )
