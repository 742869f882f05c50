"""A device enrols over a real TLS connection, once, and through any power cut."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from edgewright_agent.device_key import KEY_FILE, FileKeys
from edgewright_agent.enrolment import enrol
from edgewright_agent.identity import Identity, IdentityError
from edgewright_agent.trust_store import TrustStore
from edgewright_contract import enrolment_token
from edgewright_contract.v1 import enrolment_pb2, enrolment_pb2_grpc
from edgewright_controller.enrolment import EnrolmentRefused, EnrolmentRow, Enrolments
from edgewright_controller.peers import key_digest
from edgewright_controller.pki import Authority, requested_key
from tests.agent.trust_fleet import Fleet


class TokensInMemory:
    """The store's seam, on a dictionary."""

    def __init__(self) -> None:
        self.rows: dict[str, EnrolmentRow] = {}

    def get(self, secret_sha256: str) -> EnrolmentRow | None:
        return self.rows.get(secret_sha256)

    def put(self, row: EnrolmentRow) -> None:
        self.rows[row.secret_sha256] = row


class Controller(enrolment_pb2_grpc.EnrolmentServicer):
    """A real enrolment service on loopback, whose answers a test can spoil."""

    def __init__(self, folder: Path):
        # TLS judges by the machine's clock.
        self.now = datetime.now(timezone.utc)
        self.authority = Authority.open(folder / "pki", "demo", self.now)
        self.fleet = Fleet(folder, now=self.now)
        self.spoil: dict[str, object] = {}
        self.revoked: set[str] = set()
        self.calls = 0
        pair = self.authority.server_certificate(["127.0.0.1"])
        credentials = grpc.ssl_server_credentials([(pair.key.read_bytes(), pair.chain.read_bytes())])
        self.server = grpc.server(ThreadPoolExecutor(1))
        enrolment_pb2_grpc.add_EnrolmentServicer_to_server(self, self.server)
        self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.enrolments = Enrolments(self.authority, TokensInMemory(), f"127.0.0.1:{self.port}")
        self.server.start()

    def revoke(self, identity: Identity) -> None:
        self.revoked.add(key_digest(identity.key.public_key()))

    def token(self, device: str = "jetson-01") -> str:
        return self.enrolments.create(device, 3600, self.now)

    def Enrol(self, request: enrolment_pb2.EnrolRequest, context: grpc.ServicerContext) -> enrolment_pb2.EnrolResponse:
        self.calls += 1
        if key_digest(requested_key(request.csr_der)) in self.revoked:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "this key was revoked")
        try:
            device, chain = self.enrolments.redeem(request.token, request.csr_der, self.now)
        except EnrolmentRefused as error:
            context.abort(grpc.StatusCode.PERMISSION_DENIED, str(error))
            raise AssertionError from error
        answer = enrolment_pb2.EnrolResponse(
            certificate_chain_pem=chain,
            ca_pem=self.authority.ca_pem,
            device=device,
            fleet="demo",
            image_root=self.fleet.image.first_root,
            director_root=self.fleet.director.first_root,
            controller_address="127.0.0.1:7444",
            mqtt_address="127.0.0.1:8883",
        )
        for field, value in self.spoil.items():
            setattr(answer, field, value)
        return answer


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    made = Controller(tmp_path / "controller")
    yield made
    made.server.stop(None).wait(10)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "device"


def test_a_device_enrols_and_knows_who_it_is(controller: Controller, state: Path) -> None:
    identity = enrol(controller.token(), state)
    assert (identity.device, identity.fleet) == ("jetson-01", "demo")
    assert (identity.controller_address, identity.mqtt_address) == ("127.0.0.1:7444", "127.0.0.1:8883")
    assert identity.ca_path.read_bytes() == controller.authority.ca_pem
    assert identity.life.not_after > controller.now + timedelta(days=29)
    assert identity.enrolment_address == f"127.0.0.1:{controller.port}"
    assert (state / "identity" / KEY_FILE).stat().st_mode & 0o077 == 0
    assert len(x509.load_pem_x509_certificates(identity.certificate_path.read_bytes())) == 2
    assert Identity.load(state) == identity
    assert {held.version for held in TrustStore.open(state / "agent.sqlite").held()} == {1}


def test_an_enrolled_device_trusts_its_controllers_metadata(controller: Controller, state: Path) -> None:
    identity = enrol(controller.token(), state)
    store = TrustStore.open(state / "agent.sqlite")
    signed = controller.fleet.sign("a", 1, now=controller.now)
    assert store.apply(controller.fleet.answer(store, signed), identity, controller.now).generation == 1


def test_the_same_token_again_changes_nothing_and_asks_nobody(controller: Controller, state: Path) -> None:
    token = controller.token()
    identity = enrol(token, state)
    before = {path: path.read_bytes() for path in (state / "identity").iterdir()}
    assert enrol(token, state) == identity
    assert {path: path.read_bytes() for path in (state / "identity").iterdir()} == before
    assert controller.calls == 1


# What was written, in this order, when the power went.
@pytest.mark.parametrize("written", range(6))
def test_a_power_cut_anywhere_is_repaired_by_the_same_token(
    controller: Controller, state: Path, tmp_path: Path, written: int
) -> None:
    token = controller.token()
    whole = enrol(token, state)
    certificate = whole.certificate_path.read_bytes()
    order = [
        "identity/key.pem",
        "agent.sqlite",
        "identity/certificate.pem",
        "identity/ca.pem",
        "identity/enrolment.json",
    ]
    cut = tmp_path / "cut"
    (cut / "identity").mkdir(parents=True)
    for name in order[:written]:
        shutil.copy(state / name, cut / name)
    if written == 0:
        # The key was lost before it was durable, and the token is bound to it.
        with pytest.raises(IdentityError, match="used already"):
            enrol(token, cut)
        assert enrol(controller.token(), cut).device == "jetson-01"
        return
    assert enrol(token, cut).device == "jetson-01"
    assert (cut / "identity" / "certificate.pem").read_bytes() == certificate
    assert TrustStore.open(cut / "agent.sqlite").held()


def test_a_new_token_renews_the_certificate_under_the_same_key(controller: Controller, state: Path) -> None:
    first = enrol(controller.token(), state)
    certificate = first.certificate_path.read_bytes()
    second = enrol(controller.token(), state)
    assert second.key == first.key
    assert second.certificate_path.read_bytes() != certificate
    assert Identity.load(state) == second


@pytest.mark.parametrize("written", range(6))
def test_a_device_whose_key_was_revoked_enrols_with_another_through_any_power_cut(
    controller: Controller, state: Path, tmp_path: Path, written: int
) -> None:
    """What was written, in this order, when the power went: the same token repairs it, with the same certificate."""
    controller.revoke(enrol(controller.token(), state))
    before = tmp_path / "before"
    shutil.copytree(state, before)
    token = controller.token()
    renewed = enrol(token, state)
    assert renewed.certificate_path == state / "identity" / "1" / "certificate.pem"
    order = ["identity/1/key.pem", "identity/1/certificate.pem", "identity/ca.pem", "identity/current"]
    order += ["identity/enrolment.json"]
    for name in order[:written]:
        (before / name).parent.mkdir(exist_ok=True)
        shutil.copy(state / name, before / name)
    if written == 0:
        with pytest.raises(IdentityError, match="used already"):  # by the key that was lost before it was durable
            enrol(token, before)
        return
    again = enrol(token, before)
    assert again.certificate_path.read_bytes() == renewed.certificate_path.read_bytes()
    assert Identity.load(before) == again


def test_a_key_that_a_renewal_left_over_before_the_revocation_is_not_taken_either(
    controller: Controller, state: Path
) -> None:
    first = enrol(controller.token(), state)
    left = FileKeys().make(state / "identity" / "1")
    controller.revoke(first)
    controller.revoked.add(key_digest(left.public_key()))
    identity = enrol(controller.token(), state)
    assert identity.key.public_key() not in (first.key.public_key(), left.public_key())
    assert Identity.load(state) == identity


def test_a_state_folder_belongs_to_one_device(controller: Controller, state: Path) -> None:
    enrol(controller.token(), state)
    with pytest.raises(IdentityError, match="belongs to device jetson-01, and the token is for mac-01"):
        enrol(controller.token("mac-01"), state)
    assert Identity.load(state).device == "jetson-01"


def test_a_used_token_is_refused_with_the_controllers_reason(
    controller: Controller, state: Path, tmp_path: Path
) -> None:
    token = controller.token()
    enrol(token, state)
    with pytest.raises(IdentityError, match=r"refused the token: .*used already"):
        enrol(token, tmp_path / "thief")
    with pytest.raises(IdentityError, match="no enrolled device"):
        Identity.load(tmp_path / "thief")


def test_a_controller_of_another_ca_gets_no_secret(controller: Controller, state: Path, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "other", "demo", controller.now)
    der = x509.load_pem_x509_certificate(other.ca_pem).public_bytes(Encoding.DER)
    honest = enrolment_token.parse(controller.token())
    with pytest.raises(IdentityError, match="no enrolment at"):
        enrol(replace(honest, ca_der=der).encode(), state)
    assert controller.calls == 0
    assert enrol(honest.encode(), state).device == "jetson-01"


def test_no_controller_is_one_clear_line(controller: Controller, state: Path) -> None:
    token = controller.token()
    controller.server.stop(None).wait(10)
    with pytest.raises(IdentityError, match=r"no enrolment at 127\.0\.0\.1:.*check that the controller runs"):
        enrol(token, state)


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("device", "mac-01", "enrolled 'mac-01', not 'jetson-01'"),
        ("fleet", "other", "not that of jetson-01"),
        ("certificate_chain_pem", b"", "did not sign"),
        ("image_root", b"{}", "image root does not vouch for itself"),
        ("director_root", b"", "director root does not vouch for itself"),
        ("controller_address", "", "not host:port"),
        ("mqtt_address", "nonsense", "not host:port"),
    ],
)
def test_a_spoilt_answer_leaves_the_device_unenrolled(
    controller: Controller, state: Path, field: str, value: object, told: str
) -> None:
    token = controller.token()
    controller.spoil = {field: value}
    with pytest.raises(IdentityError, match=told):
        enrol(token, state)
    with pytest.raises(IdentityError, match="no enrolled device"):
        Identity.load(state)
    controller.spoil = {}
    assert enrol(token, state).device == "jetson-01"


def test_the_certificate_of_another_key_is_refused(controller: Controller, state: Path, tmp_path: Path) -> None:
    csr = FileKeys().make(tmp_path / "elsewhere").csr()
    controller.spoil = {"certificate_chain_pem": controller.authority.issue_device("jetson-01", csr, controller.now)}
    with pytest.raises(IdentityError, match="not that of jetson-01 and its key"):
        enrol(controller.token(), state)


def test_another_controllers_roots_are_not_taken_over(controller: Controller, state: Path, tmp_path: Path) -> None:
    enrol(controller.token(), state)
    controller.spoil = {"director_root": Fleet(tmp_path / "other", now=controller.now).director.first_root}
    with pytest.raises(IdentityError, match="belongs to a device of another controller"):
        enrol(controller.token(), state)


def test_a_token_of_another_controller_is_not_spent_on_an_enrolled_device(
    controller: Controller, state: Path, tmp_path: Path
) -> None:
    enrol(controller.token(), state)
    other = Controller(tmp_path / "other")
    try:
        with pytest.raises(IdentityError, match="belongs to fleet demo, and the token is of another controller"):
            enrol(other.token(), state)
        assert other.calls == 0
    finally:
        other.server.stop(None)
    assert Identity.load(state).fleet == "demo"


@pytest.mark.parametrize("name", ["key.pem", "certificate.pem", "ca.pem", "enrolment.json"])
@pytest.mark.parametrize("content", [None, b"", b"rubbish"])
def test_a_lost_or_damaged_file_is_named_with_what_to_do(
    controller: Controller, state: Path, name: str, content: bytes | None
) -> None:
    enrol(controller.token(), state)
    file = state / "identity" / name
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(IdentityError, match="enrol"):
        Identity.load(state)


def test_the_key_is_made_once(tmp_path: Path) -> None:
    FileKeys().make(tmp_path / "identity")
    before = (tmp_path / "identity" / "key.pem").read_bytes()
    request = x509.load_der_x509_csr(FileKeys().make(tmp_path / "identity").csr())
    assert (tmp_path / "identity" / "key.pem").read_bytes() == before
    assert request.is_signature_valid


@pytest.mark.parametrize("day", ["1970-01-01", "2020-02-29", "2999-12-31"])
def test_a_clock_that_cannot_be_right_is_said_before_the_token_is_spent(
    controller: Controller, state: Path, day: str
) -> None:
    token = controller.token()
    now = datetime.fromisoformat(day).replace(tzinfo=timezone.utc)
    with pytest.raises(IdentityError, match=rf"clock says {day} 00:00 UTC, but .* set the clock"):
        enrol(token, state, now=now)
    assert controller.calls == 0
    assert enrol(token, state).device == "jetson-01"


@pytest.mark.attack("operator's certificate in a device's folder")
def test_a_certificate_of_the_wrong_kind_is_no_identity(controller: Controller, state: Path, tmp_path: Path) -> None:
    enrol(controller.token(), state)
    Identity.load(state)
    files = controller.authority.operator_certificate(folder=tmp_path / "operator")
    shutil.copy(files.key, state / "identity" / "key.pem")
    shutil.copy(files.chain, state / "identity" / "certificate.pem")
    with pytest.raises(IdentityError, match="not that of jetson-01 and its key; enrol the device again"):
        Identity.load(state)


def test_a_token_whose_authority_is_rubbish_is_damaged(controller: Controller, state: Path) -> None:
    honest = enrolment_token.parse(controller.token())
    with pytest.raises(IdentityError, match="holds no certificate; copy it again"):
        enrol(replace(honest, ca_der=b"rubbish").encode(), state)


def test_a_text_that_is_no_token_is_refused(state: Path) -> None:
    with pytest.raises(IdentityError, match="starts with 'ewt1"):
        enrol("hello", state)
    assert not state.exists()
