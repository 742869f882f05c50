"""The authority issues what each peer may have, and nothing more."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgewright_controller.pki import DEVICE_LIFE, Authority, AuthorityError, CsrRefused, peer
from tests.controller.pki_requests import NOW, leaf_of, new_key, request


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "pki", "demo", NOW)


def test_a_device_gets_its_own_name_whatever_it_asked_for(authority: Authority) -> None:
    key = new_key()
    chain = authority.issue_device("jetson-01", request(key, cn="operator.admin"), NOW)
    leaf, middle = x509.load_pem_x509_certificates(chain)
    assert leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "jetson-01"
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["edgewright://demo/device/jetson-01"]
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert leaf.not_valid_after_utc == NOW + DEVICE_LIFE
    assert leaf.public_key() == key.public_key()
    leaf.verify_directly_issued_by(middle)
    middle.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.ca_pem))


def test_a_request_of_another_kind_of_key_is_refused(authority: Authority) -> None:
    weak = rsa.generate_private_key(65537, 2048)
    with pytest.raises(CsrRefused, match="P-256"):
        authority.issue_device("jetson-01", request(weak), NOW)
    with pytest.raises(CsrRefused, match="P-256"):
        authority.issue_device("jetson-01", request(ec.generate_private_key(ec.SECP384R1())), NOW)


def test_a_request_not_signed_by_its_key_is_refused(authority: Authority) -> None:
    honest = bytearray(request(new_key()))
    authority.issue_device("jetson-01", bytes(honest), NOW)
    honest[-1] ^= 1
    with pytest.raises(CsrRefused):
        authority.issue_device("jetson-01", bytes(honest), NOW)


@pytest.mark.parametrize("rubbish", [b"", b"\x30\x00", b"-----BEGIN", b"\x30" * 5000])
def test_rubbish_instead_of_a_request_is_refused(authority: Authority, rubbish: bytes) -> None:
    with pytest.raises(CsrRefused):
        authority.issue_device("jetson-01", rubbish, NOW)


@pytest.mark.parametrize("device", ["service.controller-1", "", "+", "Jetson", "a/b"])
def test_a_name_outside_the_grammar_of_devices_is_refused(authority: Authority, device: str) -> None:
    with pytest.raises(CsrRefused, match="not a device id"):
        authority.issue_device(device, request(new_key()), NOW)


def test_opening_again_changes_no_byte(tmp_path: Path, authority: Authority) -> None:
    authority.server_certificate(["localhost", "127.0.0.1"])
    authority.operator_certificate()
    authority.service_client_certificate()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    again = Authority.open(tmp_path / "pki", "demo", NOW + timedelta(days=1))
    again.server_certificate(["127.0.0.1", "localhost"])
    again.operator_certificate()
    again.service_client_certificate()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    assert (tmp_path / "pki" / "root.key").stat().st_mode & 0o077 == 0
    assert (tmp_path / "operator" / "admin.key").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("made", [["root.key"], ["root.key", "root.crt"], ["root.key", "root.crt", "intermediate.key"]])
def test_a_creation_that_was_cut_off_is_completed(tmp_path: Path, made: list[str]) -> None:
    whole = Authority.open(tmp_path / "whole", "demo", NOW)
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in made:
        (cut / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    completed = Authority.open(cut, "demo", NOW)
    if "root.crt" in made:
        assert completed.ca_pem == whole.ca_pem
    completed.issue_device("jetson-01", request(new_key()), NOW)
    assert Authority.open(cut, "demo", NOW).ca_pem == completed.ca_pem


def test_a_lost_key_is_reported_and_never_replaced(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "pki" / "intermediate.key").unlink()
    with pytest.raises(AuthorityError, match=r"intermediate.key is lost.*restore the key"):
        Authority.open(tmp_path / "pki", "demo", NOW)
    assert not (tmp_path / "pki" / "intermediate.key").exists()


def test_the_roots_key_may_be_elsewhere_until_an_intermediate_is_needed(tmp_path: Path, authority: Authority) -> None:
    (tmp_path / "pki" / "root.key").unlink()
    opened = Authority.open(tmp_path / "pki", "demo", NOW)
    assert opened.ca_pem == authority.ca_pem
    opened.issue_device("jetson-01", request(new_key()), NOW)
    (tmp_path / "pki" / "intermediate.crt").unlink()
    with pytest.raises(AuthorityError, match=r"the key of .*root.crt is not here; take a request to its holder"):
        Authority.open(tmp_path / "pki", "demo", NOW)


@pytest.mark.parametrize("name", ["root.key", "root.crt", "intermediate.key", "intermediate.crt"])
def test_a_damaged_file_is_named(tmp_path: Path, authority: Authority, name: str) -> None:
    file = tmp_path / "pki" / name
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(AuthorityError, match=f"{name} is damaged"):
        Authority.open(tmp_path / "pki", "demo", NOW)


def test_the_authority_of_another_fleet_is_refused(tmp_path: Path, authority: Authority) -> None:
    with pytest.raises(AuthorityError, match="another fleet"):
        Authority.open(tmp_path / "pki", "other", NOW)


def test_an_intermediate_of_another_root_is_refused(tmp_path: Path, authority: Authority) -> None:
    Authority.open(tmp_path / "other", "demo", NOW)
    for name in ("intermediate.key", "intermediate.crt"):
        (tmp_path / "pki" / name).write_bytes((tmp_path / "other" / name).read_bytes())
    with pytest.raises(AuthorityError, match=r"was not issued by"):
        Authority.open(tmp_path / "pki", "demo", NOW)


def test_the_server_certificate_is_issued_anew_for_other_hosts_and_near_its_end(authority: Authority) -> None:
    pair = authority.server_certificate(["localhost"])
    first, key = pair.chain.read_bytes(), pair.key.read_bytes()
    authority.server_certificate(["localhost"], NOW + timedelta(days=59))
    assert pair.chain.read_bytes() == first
    authority.server_certificate(["localhost", "::1"], NOW)
    other = pair.chain.read_bytes()
    assert other != first
    authority.server_certificate(["localhost", "::1"], NOW + timedelta(days=61))
    assert leaf_of(pair.chain.read_bytes()).not_valid_after_utc == NOW + timedelta(days=151)
    assert pair.key.read_bytes() == key


def test_a_damaged_server_chain_is_replaced(authority: Authority) -> None:
    pair = authority.server_certificate(["localhost"])
    pair.chain.write_bytes(b"half of a certif")
    authority.server_certificate(["localhost"])
    assert leaf_of(pair.chain.read_bytes()).not_valid_after_utc == NOW + timedelta(days=90)


def test_the_intermediate_is_renewed_before_it_ends(tmp_path: Path, authority: Authority) -> None:
    late = NOW + timedelta(days=1700)
    renewed = Authority.open(tmp_path / "pki", "demo", late)
    chain = renewed.issue_device("jetson-01", request(new_key()), late)
    leaf, middle = x509.load_pem_x509_certificates(chain)
    assert middle.not_valid_after_utc == late + timedelta(days=1825)
    leaf.verify_directly_issued_by(middle)
    assert renewed.ca_pem == authority.ca_pem


def _handshake(authority: Authority, chain: Path, key: Path) -> bytes:
    """The certificate that a real TLS server saw of a client with this chain and key."""
    pair = authority.server_certificate(["localhost"])
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pair.chain, pair.key)
    server.load_verify_locations(authority.ca_path)
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.create_default_context(cafile=str(authority.ca_path))
    client.load_cert_chain(chain, key)
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    theirs.settimeout(10)

    def speak() -> None:
        with client.wrap_socket(theirs, server_hostname="localhost") as wrapped:
            wrapped.sendall(b"x")

    thread = threading.Thread(target=speak)
    thread.start()
    try:
        with server.wrap_socket(ours, server_side=True) as wrapped:
            assert wrapped.recv(1) == b"x"
            seen = wrapped.getpeercert(binary_form=True)
    finally:
        ours.close()
        thread.join(10)
    assert seen is not None
    return ssl.DER_cert_to_PEM_cert(seen).encode()


@pytest.fixture
def current(tmp_path: Path) -> Authority:
    """An authority of today: TLS checks dates by the machine's clock."""
    return Authority.open(tmp_path / "pki", "demo", datetime.now(timezone.utc))


def test_tls_accepts_device_operator_and_service_as_clients(tmp_path: Path, current: Authority) -> None:
    key = new_key()
    chain = tmp_path / "device.crt"
    chain.write_bytes(current.issue_device("jetson-01", request(key), datetime.now(timezone.utc)))
    keyfile = tmp_path / "device.key"
    keyfile.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    seen = peer(_handshake(current, chain, keyfile), "demo")
    assert (seen.kind, seen.id, seen.role) == ("device", "jetson-01", "")
    admin = current.operator_certificate()
    seen = peer(_handshake(current, admin.chain, admin.key), "demo")
    assert (seen.kind, seen.id, seen.role) == ("operator", "admin", "admin")
    service = current.service_client_certificate()
    seen = peer(_handshake(current, service.chain, service.key), "demo")
    assert (seen.kind, seen.id, seen.role) == ("service", "controller-1", "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_tls_refuses_the_server_certificate_as_a_client(current: Authority) -> None:
    admin = current.operator_certificate()
    assert _handshake(current, admin.chain, admin.key)
    pair = current.server_certificate(["localhost"])
    with pytest.raises(ssl.SSLError):
        _handshake(current, pair.chain, pair.key)
