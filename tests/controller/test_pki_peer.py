"""A certificate says who its holder is in exactly one way, or nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

from edgewright_controller.pki import PeerRefused, peer
from edgewright_controller.pki_files import pem
from tests.controller.pki_requests import NOW, new_key


def _certificate(cns: list[str], uris: list[str]) -> bytes:
    key = new_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cn) for cn in cns])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(0xABC)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return pem(builder.sign(key, hashes.SHA256()))


def test_a_device_is_named_by_uri_and_common_name() -> None:
    found = peer(_certificate(["mac-01"], ["edgewright://demo/device/mac-01"]), "demo")
    assert (found.kind, found.id, found.role) == ("device", "mac-01", "")
    assert (found.serial, found.not_after) == ("abc", NOW + timedelta(days=1))


def test_a_uri_of_another_scheme_beside_it_does_not_matter() -> None:
    found = peer(_certificate(["mac-01"], ["edgewright://demo/device/mac-01", "https://example.org/mac-02"]), "demo")
    assert found.id == "mac-01"


@pytest.mark.parametrize(
    ("cns", "uris"),
    [
        (["mac-01"], []),
        (["mac-01"], ["https://example.org/"]),
        (["mac-01"], ["edgewright://demo/device/mac-02"]),
        (["mac-01"], ["edgewright://demo/device/mac-01", "edgewright://demo/device/mac-02"]),
        (["mac-01", "mac-02"], ["edgewright://demo/device/mac-01"]),
        (["mac-01"], ["edgewright://other/device/mac-01"]),
        (["mac-01"], ["edgewright://demo/device/mac-01/../operator"]),
        (["mac-01"], ["edgewright://demo/device/mac-01?role=admin"]),
        (["operator.admin"], ["edgewright://demo/device/admin"]),
        (["admin"], ["edgewright://demo/operator/admin?role=admin"]),
        (["operator.admin"], ["edgewright://demo/operator/admin"]),
        (["operator.admin"], ["edgewright://demo/operator/admin?role=admin&role=viewer"]),
        (["service.a"], ["edgewright://demo/service/b"]),
    ],
)
def test_anything_ambiguous_or_contradictory_is_refused(cns: list[str], uris: list[str]) -> None:
    with pytest.raises(PeerRefused):
        peer(_certificate(cns, uris), "demo")


def test_rubbish_is_refused() -> None:
    with pytest.raises(PeerRefused):
        peer(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "demo")
