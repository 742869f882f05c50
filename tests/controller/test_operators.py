"""Operators by their commands, and the audit log: real certificates, real gRPC, commands as they are typed."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import delete, update

from edgewright_contract import enrolment_token, names
from edgewright_contract.v1 import enrolment_pb2, enrolment_pb2_grpc, operator_pb2
from edgewright_controller import operator_login
from edgewright_controller.cli import run
from edgewright_controller.client import Access, read_access
from edgewright_controller.enrolment import EnrolmentRefused
from edgewright_controller.ledger import Ledger, audit, certificates, operators, tables
from edgewright_controller.ledger.audit import AuditRow, Broken, Wanted, first_fault
from edgewright_controller.peers import peer
from edgewright_controller.pki import Authority
from edgewright_controller.service import audit_trail
from edgewright_controller.service.authorisation import METHODS, Role
from edgewright_controller.service.operators import OperatorRefused, Operators
from edgewright_controller.service.refusals import EVERY, MAX_CALLERS, Refusals
from tests.controller.ledger_rows import opened
from tests.controller.pki_requests import new_key, request
from tests.controller.service_rig import Controller, controller, manifest, words

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=timezone.utc)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


class Desk:
    """Where commands are typed, each operator in a folder of its own."""

    def __init__(self, fleet: Controller, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.fleet, self.folder, self._capsys = fleet, folder, capsys

    def config(self, who: str) -> Path:
        return self.fleet.running.client_toml if who == "admin" else self.folder / who / "client.toml"

    async def types(self, who: str, line: str, code: int = 0) -> str:
        """What the command said."""
        return await self._run([*line.split(), "--config", str(self.config(who))], code)

    async def _run(self, words_: list[str], code: int = 0) -> str:
        ended = await asyncio.to_thread(run, words_)
        said = self._capsys.readouterr()
        assert ended == code, said
        assert "Traceback" not in said.err
        return said.err if code else said.out

    async def token(self, name: str, role: str) -> str:
        line = await self.types("admin", f"operator add {name} --role {role}")
        assert line.startswith("edgewright login --token ewt1.")
        return line.split()[-1]

    async def login(self, token: str, folder: str, code: int = 0, *flags: str) -> str:
        return await self._run(["login", "--token", token, "--folder", str(self.folder / folder), *flags], code)

    async def new(self, name: str, role: str) -> None:
        await self.login(await self.token(name, role), name)

    def channel(self, who: str) -> Any:
        access = read_access(self.config(who))
        pems = (path.read_bytes() for path in (access.ca, access.key, access.certificate))
        return grpc.aio.secure_channel(access.address, grpc.ssl_channel_credentials(*pems))


@pytest.fixture
def desk(fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(fleet, tmp_path, capsys)


async def test_an_operator_logs_in_with_a_key_of_its_own_and_is_known(desk: Desk) -> None:
    said = await desk.login(await desk.token("alice", "operator"), "alice")
    assert said.startswith("logged in to fleet plant-7 as alice, operator; good until ")
    files = {path.name: path.stat().st_mode & 0o777 for path in (desk.folder / "alice").iterdir()}
    (key,) = [name for name in files if name.endswith(".key")]
    assert files[key] == 0o600
    assert (await desk.types("alice", "whoami")).startswith("alice, operator of fleet plant-7; certificate good until ")
    assert (await desk.types("admin", "whoami")).startswith("admin, admin of fleet plant-7")
    listed = await desk.types("admin", "operator list")
    assert "admin  admin  the controller's own" in listed
    assert "alice  operator  added by admin, until " in listed
    assert "alice  operator" in await desk.types("alice", "operator list")


@pytest.mark.attack("a viewer applies, an operator enrols a device")
async def test_each_role_may_what_its_row_says_and_no_more(desk: Desk, tmp_path: Path) -> None:
    for role in ("viewer", "operator", "admin"):
        await desk.new(f"one-{role}", role)
    (tmp_path / "fleet.toml").write_text(manifest(tmp_path, ["jetson-01"]))
    for role in ("viewer", "operator", "admin"):
        assert "fleet plant-7" in await desk.types(f"one-{role}", "status")
    said = await desk.types("one-viewer", f"apply {tmp_path / 'fleet.toml'}", 1)
    assert "operator one-viewer (viewer) may not call" in said
    assert "it is for admin and operator: ask an administrator" in said
    await desk.types("one-operator", f"apply {tmp_path / 'fleet.toml'}")
    said = await desk.types("one-operator", "enroll create --device jetson-01", 1)
    assert "it is for admin: ask an administrator" in said
    assert "edgewright-agent enroll" in await desk.types("one-admin", "enroll create --device jetson-01")


@pytest.mark.parametrize("role", ["viewer", "operator", "admin", "root", "device", "service", "nobody"])
async def test_every_method_admits_by_real_certificates_just_the_roles_of_its_row(
    desk: Desk, tmp_path: Path, role: str
) -> None:
    """The handlers themselves may refuse an empty request; what counts is whether the gate let it through."""
    authority = Authority.open(tmp_path / "state" / "pki", "plant-7", datetime.now(timezone.utc))
    address = str(desk.fleet.running.grpc)
    if role in ("viewer", "operator", "admin"):
        await desk.new("one", role)
        channel = desk.channel("one")
    elif role == "device":
        channel = (await desk.fleet.enrol("jetson-01")).channel
    elif role == "nobody":
        channel = grpc.aio.secure_channel(
            str(desk.fleet.running.enrolment), grpc.ssl_channel_credentials(authority.ca_pem)
        )
    else:
        # Not the controller's own: its upkeep writes that into the same folder, at the same time.
        pair: Any = authority.service_client_certificate(f"{names.SERVICE_PREFIX}other")
        if role == "root":
            pair = authority.operator_certificate("eve", role="root", folder=tmp_path / "eve")
        keys = grpc.ssl_channel_credentials(authority.ca_pem, pair.key.read_bytes(), pair.chain.read_bytes())
        channel = grpc.aio.secure_channel(address, keys)
    mine = {"nobody": Role.ANYONE}.get(role) or next((one for one in Role if one.value == role), None)
    async with channel:
        for method, allowed in METHODS.items():
            if role == "nobody" and ".Enrolment/" not in method:
                continue  # not served there at all
            said = await _said(channel.unary_unary(method)(b"", timeout=2))
            if ".Enrolment/" in method and role != "nobody":
                assert said.startswith(("UNIMPLEMENTED", "PERMISSION_DENIED")), method
                continue
            admitted = "may not call" not in said and "is open to nobody" not in said
            assert admitted == (mine in allowed), f"{method}: {said}"


async def _said(call: Any) -> str:
    """The status and words that a call ended with."""
    try:
        await asyncio.wait_for(call, 20)
    except grpc.aio.AioRpcError as error:
        return f"{error.code().name} {words(error)}"
    return "OK"


@pytest.mark.attack("a certificate with a made-up role, and a role above the ledger's")
async def test_the_certificates_role_is_the_most_and_the_ledgers_the_one_that_counts(desk: Desk) -> None:
    await desk.new("alice", "admin")
    await desk.types("alice", "enroll create --device d1")
    await desk.types("admin", "operator role alice --role viewer")
    assert "(viewer) may not call" in await desk.types("alice", "enroll create --device d1", 1)
    await desk.new("bob", "viewer")
    await desk.types("admin", "operator role bob --role admin")
    assert "(viewer) may not call" in await desk.types("bob", "enroll create --device d1", 1)
    await desk.new("bob", "admin")
    await desk.types("bob", "enroll create --device d1")


@pytest.mark.attack("a removed operator")
async def test_a_removed_operator_may_nothing_and_its_token_is_gone(desk: Desk) -> None:
    await desk.new("alice", "operator")
    token = await desk.token("alice", "operator")
    await desk.types("alice", "status")
    assert "operator alice is removed; 1 certificate revoked" in await desk.types("admin", "operator remove alice")
    said = await desk.types("alice", "status", 1)
    assert "was revoked" in said or "may not call" in said
    assert "not known here" in await desk.login(token, "again", 1)
    assert "there is no operator alice" in await desk.types("admin", "operator remove alice", 2)
    assert "alice" not in await desk.types("admin", "operator list")


@pytest.mark.attack("a login token used again by another key")
async def test_a_login_token_is_good_once_and_for_one_key(desk: Desk) -> None:
    token = enrolment_token.parse(await desk.token("alice", "viewer"))
    ca = x509.load_der_x509_certificate(token.ca_der).public_bytes(Encoding.PEM)
    key, other = request(new_key()), request(new_key())
    async with grpc.aio.secure_channel(token.address, grpc.ssl_channel_credentials(ca)) as channel:
        stub: Any = enrolment_pb2_grpc.EnrolmentStub(channel)

        async def redeem(csr: bytes, secret: str = token.secret) -> Any:
            return await stub.Login(enrolment_pb2.LoginRequest(token=secret, csr_der=csr), timeout=10)

        first = await redeem(key)
        assert (await redeem(key)).certificate_chain_pem == first.certificate_chain_pem, "a power cut costs nothing"
        for csr, secret, message in (
            (other, token.secret, "was used already"),
            (other, "x" * 43, "not known here"),
            (b"rubbish", token.secret, "not a signing request"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await redeem(csr, secret)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert message in words(refused.value)


async def test_what_is_wrong_is_said_in_one_line(desk: Desk, tmp_path: Path) -> None:
    for line, message in (
        ("operator add alice --role boss", "'boss' is no role; there are viewer, operator, admin"),
        ("operator add Alice --role viewer", "'Alice' is not an operator's name"),
        ("operator add admin --role viewer", "admin is the controller's own administrator"),
        ("operator remove admin", "admin is the controller's own administrator"),
        ("operator role nobody --role viewer", "there is no operator nobody"),
        ("operator add alice --role viewer --valid-hours 25", "--valid-hours: 25"),
    ):
        assert message in await desk.types("admin", line, 2)
    assert "this is no enrolment token" in await desk.login("rubbish", "x", 1)
    await desk.new("alice", "viewer")
    async with controller(tmp_path / "other") as other:
        token = (await other.operator.AddOperator(operator_pb2.AddOperatorRequest(name="alice", role="admin"))).token
        before = (tmp_path / "alice" / "client.toml").read_bytes()
        # The same name of fleet, and another authority all the same.
        assert "is for another fleet; name another --folder" in await desk.login(token, "alice", 1)
        assert (tmp_path / "alice" / "client.toml").read_bytes() == before
        await desk.login(token, "alice", 0, "--force")
        assert "alice, admin" in await desk.types("alice", "whoami")
    device = await desk.fleet.enrol("jetson-01")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "k").write_bytes(device.key_pem)
    (tmp_path / "d" / "c").write_bytes(device.welcome.certificate_chain_pem)
    (tmp_path / "d" / "ca").write_bytes(device.welcome.ca_pem)
    text = f'address = "{desk.fleet.running.grpc}"\ncertificate = "c"\nkey = "k"\nca = "ca"\n'
    (tmp_path / "d" / "client.toml").write_text(text)
    assert "device jetson-01 may not call" in await desk.types("d", "status", 1)


async def test_an_operators_certificate_is_renewed_at_half_life_by_any_command(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.new("alice", "viewer")
    before = read_access(desk.config("alice"))
    await desk.types("alice", "status")
    assert read_access(desk.config("alice")) == before
    monkeypatch.setattr(operator_login, "is_due", lambda access, now: access.certificate == before.certificate)
    await desk.types("alice", "status")
    after = read_access(desk.config("alice"))
    assert after.key != before.key
    assert not before.key.exists()
    assert "alice, viewer" in await desk.types("alice", "whoami")
    # What cannot be renewed is told, and the command is done all the same.
    monkeypatch.setattr(operator_login, "is_due", lambda _access, _now: True)
    monkeypatch.setattr(operator_login, "_put", _fails)
    ended = await asyncio.to_thread(run, ["status", "--config", str(desk.config("alice"))])
    assert ended == 0


async def test_a_renewal_keeps_the_files_address_and_minds_no_relative_path(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.new("alice", "viewer")
    before = read_access(desk.config("alice"))
    monkeypatch.setattr(
        operator_login, "is_due", lambda access, now: access.certificate.name == before.certificate.name
    )
    monkeypatch.chdir(tmp_path)
    port = before.address.rpartition(":")[2]
    typed = ["status", "--config", "alice/client.toml", "--controller", f"localhost:{port}"]
    assert "fleet plant-7" in await desk._run(typed)
    after = read_access(desk.config("alice"))
    assert after.key != before.key, "renewed"
    assert after.address == before.address
    assert "alice, viewer" in await desk.types("alice", "whoami")


async def test_a_login_that_was_cut_off_does_not_stand_in_the_way_of_the_next_token(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await desk.token("alice", "viewer")
    with monkeypatch.context() as cut:
        cut.setattr(operator_login, "_put", _fails)
        with pytest.raises(OSError, match="no room"):
            await asyncio.to_thread(operator_login.login, token, tmp_path / "alice")
    assert list((tmp_path / "alice").glob("*-pending.key")), "issued, and not written"
    await desk.new("alice", "viewer")
    assert not list((tmp_path / "alice").glob("*-pending.key"))
    assert "alice, viewer" in await desk.types("alice", "whoami")


async def test_while_roles_are_read_anew_everybody_keeps_the_role_that_counts(tmp_path: Path) -> None:
    """And of two that read at once, the older view does not win."""

    async def nothing() -> None:
        """Nobody else wants to know."""

    with opened(tmp_path) as ledger:
        authority = Authority.open(tmp_path / "pki", "plant-7", NOW)
        slow = SlowReads(ledger)
        people = await Operators.open(cast("Ledger", slow), authority, nothing, lambda: NOW)
        people.address = "127.0.0.1:1"
        token, _ = await people.add("alice", "admin", 60, "admin")
        _, _, chain = await people.login(enrolment_token.parse(token).secret, request(new_key()))
        alice = peer(chain, "plant-7")
        slow.hold_next = True
        adding = asyncio.create_task(people.add("bob", "viewer", 60, "admin"))
        await asyncio.wait_for(slow.held.wait(), 10)
        assert people.role(alice) == "admin"
        demoting = asyncio.create_task(people.set_role("alice", "viewer", "admin"))
        await asyncio.wait_for(slow.written.wait(), 10)
        await asyncio.wait({demoting}, timeout=0.5)  # it would be done, if it did not wait for the first to have read
        slow.go_on.set()
        await asyncio.wait_for(asyncio.gather(adding, demoting), 10)
        assert people.role(alice) == "viewer"


class SlowReads:
    """A ledger of which one reading, when told, is answered only at `go_on`; `written` after the next write."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self.hold_next = ledger, False
        self.held, self.written, self.go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def read(self, act: Callable[[Any], Any]) -> Any:
        found, hold, self.hold_next = await self._ledger.read(act), self.hold_next, False
        if hold:
            self.held.set()
            await self.go_on.wait()
        return found

    async def write(self, act: Callable[[Any], Any]) -> Any:
        done = await self._ledger.write(act)
        if self.held.is_set():
            self.written.set()
        return done


async def test_an_operators_certificate_of_another_fleet_is_told_in_one_line(desk: Desk, tmp_path: Path) -> None:
    await desk.new("alice", "viewer")
    now = datetime.now(timezone.utc)
    theirs = Authority.open(tmp_path / "theirs", "plant-8", now).operator_certificate(folder=tmp_path / "eve")
    files = f'certificate = "{theirs.chain.name}"\nkey = "{theirs.key.name}"\n'
    for ca in ("../alice/ca.crt", "ca.crt"):
        text = f'address = "{desk.fleet.running.grpc}"\n{files}ca = "{ca}"\n'
        (tmp_path / "eve" / "client.toml").write_text(text)
        assert "is no controller of this operator's fleet" in await desk.types("eve", "status", 1)


@pytest.mark.attack("a viewer that tries again and again, to fill the log")
async def test_refused_acts_are_in_the_log_and_cannot_fill_it(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    await desk.new("alice", "viewer")
    with caplog.at_level(logging.WARNING):
        await desk.types("alice", "status")
        assert not _refusals(caplog)
        for _ in range(5):
            await desk.types("alice", "enroll create --device d1", 1)
    (line,) = _refusals(caplog)
    for part in ("operator alice", "Operator/CreateEnrolment", "it is for admin"):
        assert part in line
    assert "enrolment.create" not in await desk.types("admin", "audit")


def _refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(record.msg) for record in caplog.records if "call refused" in str(record.msg)]


def test_each_caller_has_one_line_a_minute_that_counts_the_rest() -> None:
    refusals = Refusals()
    assert refusals.line("operator alice", NOW) == 0
    assert [refusals.line("operator alice", NOW + timedelta(seconds=s)) for s in (1, 59)] == [None, None]
    assert refusals.line("operator bob", NOW) == 0, "nobody hides behind another"
    assert refusals.line("operator alice", NOW + EVERY) == 2
    for number in range(MAX_CALLERS):
        refusals.line(f"device {number}", NOW + EVERY)
    assert len(refusals._said) == MAX_CALLERS


def _fails(*_: object) -> None:
    raise OSError("no room")


def test_when_a_certificate_is_due(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "pki", "plant-7", NOW)
    key = new_key()
    chain = tmp_path / "c"
    chain.write_bytes(authority.issue_operator("alice", "viewer", request(key), NOW))
    access = Access("127.0.0.1:1", chain, tmp_path / "k", tmp_path / "ca")
    days = {day: operator_login.is_due(access, NOW + timedelta(days=day)) for day in (0, 14, 16, 29, 31)}
    assert days == {0: False, 14: False, 16: True, 29: True, 31: False}
    files = authority.operator_certificate(folder=tmp_path / "operator")
    assert not operator_login.is_due(replace(access, certificate=files.chain), NOW + timedelta(days=300))


async def test_renewals_are_bounded_and_keys_are_used_once(tmp_path: Path) -> None:
    now = [NOW]

    async def nothing() -> None:
        """Nobody else wants to know."""

    with opened(tmp_path) as ledger:
        authority = Authority.open(tmp_path / "pki", "plant-7", NOW)
        people = await Operators.open(ledger, authority, nothing, lambda: now[0])
        people.address = "127.0.0.1:1"
        token, _ = await people.add("alice", "operator", 60, "admin")
        secret, key = enrolment_token.parse(token).secret, request(new_key())
        _, _, chain = await people.login(secret, key)
        caller = peer(chain, "plant-7")
        with pytest.raises(ValueError, match="this key had a certificate before"):
            await people.renew(caller, key)
        for _ in range(7):
            await people.renew(caller, request(new_key()))
        with pytest.raises(OperatorRefused, match="had 8 certificates in 7 days"):
            await people.renew(caller, request(new_key()))
        late, _ = await people.add("bob", "viewer", 60, "admin")
        now[0] = NOW + timedelta(seconds=61)
        with pytest.raises(EnrolmentRefused, match="has ended"):
            await people.login(enrolment_token.parse(late).secret, request(new_key()))
        assert {row.name for row in ledger.read_now(operators.every)} == {"alice", "bob"}
        assert len(ledger.read_now(lambda c: certificates.of(c, certificates.OPERATOR, "alice"))) == 8


async def test_what_was_done_is_read_by_whom_it_may_concern(desk: Desk, tmp_path: Path) -> None:
    await desk.new("alice", "operator")
    (tmp_path / "fleet.toml").write_text(manifest(tmp_path, ["jetson-01"]))
    device = await desk.fleet.enrol("jetson-01")
    async with device.living():
        await desk.types("alice", f"apply {tmp_path / 'fleet.toml'}")
    lines = (await desk.types("alice", "audit")).splitlines()
    acts = [line.split(" ", 3)[3] for line in lines]
    for act in (
        "operator admin operator.add alice: operator",
        "operator admin enrolment.create jetson-01",
        "device jetson-01 device.enrol jetson-01: certificate",
        f"operator alice apply plant-7: {tmp_path / 'fleet.toml'}, sha256",
        "operator alice rollout.begin rollout-1",
    ):
        assert any(line.startswith(act) for line in acts), act
    only = (await desk.types("alice", "audit --by alice --last 1")).splitlines()
    assert len(only) == 1
    assert "rollout.begin" in only[0]
    of_device = (await desk.types("admin", "audit --device jetson-01 --json")).splitlines()
    assert {json.loads(line)["subject"] for line in of_device} == {"jetson-01"}
    said = await desk.types("admin", "audit --verify")
    assert said.startswith(f"{len(lines)} entries, unbroken; note the head elsewhere: ")
    head = said.split()[-1]
    await desk.types("admin", "operator remove alice")
    assert "unbroken" in await desk.types("admin", f"audit --verify --head {head}")
    assert "is gone" in await desk.types("admin", f"audit --verify --head {'0' * 63}1", 1)
    assert "leave the other filters out" in await desk.types("admin", "audit --verify --last 3", 2)
    assert "--head goes with --verify" in await desk.types("admin", f"audit --head {head}", 2)


def _filled(ledger: Ledger, count: int = 5) -> list[AuditRow]:
    for number in range(count):
        ledger.write_now(
            lambda c, number=number: audit.append(  # type: ignore[misc]  # mypy cannot type a lambda's default
                c, actor="operator admin", action="apply", subject=f"d{number % 2}", now_ms=number
            )
        )
    return ledger.read_now(lambda c: list(audit.entries(c)))


@pytest.mark.attack("an audit entry changed, removed, inserted, swapped, or the end cut off")
def test_whoever_touches_the_log_is_found(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        rows = _filled(ledger)
    assert first_fault(rows) == 5
    head = rows[-1].hash
    assert first_fault(rows, head) == 5
    forged = replace(rows[2], actor="operator eve")
    inserted = replace(rows[1], number=3, previous=rows[1].hash)
    tampered: list[tuple[list[AuditRow], int, str]] = [
        ([*rows[:2], forged, *rows[3:]], 3, "it was changed"),
        ([*rows[:2], replace(forged, hash=forged.expected_hash), *rows[3:]], 4, "does not follow"),
        ([*rows[:2], *rows[3:]], 3, "it is missing"),
        ([rows[0], rows[2], rows[1], *rows[3:]], 2, "it is missing"),
        ([*rows[:2], inserted, *rows[2:]], 3, "it was changed"),
        (rows[1:], 1, "it is missing"),
    ]
    for log, number, what in tampered:
        found = first_fault(log)
        assert isinstance(found, Broken)
        assert (found.number, what in found.what) == (number, True), found
    assert first_fault(rows[:3]) == 3, "an end that was cut off cannot be seen from inside"
    cut = first_fault(rows[:3], head)
    assert isinstance(cut, Broken)
    assert "cut off, or rewritten" in cut.what


@pytest.mark.attack("the audit log tampered with in the ledger's file")
async def test_a_log_that_was_tampered_with_on_the_disk_is_told_by_the_command(desk: Desk, tmp_path: Path) -> None:
    await desk.new("alice", "operator")
    assert "unbroken" in await desk.types("admin", "audit --verify")
    other = Ledger.open(tmp_path / "state" / "ledger.sqlite")
    other.write_now(lambda c: c.execute(update(tables.audit).where(tables.audit.c.number == 1).values(actor="x")))
    assert "the audit log is broken at entry 1: it was changed" in await desk.types("admin", "audit --verify", 1)
    other.write_now(lambda c: c.execute(delete(tables.audit).where(tables.audit.c.number == 1)))
    other.close()
    assert "broken at entry 1: it is missing; the next one is 2" in await desk.types("admin", "audit --verify", 1)


Chosen = Callable[[list[AuditRow]], list[AuditRow]]


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [
        (Wanted(), lambda rows: rows),
        (Wanted(last=2), lambda rows: rows[-2:]),
        (Wanted(subject="d1"), lambda rows: [row for row in rows if row.subject == "d1"]),
        (Wanted(subject="d1", last=1), lambda rows: [row for row in rows if row.subject == "d1"][-1:]),
        (Wanted(actor="admin", since_ms=900), lambda rows: rows[900:]),
        (Wanted(actor="operator admin", last=5000), lambda rows: rows),
        (Wanted(actor="eve"), lambda rows: []),
    ],
)
async def test_a_long_log_is_read_in_portions_whatever_is_wanted(
    tmp_path: Path, wanted: Wanted, chosen: Chosen
) -> None:
    with opened(tmp_path) as ledger:
        rows = _filled(ledger, 1_203)
        assert [row async for row in audit_trail.entries(ledger, wanted)] == chosen(rows)
