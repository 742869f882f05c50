"""`edgewright backup` and `edgewright restore`: what goes in comes out, and whatever is wrong changes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime, timezone
from pathlib import Path

import grpc
import grpc.aio
import pytest

from edgewright_contract import canonical, enrolment_token
from edgewright_contract.v1 import operator_pb2
from edgewright_controller import run as runs
from edgewright_controller.backup import BackupRefused, contents, making, restoring, workroom
from edgewright_controller.cli import run
from edgewright_controller.ledger import Ledger, LedgerError, audit, authorised_keys, restorations
from edgewright_controller.ledger.authorised_keys import AuthorisedKey
from edgewright_controller.state_lock import StateInUse
from tests.controller import service_rig
from tests.controller.service_rig import Device, controller

PASSPHRASE = "correct horse battery"
NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=timezone.utc)


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    """A state folder whose controller ran, enrolled a device and ended."""
    async with controller(tmp_path / "state") as running:
        device = await running.enrol("jetson-01")
        await device.check_in()
        await device.channel.close()
    return tmp_path / "state"


@pytest.fixture
def backup(state: Path, tmp_path: Path) -> Path:
    made = making.make(state, tmp_path / "plant-7.backup", PASSPHRASE, NOW, reports=True)
    assert (made.fleet, made.about.devices) == ("plant-7", 1)
    return tmp_path / "plant-7.backup"


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file below a folder, with its mode; the ledger's content apart."""
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), path.stat().st_mode & 0o777)
        for path in folder.rglob("*")
        if path.is_file()
    }


def refused(folder: Path, file: Path, **other: str) -> str:
    """Why a restore is refused, which changes nothing."""
    before = sorted(folder.iterdir())
    asked = {"passphrase": PASSPHRASE, **other}
    with pytest.raises(BackupRefused) as error:
        restoring.restore(file, folder / "restored", now=NOW, **asked)
    assert sorted(folder.iterdir()) == before
    return str(error.value)


def test_what_was_backed_up_is_there_again(state: Path, backup: Path, tmp_path: Path) -> None:
    assert backup.stat().st_mode & 0o777 == 0o600
    assert not (state / "backup.tmp").exists()

    done = restoring.restore(backup, tmp_path / "new" / "state", PASSPHRASE, NOW, "plant-7")
    before, after = files(state), files(tmp_path / "new" / "state")

    assert (done.fleet, done.created, done.about.devices) == ("plant-7", NOW, 1)
    ours = {name: value for name, value in before.items() if contents.is_ours(name) and name != "ledger.sqlite"}
    assert {"keys/image-timestamp.pem", "keys/builder/builder.pem", "pki/intermediate.key"} < ours.keys()
    assert after.keys() == {*ours, "ledger.sqlite"}, "neither the lock nor the store nor logs"
    assert {name: after[name] for name in ours} == ours
    assert (tmp_path / "new" / "state").stat().st_mode & 0o777 == 0o700
    ledger = Ledger.open(tmp_path / "new" / "state" / "ledger.sqlite")
    rows, said = ledger.read_now(restorations.every), ledger.read_now(lambda c: list(audit.entries(c)))
    ledger.close()
    assert [(row.backup_ms, row.restored_ms) for row in rows] == [(NOW.timestamp() * 1000, NOW.timestamp() * 1000)]
    assert said[-1].action == "ledger.restore"
    assert all(row.hash == row.expected_hash for row in said)


async def test_a_restored_controller_starts_and_knows_its_device(backup: Path, tmp_path: Path) -> None:
    restoring.restore(backup, tmp_path / "restored", PASSPHRASE, NOW)
    async with controller(tmp_path / "restored") as running:
        assert list(await running.status()) == ["jetson-01"]


async def test_a_running_controller_is_backed_up_and_never_waits(tmp_path: Path) -> None:
    async with controller(tmp_path / "state") as running:
        await running.enrol("jetson-01")
        made = making.make(tmp_path / "state", tmp_path / "b", PASSPHRASE, NOW, reports=False)
        await running.enrol("jetson-02")
        assert len(await running.status()) == 2
    assert (made.about.devices, made.about.reports) == (1, False)
    assert restoring.check(tmp_path / "b", PASSPHRASE).about == made.about


def test_reports_may_be_left_out(state: Path, tmp_path: Path) -> None:
    with sqlite3.connect(state / "ledger.sqlite") as connection:
        rows = [("jetson-01", b"e" * 16, n, 1, 0, "telemetry", os.urandom(1000)) for n in range(3000)]
        connection.executemany("INSERT INTO telemetry VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    whole = making.make(state, tmp_path / "whole", PASSPHRASE, NOW, reports=True)
    less = making.make(state, tmp_path / "less", PASSPHRASE, NOW, reports=False)
    assert whole.size > 3_000_000 > less.size, "more than one chunk, and less than one chunk more than the rest"
    for name, count in (("whole", 3000), ("less", 0)):
        restoring.restore(tmp_path / name, tmp_path / f"of-{name}", PASSPHRASE, NOW)
        with sqlite3.connect(tmp_path / f"of-{name}" / "ledger.sqlite") as connection:
            assert connection.execute("SELECT count(*) FROM telemetry").fetchone() == (count,)
        connection.close()


@pytest.mark.attack("tokens and keys replayed after a restore")
async def test_what_was_given_out_before_lets_nobody_in_after(tmp_path: Path) -> None:
    key = AuthorisedKey("a" * 64, "jetson-09", "admin", 1)
    async with controller(tmp_path / "state") as running:
        asked = operator_pb2.CreateEnrolmentRequest(device="jetson-01")
        token = (await running.operator.CreateEnrolment(asked, timeout=10)).token
        making.make(tmp_path / "state", tmp_path / "b", PASSPHRASE, datetime.now(timezone.utc), reports=True)
        device = await Device.enrol(token)  # the honest case: it is good, once
        await device.check_in()
        enrolment_at = running.running.enrolment
    with sqlite3.connect(tmp_path / "state" / "ledger.sqlite") as connection:
        assert connection.execute("SELECT count(*) FROM enrolments WHERE used_ms IS NULL").fetchone() == (0,)
    connection.close()
    done = restoring.restore(tmp_path / "b", tmp_path / "restored", PASSPHRASE, datetime.now(timezone.utc))
    assert done.voided == 1, "in the backup the token was not used yet"

    async with AsyncExitStack() as stack:
        settings = dataclasses.replace(service_rig.settings(tmp_path / "restored"), enrolment=enrolment_at)
        await runs.start(settings, stack)
        assert enrolment_token.parse(token).address == str(enrolment_at)
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await Device.enrol(token)
        assert error.value.code() in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)

    ledger = Ledger.open(tmp_path / "state" / "ledger.sqlite")
    ledger.write_now(lambda c: authorised_keys.put(c, key))
    ledger.close()
    making.make(tmp_path / "state", tmp_path / "b2", PASSPHRASE, NOW, reports=True)
    assert restoring.restore(tmp_path / "b2", tmp_path / "again", PASSPHRASE, NOW).voided == 1
    ledger = Ledger.open(tmp_path / "again" / "ledger.sqlite")
    assert ledger.read_now(lambda c: authorised_keys.get(c, key.key_sha256)) is None
    ledger.close()


def test_another_passphrase_opens_nothing(backup: Path, tmp_path: Path) -> None:
    assert "passphrase is another one" in refused(tmp_path, backup, passphrase="another passphrase")


def test_another_fleets_backup_is_refused(backup: Path, tmp_path: Path) -> None:
    assert restoring.check(backup, PASSPHRASE, "plant-7").fleet == "plant-7"
    assert "of fleet 'plant-7', not 'plant-8'" in refused(tmp_path, backup, fleet="plant-8")


def changed(backup: Path, change: Callable[[bytes], bytes]) -> Path:
    backup.with_name("changed").write_bytes(change(backup.read_bytes()))
    return backup.with_name("changed")


@pytest.mark.attack("altered backup: bits flipped, parts cut off")
def test_whatever_is_changed_shows(backup: Path, tmp_path: Path) -> None:
    restoring.check(backup, PASSPHRASE)
    size, chance = backup.stat().st_size, random.Random(13)
    cuts = {0, 1, 17, 18, 20, 22, 100, size - 1, size - 20, *(chance.randrange(size) for _ in range(6))}
    for cut in sorted(cuts):
        file = changed(backup, lambda data, cut=cut: data[:cut])  # type: ignore[misc] # bound now
        with pytest.raises(BackupRefused):
            restoring.check(file, PASSPHRASE)
    for place in sorted({0, 19, 25, 40, 200, *(chance.randrange(size) for _ in range(6))}):
        file = changed(
            backup,
            lambda data, at=place: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],  # type: ignore[misc]
        )
        with pytest.raises(BackupRefused):
            restoring.check(file, PASSPHRASE)
    assert "cut off" in refused(tmp_path, changed(backup, lambda data: data[:-1]))
    refused(tmp_path, changed(backup, lambda data: data + b"more"))


def chunks(data: bytes) -> tuple[bytes, list[bytes]]:
    """The head of a backup, and its sealed chunks with their lengths."""
    at = 18 + 4 + int.from_bytes(data[18:22], "big")
    head, found = data[:at], []
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4], "big")
        found.append(data[at:end])
        at = end
    return head, found


@pytest.mark.attack("altered backup: chunks in another order, left out, doubled, of another backup")
def test_chunks_have_their_places(state: Path, tmp_path: Path) -> None:
    with sqlite3.connect(state / "ledger.sqlite") as connection:
        rows = [("jetson-01", b"e" * 16, n, 1, 0, "telemetry", bytes(1000)) for n in range(4000)]
        connection.executemany("INSERT INTO telemetry VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    connection.close()
    backup, other = tmp_path / "backup", tmp_path / "other"
    making.make(state, backup, PASSPHRASE, NOW, reports=True)
    making.make(state, other, PASSPHRASE, NOW, reports=True)
    head, parts = chunks(backup.read_bytes())
    assert len(parts) > 3
    assert restoring.check(backup, PASSPHRASE).fleet == "plant-7"

    _, others = chunks(other.read_bytes())
    bad = {
        "in another order": [parts[0], parts[2], parts[1], *parts[3:]],
        "left out": [parts[0], *parts[2:]],
        "doubled": [parts[0], parts[1], *parts[1:]],
        "without the last": parts[:-1],
        "of another backup": [parts[0], others[1], *parts[2:]],
    }
    for what, made in bad.items():
        backup.write_bytes(head + b"".join(made))
        assert "damaged" in refused(tmp_path, backup), what


@pytest.mark.attack("altered backup: header of another fleet or cheaper work")
def test_the_header_is_bound_to_all_of_it(backup: Path, tmp_path: Path) -> None:
    data = backup.read_bytes()
    for old, new in ((b'"plant-7"', b'"plant-8"'), (b'"cost":131072', b'"cost":65536'), (b'_ms":1', b'_ms":2')):
        assert old in data
        head = data[22 : 22 + int.from_bytes(data[18:22], "big")].replace(old, new)
        file = changed(
            backup,
            lambda d, head=head: (  # type: ignore[misc] # bound now
                d[:18] + len(head).to_bytes(4, "big") + head + d[22 + int.from_bytes(d[18:22], "big") :]
            ),
        )
        refused(tmp_path, file)
    document = json.loads(data[22 : 22 + int.from_bytes(data[18:22], "big")])
    changes: tuple[dict[str, object], ...]
    changes = ({"work": {**document["work"], "cost": 1 << 40}}, {"work": {}}, {"fleet": "../x"}, {"more": 1})
    for change in changes:
        said = canonical.encode({**document, **change})
        backup.with_name("changed").write_bytes(data[:18] + len(said).to_bytes(4, "big") + said)
        refused(tmp_path, backup.with_name("changed"))


def test_a_newer_format_is_named(backup: Path, tmp_path: Path) -> None:
    file = changed(backup, lambda data: data.replace(b'"format":1', b'"format":2', 1))
    assert "newer Edgewright (format 2" in refused(tmp_path, file)


def test_a_newer_ledger_is_refused(state: Path, tmp_path: Path) -> None:
    with sqlite3.connect(state / "ledger.sqlite") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    making.make(state, tmp_path / "b", PASSPHRASE, NOW, reports=True)
    with pytest.raises(LedgerError, match="newer Edgewright"):
        restoring.restore(tmp_path / "b", tmp_path / "restored", PASSPHRASE, NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "state"]


def test_what_is_there_is_not_written_over(state: Path, backup: Path, tmp_path: Path) -> None:
    before = backup.read_bytes()
    with pytest.raises(BackupRefused, match="there already"):
        making.make(state, backup, PASSPHRASE, NOW, reports=True)
    assert backup.read_bytes() == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    with pytest.raises(BackupRefused, match="not empty"):
        restoring.restore(backup, tmp_path / "full", PASSPHRASE, NOW)
    (tmp_path / "empty").mkdir()
    restoring.restore(backup, tmp_path / "empty", PASSPHRASE, NOW)
    assert (tmp_path / "empty" / "ledger.sqlite").exists()
    assert (tmp_path / "full" / "mine").read_text() == "mine"


async def test_a_running_controllers_folder_is_refused(backup: Path, tmp_path: Path, state: Path) -> None:
    async with controller(state):
        with pytest.raises(StateInUse):
            restoring.restore(backup, state, PASSPHRASE, NOW)


def test_a_folder_that_is_no_state_is_refused(tmp_path: Path, state: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(BackupRefused, match="no controller's state folder"):
        making.make(tmp_path / "other", tmp_path / "b", PASSPHRASE, NOW, reports=True)
    (state / "pki" / "intermediate.key").unlink()
    with pytest.raises(BackupRefused, match="key is missing"):
        making.make(state, tmp_path / "b", PASSPHRASE, NOW, reports=True)
    assert not (tmp_path / "b").exists()


def test_a_damaged_ledger_is_not_backed_up(tmp_path: Path, state: Path) -> None:
    data = bytearray((state / "ledger.sqlite").read_bytes())
    for at in range(4096 * 3, len(data), 4096):
        data[at : at + 64] = b"\xff" * 64
    (state / "ledger.sqlite").write_bytes(data)
    with pytest.raises(BackupRefused, match=r"damaged|cannot be copied"):
        making.make(state, tmp_path / "b", PASSPHRASE, NOW, reports=True)
    assert not (tmp_path / "b").exists()


def test_a_link_is_no_file(tmp_path: Path, state: Path) -> None:
    (state / "keys" / "extra.pem").symlink_to(tmp_path)
    with pytest.raises(BackupRefused, match="no regular file"):
        making.make(state, tmp_path / "b", PASSPHRASE, NOW, reports=True)


def test_files_that_change_meanwhile_are_read_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest, readings = contents._reading, 0

    def busy(folder: Path) -> contents.Files:
        nonlocal readings
        readings += 1
        if readings < 4:
            (folder / "image" / "timestamp.json").write_text(str(readings))
        return honest(folder)

    monkeypatch.setattr(contents, "_reading", busy)
    assert contents.small_files(state)["image/timestamp.json"][0] == b"3"
    assert readings == 4

    def busier(folder: Path) -> contents.Files:
        (folder / "image" / "timestamp.json").write_text(str(time.monotonic_ns()))
        return honest(folder)

    monkeypatch.setattr(contents, "_reading", busier)
    with pytest.raises(BackupRefused, match="change all the time"):
        contents.small_files(state)


@pytest.mark.parametrize(
    "name",
    ["../keys/x", "/keys/x", "keys", "store/x", "keys/../x", "keys/.x", "ledger.sqlite-wal", "keys/a/b/c/d", "x"],
)
def test_only_our_names_come_out(name: str) -> None:
    assert contents.is_ours("keys/builder/builder.pem")
    assert not contents.is_ours(name)


def test_two_at_once_are_one_after_another(state: Path, tmp_path: Path) -> None:
    alone = pytest.raises(BackupRefused, match="another backup or restore is at work")
    with workroom.working_in(state / "backup.tmp"), alone:
        making.make(state, tmp_path / "b", PASSPHRASE, NOW, reports=True)
    making.make(state, tmp_path / "b", PASSPHRASE, NOW, reports=True)


def _killed(arguments: list[str], at: Path | None) -> bool:
    """Run a command and kill it once there is something at `at`, a pattern; whether it was still running then."""
    command = [sys.executable, "-m", "edgewright_controller.cli", *arguments]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 60
        while child.poll() is None and time.monotonic() < deadline:
            if at is not None and any(at.parent.glob(at.name)):
                child.send_signal(signal.SIGKILL)
                return child.wait(10) == -signal.SIGKILL
            time.sleep(0.001)  # paces the looking; the deadline ends it
        assert child.wait(0) == 0
    return False


def test_killed_at_any_moment_it_is_whole_or_not_there(state: Path, tmp_path: Path) -> None:
    places, base = tmp_path / "places", ["--passphrase-file", str(tmp_path / "secret")]
    (tmp_path / "secret").write_text(PASSPHRASE)
    places.mkdir()
    assert not _killed(["backup", "--state", str(state), "--out", str(places / "first"), *base], None)

    killed = []
    for number, name in enumerate(("backup.tmp", "backup.tmp/ledger.sqlite", "../places/.b2.*")):
        out = places / f"b{number}"
        killed.append(_killed(["backup", "--state", str(state), "--out", str(out), *base], state / name))
        if out.exists():
            restoring.check(out, PASSPHRASE)
    making.make(state, places / "last", PASSPHRASE, NOW, reports=True)
    assert not (state / "backup.tmp").exists(), "what the killed ones left is gone"
    assert killed[2], "it was killed while it had half of it, or this means nothing"

    killed = []
    for number, name in enumerate((".", "keys", "ledger.sqlite", "ledger.sqlite-wal")):
        restored, room = places / f"r{number}", places / f".r{number}.restoring"
        arguments = ["restore", str(places / "first"), "--state", str(restored), *base]
        killed.append(_killed(arguments, room / name if name != "." else room))
        if restored.exists():
            assert files(restored).keys() >= {"ledger.sqlite", "keys/image-root.pem", "pki/intermediate.key"}
            Ledger.open(restored / "ledger.sqlite").close()
        else:
            restoring.restore(places / "first", restored, PASSPHRASE, NOW)
        assert not room.exists(), "what the killed one left is gone"
    assert killed[0], "it was killed in the middle, or this means nothing"


def test_as_it_is_typed(state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "secret").write_text(PASSPHRASE + "\n")
    (tmp_path / "short").write_text("short")
    out, new = tmp_path / "b", tmp_path / "new"

    def types(line: str, code: int = 0) -> str:
        assert run(line.split()) == code, capsys.readouterr().err
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return said.err if code else said.out

    secret = f"--passphrase-file {tmp_path / 'secret'}"
    assert "too short" in types(f"backup --state {state} --out {out} --passphrase-file {tmp_path / 'short'}", 1)
    assert "fleet plant-7, 1 device, 0 releases" in types(f"backup --state {state} --out {out} {secret}")
    assert "it is whole" in types(f"restore {out} --check {secret}")
    assert "not 'plant-8'; nothing was changed" in types(f"restore {out} --state {new} --fleet plant-8 {secret}", 1)
    assert not new.exists()
    assert "--state DIR" in types(f"restore {out} {secret}", 2)
    said = types(f"restore {out} --state {new} --fleet plant-7 {secret}")
    assert "IS NOT REVOKED ANY MORE" in said
    assert "not empty" in types(f"restore {out} --state {new} {secret}", 1)
