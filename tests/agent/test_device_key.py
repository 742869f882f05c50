"""The seam of the device's key: one in a file, and one of which nobody ever gets the bytes."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edgewright_agent.device_key import FileKeys, IdentityError, csr_of, signed_elsewhere
from edgewright_agent.link import Credentials, Link, LinkDown
from tests.agent.renewal_server import DEVICE, RenewalServer
from tests.agent.throwaway_ca import ThrowawayCa


class Sealed(ec.EllipticCurvePrivateKey):
    """A private key as hardware has it: it signs, and that is all."""

    def __init__(self) -> None:
        self._inside = ec.generate_private_key(ec.SECP256R1())
        self.signatures = 0
        self.removed = False

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._inside.curve

    @property
    def key_size(self) -> int:
        return self._inside.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._inside.public_key()

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        if self.removed:
            raise RuntimeError("the token was pulled out")
        self.signatures += 1
        return self._inside.sign(data, signature_algorithm)

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> bytes:
        raise AssertionError("not for this")

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise AssertionError("the key leaves the hardware")

    def private_bytes(self, *_: Any, **__: Any) -> bytes:
        raise AssertionError("the key leaves the hardware")

    def __copy__(self) -> Sealed:
        raise AssertionError("the key leaves the hardware")

    def __deepcopy__(self, memo: dict[Any, Any]) -> Sealed:
        raise AssertionError("the key leaves the hardware")


class SealedKey:
    """A DeviceKey around it, as a store for hardware would make one."""

    def __init__(self, private: Sealed) -> None:
        self._private = private

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._private.public_key()

    def csr(self) -> bytes:
        return csr_of(self._private)

    def channel_credentials(self, ca: bytes, chain: bytes) -> Any:
        return signed_elsewhere(self._private, ca, chain)

    def use_in(self, context: ssl.SSLContext, chain: Path) -> None:
        raise AssertionError("needs an OpenSSL provider; see device_key")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RenewalServer]:
    server = RenewalServer(ThrowawayCa(tmp_path / "ca"))
    yield server
    server.stop()


def test_a_key_whose_bytes_never_reach_grpc_connects_and_renews(server: RenewalServer, tmp_path: Path) -> None:
    private = Sealed()
    key = SealedKey(private)
    chain = tmp_path / "certificate.pem"
    chain.write_bytes(server.ca.sign(key.csr(), DEVICE))
    assert private.signatures == 1
    link = Link(server.address, Credentials(key, chain, server.ca.ca))
    answer = link.renew(key.csr())
    link.close()
    assert x509.load_pem_x509_certificate(answer.certificate_chain_pem).public_key() == key.public_key()
    assert private.signatures == 3  # two requests, one handshake


def test_a_key_that_is_gone_is_a_line_that_is_down_and_says_why(server: RenewalServer, tmp_path: Path) -> None:
    private = Sealed()
    key, chain = SealedKey(private), tmp_path / "certificate.pem"
    chain.write_bytes(server.ca.sign(key.csr(), DEVICE))
    csr = key.csr()
    private.removed = True
    link = Link(server.address, Credentials(key, chain, server.ca.ca))
    with pytest.raises(LinkDown, match="the token was pulled out"):
        link.renew(csr)
    link.close()


def test_a_certificate_of_another_key_is_not_taken(server: RenewalServer, tmp_path: Path) -> None:
    owner, thief, chain = SealedKey(Sealed()), SealedKey(Sealed()), tmp_path / "certificate.pem"
    chain.write_bytes(server.ca.sign(owner.csr(), DEVICE, timedelta(days=1)))
    link = Link(server.address, Credentials(thief, chain, server.ca.ca))
    with pytest.raises(LinkDown):
        link.renew(thief.csr())
    link.close()
    assert server.calls == 0


@pytest.mark.parametrize("kind", ["rsa", "other curve", "rubbish", "empty"])
def test_a_file_with_something_else_than_a_device_key_is_named(tmp_path: Path, kind: str) -> None:
    keys = FileKeys()
    keys.make(tmp_path)
    keys.load(tmp_path)
    made: Any = {"rsa": lambda: rsa.generate_private_key(65537, 2048), "other curve": _p384}.get(kind)
    plain = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    content = made().private_bytes(*plain) if made else {"rubbish": b"rubbish", "empty": b""}[kind]
    (tmp_path / "key.pem").write_bytes(content)
    with pytest.raises(IdentityError, match=r"key\.pem is .*remove it and enrol the device again"):
        keys.load(tmp_path)


def _p384() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())
