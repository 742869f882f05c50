"""Certificates for devices, with a real ledger and a real authority, at any time of the clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from edgewright_contract import enrolment_token
from edgewright_contract.v1 import agent_pb2
from edgewright_controller.certificate_policy import MOST, TooOften
from edgewright_controller.enrolment import EnrolmentRefused, KeyRevoked
from edgewright_controller.ledger import Ledger, audit, certificates, devices
from edgewright_controller.ledger.certificates import DEVICE, CertificateRow
from edgewright_controller.peers import Peer, peer
from edgewright_controller.pki import Authority, CsrRefused
from edgewright_controller.service.admission import Admission, RenewalRefused
from edgewright_controller.service.revocations import Revocations
from edgewright_controller.service.tokens import Invitation, Tokens
from tests.controller.pki_requests import NOW, new_key, request

FLEET, ADDRESS = "plant-7", "controller.example:7444"
Key = ec.EllipticCurvePrivateKey


@dataclass
class Desk:
    """Admission and tokens over one ledger, with a clock of the test's."""

    ledger: Ledger
    authority: Authority
    now: datetime = NOW
    told: int = 0  # how often others heard that there are certificates

    def __post_init__(self) -> None:
        def clock() -> datetime:
            return self.now

        self.tokens = Tokens(self.ledger, self.authority, ADDRESS, clock)

        async def issued() -> None:
            self.told += 1

        self.admission = Admission(
            self.ledger,
            self.authority,
            ADDRESS,
            return_within=timedelta(days=90),
            clock=clock,
            issued=issued,
        )

    def later(self, **time: float) -> None:
        self.now += timedelta(**time)

    async def secret(self, device: str = "jetson-01") -> str:
        return enrolment_token.parse((await self.tokens.create(device, 0, "admin")).token).secret

    async def enrol(self, key: Key, device: str = "jetson-01") -> Peer:
        given, chain = await self.admission.enrol(await self.secret(device), request(key))
        assert given == device
        return peer(chain, FLEET)

    async def back(self, key: Key, cn: str = "any") -> Peer:
        _, chain = await self.admission.enrol("", request(key, cn))
        return peer(chain, FLEET)

    async def renew(self, caller: Peer, key: Key, cn: str = "any") -> Peer:
        return peer(await self.admission.renew(caller, request(key, cn)), FLEET)

    def held(self, device: str = "jetson-01") -> list[CertificateRow]:
        return self.ledger.read_now(lambda c: certificates.of(c, DEVICE, device))

    def actions(self) -> list[str]:
        return [row.action for row in self.ledger.read_now(lambda c: list(audit.entries(c)))]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    yield Desk(ledger, Authority.open(tmp_path / "pki", FLEET, NOW))
    ledger.close()


def pem(key: Key | rsa.RSAPrivateKey) -> str:
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, spki).decode()


# Renewal.


async def test_a_renewed_certificate_is_listed_beside_the_old_one_which_stays_good(desk: Desk) -> None:
    first = await desk.enrol(new_key())
    desk.later(days=15)
    second = await desk.renew(first, new_key())
    assert (second.id, second.not_after) == ("jetson-01", desk.now + timedelta(days=30))
    assert [row.serial for row in desk.held()] == [second.serial, first.serial]
    assert all(row.revoked_ms is None for row in desk.held())
    device = desk.ledger.read_now(lambda c: devices.get(c, "jetson-01"))
    assert device.certificate_serial == second.serial
    assert desk.actions() == ["enrolment.create", "device.enrol", "certificate.renew"]


async def test_the_same_key_asks_in_vain_for_more_than_one_certificate(desk: Desk) -> None:
    first, key = await desk.enrol(new_key()), new_key()
    second = await desk.renew(first, key)
    for caller in (first, second) * 10:
        assert (await desk.renew(caller, key)).serial == second.serial
    assert len(desk.held()) == 2
    assert len(desk.actions()) == 3


@pytest.mark.attack("CSR with another's name")
async def test_the_names_in_a_request_are_ignored(desk: Desk) -> None:
    mac = await desk.enrol(new_key(), "mac-01")
    _, chain = await desk.admission.enrol(await desk.secret("jetson-01"), request(new_key(), cn="mac-01"))
    assert peer(chain, FLEET).id == "jetson-01"
    assert [row.serial for row in desk.held("mac-01")] == [mac.serial]


@pytest.mark.attack("renewal for another id")
async def test_a_device_renews_for_itself_alone(desk: Desk) -> None:
    jetson, mac = await desk.enrol(new_key()), await desk.enrol(new_key(), "mac-01")
    assert (await desk.renew(jetson, new_key())).id == "jetson-01"
    assert (await desk.renew(jetson, new_key(), cn="mac-01")).id == "jetson-01"
    assert [row.serial for row in desk.held("mac-01")] == [mac.serial]


@pytest.mark.attack("renewal of a key of another device")
async def test_a_key_that_had_a_certificate_is_not_renewed_with(desk: Desk) -> None:
    key, theirs = new_key(), new_key()
    jetson, mac = await desk.enrol(key), await desk.enrol(theirs, "mac-01")
    renewed = await desk.renew(jetson, new_key())
    for taken in (key, theirs):
        with pytest.raises(CsrRefused, match="this key had a certificate before"):
            await desk.renew(renewed, taken)
    assert [row.serial for row in desk.held("mac-01")] == [mac.serial]


@pytest.mark.attack("renewal in a loop")
async def test_a_device_that_renews_in_a_loop_does_not_fill_the_ledger(desk: Desk) -> None:
    caller = await desk.enrol(new_key())
    for _ in range(MOST - 1):
        caller = await desk.renew(caller, new_key())
    for _ in range(20):
        with pytest.raises(TooOften, match="there is another one from 2026-03-08 12:00 UTC on"):
            await desk.renew(caller, new_key())
    assert len(desk.held()) == MOST
    assert len(desk.actions()) == MOST + 1
    desk.later(days=7)
    await desk.renew(caller, new_key())


async def test_a_request_that_is_none_is_refused(desk: Desk) -> None:
    caller = await desk.enrol(new_key())
    with pytest.raises(CsrRefused, match="not a signing request"):
        await desk.admission.renew(caller, b"rubbish")
    stranger = replace(caller, id="mac-01")
    with pytest.raises(RenewalRefused, match="there is no device 'mac-01'"):
        await desk.renew(stranger, new_key())


@pytest.mark.attack("renewal with a revoked certificate")
async def test_a_revoked_certificate_renews_nothing(desk: Desk) -> None:
    caller = await desk.enrol(new_key())
    caller = await desk.renew(caller, new_key())
    _revoke(desk, caller.serial)
    with pytest.raises(RenewalRefused, match=r"was revoked \(stolen\)"):
        await desk.renew(caller, new_key())


# Return.


async def test_an_expired_device_comes_back_with_its_key(desk: Desk) -> None:
    key = new_key()
    first = await desk.enrol(key)
    desk.ledger.write_now(
        lambda c: devices.report(c, "jetson-01", agent_pb2.DeviceStatus(sequence=9, active_model="m"), 1)
    )
    desk.later(days=60)
    second = await desk.back(key)
    assert (second.id, second.key_sha256) == ("jetson-01", first.key_sha256)
    assert second.not_after == desk.now + timedelta(days=30)
    device = desk.ledger.read_now(lambda c: devices.get(c, "jetson-01"))
    assert (device.certificate_serial, device.status_sequence) == (second.serial, 9)
    assert desk.actions()[-1] == "device.return"


async def test_a_lost_answer_to_a_return_is_given_again(desk: Desk) -> None:
    key = new_key()
    await desk.enrol(key)
    desk.later(days=60)
    second = await desk.back(key)
    desk.later(minutes=10)
    assert (await desk.back(key)).serial == second.serial
    desk.later(minutes=1)
    with pytest.raises(EnrolmentRefused, match="is good until"):
        await desk.back(key)
    assert len(desk.held()) == 2


@pytest.mark.attack("replayed request to come back")
async def test_a_replayed_request_gives_a_certificate_of_a_key_that_the_thief_lacks(desk: Desk) -> None:
    key = new_key()
    owner = await desk.enrol(key)
    overheard = request(key)
    desk.later(days=60)
    honest = await desk.back(key)
    _, chain = await desk.admission.enrol("", overheard)
    stolen = peer(chain, FLEET)
    assert (stolen.serial, stolen.key_sha256) == (honest.serial, owner.key_sha256)
    spoilt = bytearray(overheard)
    spoilt[-1] ^= 1
    with pytest.raises(EnrolmentRefused, match="not signed by its own key"):
        await desk.admission.enrol("", bytes(spoilt))


@pytest.mark.attack("replaced predecessor returns")
async def test_a_replaced_predecessor_neither_returns_nor_renews(desk: Desk) -> None:
    old, new = new_key(), new_key()
    first = await desk.enrol(old)
    desk.later(days=31)
    await desk.back(old)  # until it is replaced, it may
    second = await desk.enrol(new)
    with pytest.raises(EnrolmentRefused, match=r"key of jetson-01 was replaced"):
        await desk.back(old)
    with pytest.raises(RenewalRefused, match=r"was revoked \(replaced\)"):
        await desk.renew(first, new_key())
    desk.later(days=31)
    with pytest.raises(EnrolmentRefused, match=r"key of jetson-01 was replaced"):
        await desk.back(old)
    assert (await desk.back(new)).key_sha256 == second.key_sha256


@pytest.mark.attack("predecessor of a renewal returns")
async def test_only_the_newest_key_of_a_device_returns(desk: Desk) -> None:
    old, new = new_key(), new_key()
    await desk.renew(await desk.enrol(old), new)
    desk.later(days=31)
    with pytest.raises(EnrolmentRefused, match="was replaced by another one"):
        await desk.back(old)
    await desk.back(new)


@pytest.mark.attack("revoked device returns")
async def test_a_revoked_device_does_not_come_back(desk: Desk) -> None:
    key, honest = new_key(), new_key()
    revoked = await desk.enrol(key)
    await desk.enrol(honest, "mac-01")
    _revoke(desk, revoked.serial)
    desk.later(days=31)
    assert (await desk.back(honest)).id == "mac-01"
    with pytest.raises(EnrolmentRefused, match=r"was revoked \(stolen\)"):
        await desk.back(key)


@pytest.mark.attack("device revoked after its end returns")
async def test_a_device_that_was_revoked_after_its_certificate_ended_does_not_come_back(desk: Desk) -> None:
    key = new_key()
    await desk.enrol(key)
    desk.later(days=31)
    await desk.back(key)
    desk.later(days=31)
    revocations = await Revocations.open(desk.ledger, lambda: desk.now)
    assert await revocations.revoke(DEVICE, "jetson-01", by="operator admin", why="stolen") == 2
    with pytest.raises(EnrolmentRefused, match=r"was revoked \(stolen\)"):
        await desk.back(key)


@pytest.mark.attack("re-enrolment under a stolen key")
async def test_a_key_whose_certificate_was_revoked_gets_no_other_and_the_token_is_good_for_another_key(
    desk: Desk,
) -> None:
    """A thief with a copy of the key would ask once more, within ten minutes or after its end, and get the same."""
    stolen, fresh = new_key(), new_key()
    _revoke(desk, (await desk.enrol(stolen)).serial)
    secret = await desk.secret()
    for _ in range(2):  # before and after the token was used
        with pytest.raises(KeyRevoked, match=r"was revoked with a certificate of jetson-01, and is good for none"):
            await desk.admission.enrol(secret, request(stolen))
        _, chain = await desk.admission.enrol(secret, request(fresh))
        assert peer(chain, FLEET).id == "jetson-01"
    with pytest.raises(KeyRevoked):
        await desk.tokens.authorise("jetson-01", pem(stolen), "admin")
    desk.later(days=31)
    with pytest.raises(EnrolmentRefused):
        await desk.back(stolen)
    await desk.back(fresh)


@pytest.mark.attack("authorised key that was revoked before it was used")
async def test_a_key_that_was_authorised_and_then_revoked_does_not_enrol(desk: Desk) -> None:
    key, honest = new_key(), new_key()
    first = await desk.enrol(key)
    await desk.tokens.authorise("jetson-01", pem(key), "admin")
    await desk.tokens.authorise("mac-01", pem(honest), "admin")
    _revoke(desk, first.serial)
    assert (await desk.back(honest)).id == "mac-01"
    with pytest.raises(KeyRevoked):
        await desk.back(key)


@pytest.mark.attack("return beyond the policy")
async def test_a_device_that_was_away_for_too_long_does_not_come_back(desk: Desk) -> None:
    early, late = new_key(), new_key()
    await desk.enrol(early)
    await desk.enrol(late, "mac-01")
    desk.later(days=30 + 89)
    await desk.back(early)
    desk.later(days=1)
    with pytest.raises(EnrolmentRefused, match=r"devices come back by themselves within 90 days"):
        await desk.back(late)


async def test_an_unknown_key_is_sent_away(desk: Desk) -> None:
    await desk.enrol(new_key())
    with pytest.raises(EnrolmentRefused, match="not known here; ask the operator for a token"):
        await desk.back(new_key())


# Enrolment, and replacement.


@pytest.mark.attack("token reuse by another key")
async def test_a_token_is_good_for_one_key(desk: Desk) -> None:
    secret, key = await desk.secret(), new_key()
    _, chain = await desk.admission.enrol(secret, request(key))
    assert (await desk.admission.enrol(secret, request(key)))[1] == chain
    with pytest.raises(EnrolmentRefused, match="was used already"):
        await desk.admission.enrol(secret, request(new_key()))
    (row,) = desk.held()
    assert row.revoked_ms is None


@pytest.mark.attack("token after its end")
async def test_an_old_token_is_refused(desk: Desk) -> None:
    early, late = await desk.secret(), await desk.secret()
    await desk.admission.enrol(early, request(new_key()))
    desk.later(hours=24)
    with pytest.raises(EnrolmentRefused, match=r"token ended at 2026-03-02 12:00 UTC; ask for a new one"):
        await desk.admission.enrol(late, request(new_key()))


async def test_another_machine_takes_over_the_id_and_every_earlier_certificate_ends(desk: Desk) -> None:
    first = await desk.enrol(new_key())
    second = await desk.renew(first, new_key())
    inventory, status = agent_pb2.Inventory(os="Linux"), agent_pb2.DeviceStatus(sequence=7, active_model="old")
    desk.ledger.write_now(lambda c: devices.put_inventory(c, "jetson-01", inventory, "d"))
    desk.ledger.write_now(lambda c: devices.report(c, "jetson-01", status, 1))
    desk.later(minutes=1)
    third = await desk.enrol(new_key())
    rows = {row.serial: row for row in desk.held()}
    assert rows[third.serial].revoked_ms is None
    for gone in (first, second):
        row = rows[gone.serial]
        assert (row.revoked_by, row.revoked_why, row.revoked_ms) == (
            "device jetson-01",
            "replaced",
            int(desk.now.timestamp() * 1000),
        )
    assert desk.told == 3
    device = desk.ledger.read_now(lambda c: devices.get(c, "jetson-01"))
    assert (device.status, device.inventory, device.status_sequence, device.seen_ms) == (None, None, 0, None)
    assert desk.actions()[-2:] == ["device.enrol", "certificate.revoke"]


async def test_the_same_machine_with_another_token_replaces_nobody(desk: Desk) -> None:
    key = new_key()
    first = await desk.enrol(key)
    renewed = await desk.renew(first, new_key())
    again = await desk.enrol(key)  # the renewal's answer was lost, and so was the device's disk
    assert {row.serial for row in desk.held() if row.revoked_ms is None} == {
        first.serial,
        renewed.serial,
        again.serial,
    }


@pytest.mark.attack("one key under two ids")
async def test_a_key_speaks_for_one_device_at_a_time(desk: Desk) -> None:
    key = new_key()
    await desk.enrol(key, "mac-01")
    secret = await desk.secret()
    with pytest.raises(EnrolmentRefused, match="is that of device mac-01; jetson-01 needs a key of its own"):
        await desk.admission.enrol(secret, request(key))
    assert (await desk.admission.enrol(secret, request(new_key())))[0] == "jetson-01"  # the token was not spent


# Authorised keys.


async def authorise(desk: Desk, key: Key, device: str = "jetson-01") -> Invitation:
    return await desk.tokens.authorise(device, pem(key), "admin")


async def test_an_authorised_key_enrols_once_without_a_secret(desk: Desk) -> None:
    key = new_key()
    made = await authorise(desk, key)
    token = enrolment_token.parse(made.token)
    assert (token.address, token.device, token.secret) == (ADDRESS, "jetson-01", "")
    first = await desk.back(key, cn="mac-01")
    assert (first.id, first.key_sha256) == ("jetson-01", made.key_sha256)
    desk.later(minutes=10)
    assert (await desk.back(key)).serial == first.serial
    desk.later(minutes=1)
    with pytest.raises(EnrolmentRefused, match="is good until"):
        await desk.back(key)
    assert desk.actions() == ["key.authorise", "device.enrol"]


@pytest.mark.attack("enrolment by a key that was authorised for nobody")
async def test_another_key_does_not_enrol_in_its_stead(desk: Desk) -> None:
    key = new_key()
    await authorise(desk, key)
    with pytest.raises(EnrolmentRefused, match="not known here"):
        await desk.back(new_key(), cn="jetson-01")
    await desk.back(key)


async def test_authorising_twice_is_authorising_once(desk: Desk) -> None:
    key = new_key()
    first = await authorise(desk, key)
    assert await authorise(desk, key) == first
    with pytest.raises(EnrolmentRefused, match="is authorised for jetson-01 already"):
        await authorise(desk, key, "mac-01")
    assert desk.actions() == ["key.authorise"]


async def test_a_used_key_may_be_authorised_again_and_not_for_another(desk: Desk) -> None:
    key = new_key()
    await authorise(desk, key)
    first = await desk.back(key)
    with pytest.raises(EnrolmentRefused, match="is that of device jetson-01"):
        await authorise(desk, key, "mac-01")
    desk.later(days=200)
    with pytest.raises(EnrolmentRefused, match="return_within_days"):
        await desk.back(key)
    await authorise(desk, key)
    again = await desk.back(key)
    assert again.serial != first.serial
    assert all(row.revoked_ms is None for row in desk.held())


async def test_a_new_machines_key_replaces_the_present_one(desk: Desk) -> None:
    first = await desk.enrol(new_key())
    key = new_key()
    assert (await authorise(desk, key)).enrolled_ms == int(NOW.timestamp() * 1000)
    await desk.back(key)
    assert {row.serial for row in desk.held() if row.revoked_why == "replaced"} == {first.serial}


PRIVATE = new_key().private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (lambda: "hello", "not a public key in PEM"),
        (lambda: "", "not a public key in PEM"),
        (lambda: "\udc80", "not a public key in PEM"),
        (PRIVATE.decode, "this is a private key, which should never leave its device"),
        (lambda: pem(rsa.generate_private_key(65537, 2048)), "of another kind, and a device's is of type P-256"),
        (lambda: pem(ec.generate_private_key(ec.SECP384R1())), "of another kind"),
    ],
)
async def test_what_is_no_devices_key_is_named(desk: Desk, text: Callable[[], str], said: str) -> None:
    with pytest.raises(EnrolmentRefused, match=f"{said}.*`edgewright-agent key`"):
        await desk.tokens.authorise("jetson-01", text(), "admin")
    with pytest.raises(EnrolmentRefused, match="'Mac 01' is not a device id"):
        await desk.tokens.authorise("Mac 01", pem(new_key()), "admin")
    assert desk.actions() == []


def _revoke(desk: Desk, *serials: str) -> None:
    desk.ledger.write_now(lambda c: certificates.revoke(c, serials, by="operator admin", why="stolen", now_ms=1))
