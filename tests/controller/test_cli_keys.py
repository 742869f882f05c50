"""The ceremony as people type it: `edgewright keys`, on a state folder whose controller is stopped."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import pytest

from edgewright_controller import ceremony_state
from edgewright_controller.cli import run
from edgewright_controller.ledger import Ledger, audit
from edgewright_controller.state_lock import StateLock
from tests.controller.service_rig import controller, manifest

PASSPHRASE = "correct horse battery"


class Host:
    """The controller's host, and the holders' machines, as folders."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.state, self.stick = folder, folder / "state", folder / "stick"
        self._capsys = capsys
        (folder / "passphrase").write_text(PASSPHRASE + "\n")
        (folder / "wrong").write_text("another passphrase\n")

    @classmethod
    def at(cls, folder: Path, other: Host) -> Host:
        """Another host, heard by the same ears."""
        folder.mkdir()
        return cls(folder, other._capsys)

    def types(self, line: str, code: int = 0) -> str:
        """What a command said."""
        words = line.format(state=self.state, stick=self.stick, folder=self.folder, secret=self.folder / "passphrase")
        assert run(words.split()) == code, self._capsys.readouterr().err
        said = self._capsys.readouterr()
        assert "Traceback" not in said.err
        return said.err if code else said.out

    def init(self) -> str:
        secrets = " ".join(f"--passphrase-file {name}={{secret}}" for name in ("alice", "bob", "carol", "root-ca"))
        people = "--holder alice --holder bob --holder carol"
        return self.types(f"keys init --state {{state}} --fleet plant-7 --out {{stick}} {people} {secrets}")

    def sign(self, request: str, name: str, code: int = 0, secret: str = "passphrase") -> str:
        return self.types(
            f"keys sign {request} --keys {{stick}}/{name}.keys --passphrase-file {name}={{folder}}/{secret} --yes", code
        )


@pytest.fixture
def host(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Host:
    return Host(tmp_path, capsys)


def roles(host: Host) -> dict[str, dict[str, object]]:
    return {row["role"]: row for row in json.loads(host.types("keys status --state {state} --json"))}


async def test_the_ceremony_from_the_first_start_to_a_rotation(host: Host, tmp_path: Path) -> None:
    async with controller(host.state) as fleet:
        device = await fleet.enrol("jetson-01")
        before = await device.check_in()
        assert roles(host)["image root"]["where"] == "online"
        assert "give these keys to people" in host.types("keys status --state {state}")
        assert "another controller (pid" in host.types("keys renew --state {state} --request {folder}/r", 1)
    said = host.init()
    assert "2 of 3 holders now sign for roots and targets; 5 keys are removed" in said
    assert sorted(path.name for path in host.stick.iterdir()) == [
        "alice.keys",
        "bob.keys",
        "carol.keys",
        "root-ca.keys",
    ]
    assert all((path.stat().st_mode & 0o777) == 0o600 for path in host.stick.iterdir())
    assert not list(host.state.rglob("image-root.pem")) + list(host.state.rglob("root.key"))
    shown = roles(host)
    assert (shown["image root"]["keys"], shown["image root"]["threshold"]) == (["alice", "bob", "carol"], 2)
    assert shown["root CA"]["where"] == "offline"
    host.types("keys rotate snapshot timestamp director builder --state {state} --request {folder}/request.json")
    request = str(tmp_path / "request.json")
    assert "signed by alice; 1 more holder must sign" in host.sign(request, "alice")
    assert "signatures are missing" in host.types(f"keys publish {request} --state {{state}}", 1)
    said = host.sign(request, "carol")
    assert "image-root: version 2 → 3" in said
    assert "snapshot: " in said
    assert "complete: edgewright keys publish" in said
    assert "published: other keys: snapshot, timestamp, director, builder" in host.types(
        f"keys publish {request} --state {{state}}"
    )
    async with controller(host.state) as fleet:
        events = await fleet.apply(manifest(tmp_path, ["jetson-01"]), tmp_path, build_only=True)
        assert events[-1].result.succeeded, "artifacts are published without the holders"
        after = await (await fleet.enrol("jetson-01")).check_in()
    assert {"2.root.json", "3.root.json"} <= {file.name for file in after.metadata}
    assert before.metadata
    ledger = Ledger.open(host.state / "ledger.sqlite")
    entries = [row for row in ledger.read_now(lambda c: list(audit.entries(c))) if row.action == "keys.publish"]
    ledger.close()
    assert [row.actor for row in entries] == ["host keys init", "host keys publish"]
    assert "signed by alice, carol" in entries[1].detail


def test_a_fleet_can_begin_with_the_ceremony(host: Host) -> None:
    host.init()
    assert roles(host)["director root"]["where"] == "holders"
    again = host.types(
        "keys init --state {state} --out {folder}/other --holder a --holder b --holder c --passphrase-file a={secret}",
        1,
    )
    assert "holders have the keys already" in again


def test_an_init_that_was_cut_off_after_its_publication_leaves_no_keys_behind(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("edgewright_controller.ceremony_state.CeremonyState.forget_online_keys", _power_cut)
        with pytest.raises(AssertionError, match="130 == 0"):
            host.init()
    assert (host.state / "keys" / "image-root.pem").exists()
    again = "keys init --state {state} --out {stick} --holder alice --holder bob --holder carol"
    assert "5 keys that an earlier run left are removed now" in host.types(again, 1)
    assert not list(host.state.rglob("image-root.pem")) + list(host.state.rglob("root.key"))


def _power_cut(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_holders_who_come_by_a_rotation_leave_the_root_authoritys_only_key(host: Host, tmp_path: Path) -> None:
    """No root-ca.keys was written, so the key in the state folder is the only one."""
    with ceremony_state.opened(host.state, "plant-7", datetime.now(timezone.utc)):
        pass
    host.types("keys holder dave --fleet plant-7 --out {stick} --passphrase-file dave={secret}")
    host.types("keys holder erin --fleet plant-7 --out {stick} --passphrase-file erin={secret}")
    host.types("keys rotate --state {state} --request {folder}/r.json --add {stick}/dave.pub --add {stick}/erin.pub")
    request = str(tmp_path / "r.json")
    host.sign(request, "dave")
    host.sign(request, "erin")
    host.types(f"keys publish {request} --state {{state}}")
    assert not (host.state / "keys" / "image-root.pem").exists()
    assert (host.state / "pki" / "root.key").exists()


def test_the_intermediate_is_renewed_by_whoever_keeps_the_root(host: Host, tmp_path: Path) -> None:
    host.init()
    before = (host.state / "pki" / "intermediate.crt").read_bytes()
    host.types("keys intermediate --state {state} --request {folder}/i.json")
    request = str(tmp_path / "i.json")
    assert "nobody has signed it yet" in host.types(f"keys publish {request} --state {{state}}", 1)
    assert "it has not the root authority's key" in host.sign(request, "alice", 1)
    assert "asks for a certificate of 1825 days" in host.sign(request, "root-ca")
    answered = Path(request).read_bytes()
    Path(request).write_bytes(answered.replace(b'"plant-7"', b'"plant-7\\u001b[8m"'))
    assert "'plant-7\\x1b[8m' is not a fleet's name" in host.sign(request, "root-ca", 2)
    Path(request).write_bytes(answered)
    assert "is good until" in host.types(f"keys publish {request} --state {{state}}")
    after = (host.state / "pki" / "intermediate.crt").read_bytes()
    assert after != before
    # Another fleet's root cannot speak for this one, nor an answer for another key.
    other = Host.at(tmp_path / "other", host)
    other.init()
    other.types("keys intermediate --state {state} --request {folder}/o.json")
    wrong = str(other.folder / "o.json")
    assert "the root's certificate in the request is not of this key" in host.sign(wrong, "root-ca", 1)
    Path(wrong).write_bytes(answered)
    assert "not by this fleet's root" in other.types(f"keys publish {wrong} --state {{state}}", 1)
    assert (host.state / "pki" / "intermediate.crt").read_bytes() == after


def test_a_new_holder_makes_its_own_file(host: Host, tmp_path: Path) -> None:
    host.init()
    host.types("keys holder dave --fleet plant-7 --out {stick} --passphrase-file dave={secret}")
    host.types("keys rotate --state {state} --request {folder}/r.json --add {stick}/dave.pub --remove alice")
    request = str(tmp_path / "r.json")
    for name in ("alice", "bob", "dave"):
        said = host.sign(request, name)
    assert "complete" in said
    host.types(f"keys publish {request} --state {{state}}")
    assert roles(host)["image root"]["keys"] == ["bob", "carol", "dave"]


def test_what_is_wrong_is_said_in_one_line_and_changes_nothing(host: Host, tmp_path: Path) -> None:
    host.init()
    host.types("keys renew --state {state} --request {folder}/r.json")
    request, standing = str(tmp_path / "r.json"), roles(host)
    content = (tmp_path / "r.json").read_bytes()
    said = host.sign(request, "alice", 1, secret="wrong")
    assert "alice.keys: the passphrase is another one, or the file was changed; nothing was signed" in said
    host.types("keys holder eve --fleet plant-8 --out {stick} --passphrase-file eve={secret}")
    assert "the request is of fleet 'plant-7', and the keys are of fleet 'plant-8'" in host.sign(request, "eve", 1)
    assert "no key of root-ca is asked for" in host.sign(request, "root-ca", 1)
    assert (tmp_path / "r.json").read_bytes() == content
    (tmp_path / "bad.json").write_text("{}")
    assert "not a signing request" in host.types("keys sign {folder}/bad.json --keys {stick}/bob.keys --yes", 2)
    assert "is there already" in host.types("keys renew --state {state} --request {folder}/r.json", 2)
    assert "is no holder" in host.types("keys rotate --state {state} --request {folder}/q --remove mallory", 1)
    assert "'root' is no role" in host.types("keys rotate root --state {state} --request {folder}/q", 1)
    assert "nothing to rotate" in host.types("keys rotate --state {state} --request {folder}/q", 2)
    assert "is no controller's state folder" in host.types("keys status --state {folder}/nowhere", 1)
    assert "name three holders" in host.types("keys init --state {state} --out {folder}/o --holder a", 2)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "binary: a passphrase is text in UTF-8" in host.sign(request, "alice", 2, secret="binary")
    lock = StateLock.take(host.state)
    assert "stop it first, devices serve on" in host.types(f"keys publish {request} --state {{state}}", 1)
    lock.release()
    assert roles(host) == standing
