"""The life of a certificate between the real ends: a running controller, and the agent's own code, over real TLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import grpc
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgewright_agent import succession
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.device_key import FileKeys, IdentityError
from edgewright_agent.enrolment import enrol
from edgewright_agent.identity import FOLDER, Identity
from edgewright_agent.link import Credentials, Link, LinkDown, Refused
from edgewright_agent.succession import Means
from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller import pki
from tests.controller.service_rig import Controller, controller, words


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "controller") as running:
        yield running


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "device"


async def token(fleet: Controller, device: str = "jetson-01") -> str:
    asked = operator_pb2.CreateEnrolmentRequest(device=device)
    return str((await fleet.operator.CreateEnrolment(asked, timeout=10)).token)


async def enrolled(fleet: Controller, state: Path, device: str = "jetson-01") -> Identity:
    return await asyncio.to_thread(enrol, await token(fleet, device), state)


def opened(identity: Identity) -> Callable[[Credentials], Link]:
    return lambda shown: Link(identity.controller_address, shown)


def shown(identity: Identity) -> Credentials:
    return Credentials(identity.key, identity.certificate_path, identity.ca_path)


async def check_in(identity: Identity) -> agent_pb2.CheckInResponse:
    line = opened(identity)(shown(identity))
    try:
        return await asyncio.to_thread(line.check_in, agent_pb2.CheckInRequest())
    finally:
        line.close()


def means(state: Path, identity: Identity) -> Means:
    return Means(state, opened(identity), Cancellation())


async def renew(state: Path) -> Identity:
    identity = Identity.load(state)
    line = opened(identity)(shown(identity))
    now = datetime.now(timezone.utc)
    try:
        return await asyncio.to_thread(succession.renew, means(state, identity), identity, line, now)
    finally:
        line.close()


async def come_back(state: Path) -> Identity:
    identity = Identity.load(state)
    now = datetime.now(timezone.utc)
    return await asyncio.to_thread(succession.come_back, means(state, identity), identity, now)


async def test_a_device_renews_and_its_old_certificate_stays_good(fleet: Controller, state: Path) -> None:
    first = await enrolled(fleet, state)
    old = first.key, first.certificate_path.read_bytes()
    second = await renew(state)
    assert second.key != old[0]
    assert second.life.not_after - second.life.not_before <= timedelta(days=30, minutes=5)
    await check_in(second)
    await check_in(first)  # its pair is tidied away by the agent's loop only


@pytest.mark.attack("renewal in a loop over the wire")
async def test_too_many_renewals_are_put_off_and_the_device_goes_on(fleet: Controller, state: Path) -> None:
    await enrolled(fleet, state)
    for _ in range(3):
        identity = await renew(state)
    with pytest.raises(LinkDown, match="resource exhausted: jetson-01 got 4 certificates within 7 days"):
        await renew(state)
    assert Identity.load(state) == identity
    await check_in(identity)


async def test_an_expired_device_comes_back_and_checks_in(
    fleet: Controller, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pki, "DEVICE_LIFE", timedelta(minutes=-1))
        expired = await enrolled(fleet, state)
    with pytest.raises(LinkDown):
        await check_in(expired)
    back = await come_back(state)
    assert back.key == expired.key
    await check_in(back)


@pytest.mark.attack("replaced predecessor returns over the wire")
async def test_a_predecessor_is_told_that_it_was_replaced(
    fleet: Controller, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(pki, "DEVICE_LIFE", timedelta(minutes=-1))
        await enrolled(fleet, state)
    await come_back(state)
    successor = await enrolled(fleet, tmp_path / "successor")
    with pytest.raises(Refused, match=r"the certificate of device jetson-01 was revoked \(replaced\)"):
        await check_in(Identity.load(state))
    with pytest.raises(Refused, match="revoked"):
        await renew(state)
    with pytest.raises(Refused, match="was replaced by another one; enrol with a token"):
        await come_back(state)
    await check_in(successor)


async def test_a_device_enrols_by_its_own_key(fleet: Controller, state: Path) -> None:
    public = FileKeys().make(state / FOLDER).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    asked = operator_pb2.AuthoriseKeyRequest(device="jetson-01", public_key_pem=pem)
    made = await fleet.operator.AuthoriseKey(asked, timeout=10)
    assert made.enrolled_unix_ms == 0
    identity = await asyncio.to_thread(enrol, made.token, state)
    assert identity.key.public_key() == public
    await check_in(identity)
    assert await asyncio.to_thread(enrol, made.token, state) == identity
    again = await fleet.operator.AuthoriseKey(asked, timeout=10)
    assert again.enrolled_unix_ms > 0


@pytest.mark.attack("somebody else runs the line of an authorised key")
async def test_the_line_alone_enrols_nobody(fleet: Controller, state: Path, tmp_path: Path) -> None:
    public = FileKeys().make(state / FOLDER).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    asked = operator_pb2.AuthoriseKeyRequest(device="jetson-01", public_key_pem=pem)
    made = await fleet.operator.AuthoriseKey(asked, timeout=10)
    with pytest.raises(IdentityError, match="refused this device's key: this key is not known here"):
        await asyncio.to_thread(enrol, made.token, tmp_path / "thief")
    assert (await asyncio.to_thread(enrol, made.token, state)).device == "jetson-01"


async def test_a_wrong_key_is_bad_input(fleet: Controller) -> None:
    asked = operator_pb2.AuthoriseKeyRequest(device="jetson-01", public_key_pem="hello")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await fleet.operator.AuthoriseKey(asked, timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a public key in PEM" in words(refused.value)


async def test_whoever_makes_a_token_is_told_that_the_id_is_in_use(fleet: Controller, state: Path) -> None:
    asked = operator_pb2.CreateEnrolmentRequest(device="jetson-01")
    assert (await fleet.operator.CreateEnrolment(asked, timeout=10)).enrolled_unix_ms == 0
    await enrolled(fleet, state)
    assert (await fleet.operator.CreateEnrolment(asked, timeout=10)).enrolled_unix_ms > 0
