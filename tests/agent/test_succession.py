"""A certificate follows the other: over real connections, through power cuts, and never without a working pair."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent import key_pairs, succession
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.device_key import FileKeys
from edgewright_agent.identity import FOLDER, Identity, IdentityError
from edgewright_agent.key_pairs import Pairs
from edgewright_agent.link import BadAnswer, Credentials, Link, LinkDown, Refused
from edgewright_agent.renewing import LOOK_S, Renewing
from edgewright_agent.succession import Means
from edgewright_contract import durable
from edgewright_contract.v1 import agent_pb2
from tests.agent.renewal_server import DEVICE, RenewalServer, key_name
from tests.agent.throwaway_ca import ThrowawayCa

ENDED = timedelta(minutes=-1)


def now() -> datetime:
    """The time of the test, not of its collection: certificates are issued by the clock."""
    return datetime.now(timezone.utc)


class PowerCut(BaseException):
    """Not an Exception: nobody may handle it."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RenewalServer]:
    server = RenewalServer(ThrowawayCa(tmp_path / "ca"))
    yield server
    server.stop()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "device"


def credentials(identity: Identity) -> Credentials:
    return Credentials(identity.key, identity.certificate_path, identity.ca_path)


def open_line(server: RenewalServer) -> Callable[[Credentials], Link]:
    return lambda shown: Link(server.address, shown)


def means(server: RenewalServer, state: Path) -> Means:
    return Means(state, open_line(server), Cancellation())


def renew(server: RenewalServer, state: Path) -> Identity:
    identity = Identity.load(state)
    line = Link(server.address, credentials(identity))
    try:
        renewed = succession.renew(means(server, state), identity, line, now())
    finally:
        line.close()
    Pairs(state / FOLDER, FileKeys()).forget_former()
    return renewed


def come_back(server: RenewalServer, state: Path) -> Identity:
    return succession.come_back(means(server, state), Identity.load(state), now())


def works(server: RenewalServer, identity: Identity) -> bool:
    """Whether the controller takes this pair."""
    line = Link(server.address, credentials(identity))
    try:
        line.check_in(agent_pb2.CheckInRequest())
    except Refused:
        return True  # TLS let it through, as far as the controller's word
    except LinkDown:
        return False
    finally:
        line.close()
    return True


def files(state: Path) -> set[str]:
    folder = state / FOLDER
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_a_renewed_device_has_a_new_key_and_no_trace_of_the_old_one(server: RenewalServer, state: Path) -> None:
    server.enrolled(state)
    first = Identity.load(state)
    second = renew(server, state)
    assert second.key.public_key() != first.key.public_key()
    assert Identity.load(state) == second
    assert works(server, second)
    assert files(state) == {"1/key.pem", "1/certificate.pem", "current", "ca.pem", "enrolment.json"}
    third = renew(server, state)
    assert third.certificate_path == state / FOLDER / "2" / "certificate.pem"
    assert files(state) == {"2/key.pem", "2/certificate.pem", "current", "ca.pem", "enrolment.json"}
    assert server.renewals == 2


def test_an_older_device_learns_where_it_may_come_back(server: RenewalServer, state: Path) -> None:
    server.enrolled(state, keeps_address=False)
    assert Identity.load(state).enrolment_address == ""
    assert renew(server, state).enrolment_address == server.enrolment_address


def _cut_after(count: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The power goes after so many changes on the disk; what was changed, by name."""
    done: list[str] = []
    honest: dict[str, Any] = {"write": durable.write, "unlink": durable.unlink}

    def act(name: str) -> Callable[..., None]:
        def change(path: Path, *parts: Any, **how: Any) -> None:
            if len(done) == count:
                raise PowerCut
            honest[name](path, *parts, **how)
            done.append(f"{name} {path.name}")

        return change

    for name in honest:
        monkeypatch.setattr(durable, name, act(name))
    return done


# The changes of a whole renewal: key, certificate, pointer; then the old key and certificate go.
@pytest.mark.parametrize("written", range(6))
def test_a_power_cut_anywhere_leaves_a_pair_that_works_and_a_renewal_that_ends(
    server: RenewalServer, state: Path, written: int
) -> None:
    server.enrolled(state)
    with pytest.MonkeyPatch.context() as monkeypatch:
        done = _cut_after(written, monkeypatch)
        if written < 5:
            with pytest.raises(PowerCut):
                renew(server, state)
        else:
            renew(server, state)
    whole = ["write key.pem", "write certificate.pem", "write current", "unlink key.pem", "unlink certificate.pem"]
    assert done == whole[:written]
    assert works(server, Identity.load(state))
    ended = renew(server, state)
    assert works(server, ended)
    # The key was durable before it was asked with, so the cut cost no certificate.
    assert server.renewals == (1 if written < 3 else 2)
    assert {name.partition("/")[0] for name in files(state)} <= {"1", "2", "current", "ca.pem", "enrolment.json"}


def test_a_lost_answer_costs_no_second_certificate(server: RenewalServer, state: Path) -> None:
    server.enrolled(state)
    identity = Identity.load(state)

    class LosesTheAnswer(Link):
        def renew(self, csr_der: bytes) -> Any:
            super().renew(csr_der)
            raise LinkDown("cut")

    line = LosesTheAnswer(server.address, credentials(identity))
    with pytest.raises(LinkDown):
        succession.renew(means(server, state), identity, line, now())
    line.close()
    assert server.renewals == 1
    renew(server, state)
    assert server.renewals == 1


def test_a_pair_that_the_controller_refuses_is_never_used(server: RenewalServer, state: Path) -> None:
    server.enrolled(state)
    before = Identity.load(state)
    line = Link(server.address, credentials(before))

    def refusing(shown: Credentials) -> Link:
        server.refuse = "not this one"
        return Link(server.address, shown)

    with pytest.raises(Refused, match="not this one"):
        succession.renew(Means(state, refusing, Cancellation()), before, line, now())
    line.close()
    assert Identity.load(state) == before
    assert files(state) == {"key.pem", "certificate.pem", "ca.pem", "enrolment.json"}
    server.refuse = ""
    assert works(server, before)


def test_a_new_pair_that_cannot_be_tried_waits(server: RenewalServer, state: Path) -> None:
    server.enrolled(state)
    before = Identity.load(state)
    line = Link(server.address, credentials(before))
    nobody = Means(state, lambda shown: Link("127.0.0.1:1", shown), Cancellation())
    with pytest.raises(LinkDown):
        succession.renew(nobody, before, line, now())
    line.close()
    assert Identity.load(state) == before
    assert renew(server, state).key.public_key() != before.key.public_key()
    assert server.renewals == 1


@pytest.mark.attack("renewal answered with the certificate of another device")
def test_the_certificate_of_another_device_is_not_taken(server: RenewalServer, state: Path) -> None:
    server.enrolled(state)
    renew(server, state)
    before, server.named = Identity.load(state), "mac-01"
    with pytest.raises(IdentityError, match="not that of jetson-01 and its key"):
        renew(server, state)
    assert Identity.load(state) == before


@pytest.mark.attack("renewal answered by another authority")
def test_the_certificate_of_another_authority_is_not_taken(server: RenewalServer, state: Path, tmp_path: Path) -> None:
    server.enrolled(state)
    renew(server, state)
    before, server.signs = Identity.load(state), ThrowawayCa(tmp_path / "other")
    with pytest.raises(IdentityError, match="the fleet's CA did not sign"):
        renew(server, state)
    assert Identity.load(state) == before


def test_an_expired_device_comes_back_by_its_old_key(server: RenewalServer, state: Path) -> None:
    server.enrolled(state, ENDED)
    expired = Identity.load(state)
    assert not works(server, expired)
    back = come_back(server, state)
    assert back.key == expired.key
    assert works(server, back)
    assert Identity.load(state) == back


# What of the renewal was there when the device lost the controller for a month.
@pytest.mark.parametrize("left", ["nothing", "a key never asked with", "a key, and the answer was lost", "all"])
def test_a_device_comes_back_also_from_the_midst_of_a_renewal(server: RenewalServer, state: Path, left: str) -> None:
    server.enrolled(state, ENDED)
    pairs = Pairs(state / FOLDER, FileKeys())
    if left != "nothing":
        key = FileKeys().make(pairs.next().folder)
        if left != "a key never asked with":
            chain = server.ca.sign(key.csr(), DEVICE, timedelta(days=1) if left == "all" else ENDED)
            server.newest = (key_name(key.csr()), chain)
            if left == "all":
                pairs.next().certificate.write_bytes(chain)
    assert works(server, come_back(server, state))
    assert server.returns == (0 if left == "all" else 1)
    assert works(server, Identity.load(state))


def test_a_device_that_may_not_come_back_is_told_why_and_keeps_what_it_has(server: RenewalServer, state: Path) -> None:
    server.enrolled(state, ENDED)
    server.refuse = "the certificate of jetson-01 was revoked (stolen)"
    before = Identity.load(state)
    with pytest.raises(Refused, match="stolen"):
        come_back(server, state)
    assert Identity.load(state) == before


def test_an_older_enrolment_says_plainly_that_it_cannot_come_back(server: RenewalServer, state: Path) -> None:
    server.enrolled(state, ENDED, keeps_address=False)
    with pytest.raises(IdentityError, match="did not keep where to come back; enrol it again"):
        come_back(server, state)


@pytest.mark.parametrize("content", ["", "x", "-1", "1" * 12, "2"])
def test_a_damaged_pointer_is_named_with_what_to_do(server: RenewalServer, state: Path, content: str) -> None:
    server.enrolled(state)
    renew(server, state)
    (state / FOLDER / key_pairs.POINTER).write_text(content)
    with pytest.raises(IdentityError, match="enrol"):
        Identity.load(state)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"device": 1}'])
def test_a_damaged_enrolment_is_named(server: RenewalServer, state: Path, content: str) -> None:
    server.enrolled(state)
    (state / FOLDER / "enrolment.json").write_text(content)
    with pytest.raises(IdentityError, match=r"enrolment\.json is damaged"):
        Identity.load(state)


def test_a_strange_enrolment_address_is_damage(server: RenewalServer, state: Path) -> None:
    server.enrolled(state)
    path = state / FOLDER / "enrolment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "enrolment_address": 7}))
    with pytest.raises(IdentityError, match=r"enrolment\.json is damaged"):
        Identity.load(state)


def _renewing(server: RenewalServer, state: Path, renewed: list[Identity], now: datetime) -> tuple[Renewing, Link]:
    identity = Identity.load(state)
    line = Link(server.address, credentials(identity))
    loop = Renewing(state, identity, line, open_line=open_line(server), on_renewed=renewed.append, clock=lambda: now)
    return loop, line


async def test_the_loop_waits_renews_and_tidies_up(server: RenewalServer, state: Path) -> None:
    server.enrolled(state)
    renewed: list[Identity] = []
    early, line = _renewing(server, state, renewed, now())
    assert (await early.once(), renewed) == (LOOK_S, [])
    late, other = _renewing(server, state, renewed, now() + timedelta(hours=20))
    assert await late.once() == LOOK_S
    assert renewed == [Identity.load(state)]
    assert "key.pem" not in files(state)
    line.close()
    other.close()


async def test_the_loop_serves_on_without_a_controller_and_complains_once(
    server: RenewalServer, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.enrolled(state, ENDED)
    server.refuse = "never"
    loop, line = _renewing(server, state, [], now())
    pauses = [await loop.once() for _ in range(3)]
    assert 0 < pauses[0] < pauses[2]
    assert sum("never" in record.getMessage() for record in caplog.records) == 1
    server.refuse = ""
    assert await loop.once() == LOOK_S
    line.close()


async def test_a_full_disk_is_no_end_of_the_loop(
    server: RenewalServer, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.enrolled(state)
    loop, line = _renewing(server, state, [], now() + timedelta(hours=20))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write", full)
        assert await loop.once() < LOOK_S
    assert server.renewals == 0
    assert await loop.once() == LOOK_S
    line.close()


def test_a_call_that_runs_outlives_the_change_of_certificates(server: RenewalServer, state: Path) -> None:
    server.enrolled(state)
    first = Identity.load(state)
    line = Link(server.address, credentials(first))
    with line._calling() as stub:
        line.use(credentials(renew(server, state)))
        assert line.renew(Identity.load(state).key.csr())
        assert stub.Renew(_request(Identity.load(state)), timeout=10)
    line.close()


def _request(identity: Identity) -> Any:
    return agent_pb2.RenewRequest(csr_der=identity.key.csr())


def test_a_folder_without_an_identity_is_not_an_enrolled_device(server: RenewalServer, state: Path) -> None:
    server.enrolled(state)
    shutil.rmtree(state / FOLDER)
    with pytest.raises(IdentityError, match="belongs to no enrolled device"):
        Identity.load(state)


def test_what_is_not_the_same_certificate_again_is_not_used(server: RenewalServer, state: Path) -> None:
    server.enrolled(state)
    before = Identity.load(state)
    line = Link(server.address, credentials(before))

    def forgetful(shown: Credentials) -> Link:
        server.newest = ("", b"")
        return Link(server.address, shown)

    with pytest.raises(BadAnswer, match="does not know the certificate"):
        succession.renew(Means(state, forgetful, Cancellation()), before, line, now())
    line.close()
    assert Identity.load(state) == before


@pytest.mark.parametrize("hangs", ["the enrolment", "the trial"])
def test_an_agent_that_ends_does_not_wait_for_a_network_that_hangs(
    server: RenewalServer, state: Path, hangs: str
) -> None:
    server.enrolled(state, ENDED if hangs == "the enrolment" else timedelta(days=1))
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        identity = replace(Identity.load(state), enrolment_address=address)
        stuck = Means(state, lambda shown: Link(address, shown), Cancellation())
        line = Link(server.address, credentials(identity))
        with ThreadPoolExecutor(1) as thread:
            if hangs == "the enrolment":
                waiting = thread.submit(succession.come_back, stuck, identity, now())
            else:
                waiting = thread.submit(succession.renew, stuck, identity, line, now())
            silent.accept()
            stuck.cancellation.cancel()
            assert isinstance(waiting.exception(10), LinkDown)
        line.close()
    assert Identity.load(state).key == identity.key


async def test_a_clock_that_is_ahead_is_said_and_not_taken_for_a_renewal(
    server: RenewalServer, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.enrolled(state)
    loop, line = _renewing(server, state, [], now() + timedelta(days=40))
    assert await loop.once() == LOOK_S
    assert "this device's clock is past that; set it" in caplog.text
    line.close()
