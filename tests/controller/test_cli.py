"""The command line: one line and the right exit code for everything that can be wrong before a controller is asked."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgewright_contract import __version__
from edgewright_controller.cli import run
from edgewright_controller.pki import Authority
from tests.controller.pki_requests import NOW

MANIFEST = """
[fleet]
name = "plant-7"
[models.tiny]
source = "model"
[profiles.jetson]
runtime = "gguf"
quantization = "Q4_K_M"
accelerator = "cuda"
memory = "8GB"
[groups.all]
model = "tiny"
profile = "jetson"
devices = ["jetson-01"]
[devices.jetson-01]
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    file = tmp_path / "fleet.toml"
    file.write_text(MANIFEST)
    return file


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Access to a port where nobody listens."""
    Authority.open(tmp_path / "pki", "plant-7", NOW).operator_certificate(folder=tmp_path / "operator")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    file = tmp_path / "operator" / "client.toml"
    file.write_text(f'address = "127.0.0.1:{port}"\ncertificate = "admin.crt"\nkey = "admin.key"\nca = "ca.crt"\n')
    return file


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What went to standard error: whole lines, each with our name, never a traceback."""
    error = capsys.readouterr().err
    assert all(line.startswith("edgewright: ") for line in error.splitlines())
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize(
    "verb",
    [
        "status",
        "devices",
        "tail",
        "revoke device d1",
        "rollback",
        "rollout list",
        "rollout resume rollout-1",
        "rollout abort r",
    ],
)
def test_without_a_controller_each_verb_says_how_to_start_one(
    verb: str, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewright_controller.client.connection.CONNECT_S", 0.3)
    assert run([*verb.split(), "--config", str(config)]) == 1
    assert "no controller at 127.0.0.1:" in (error := said(capsys))
    assert "edgewright serve" in error


def test_a_missing_access_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status", "--config", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: No such file" in said(capsys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('address = "x:1"\nkey = "a"\nca = "b"\n', "client.toml: certificate: missing"),
        ('adress = "x:1"\n', "client.toml: adress: unknown key"),
        ("address = \n", "client.toml: not TOML"),
        ('address = "x:1"\ncertificate = "a"\nkey = "b"\nca = "nowhere.crt"\n', "nowhere.crt: No such file"),
    ],
)
def test_a_wrong_access_file_is_named_with_its_key(
    text: str, message: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(text)
    assert run(["status", "--config", str(config)]) == 2
    assert message in said(capsys)


def test_a_good_manifest_gets_as_far_as_the_controller(
    manifest: Path, config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgewright_controller.client.connection.CONNECT_S", 0.3)
    for verb in ("plan", "apply"):
        assert run([verb, str(manifest), "--config", str(config)]) == 1
        assert "no controller at" in said(capsys)


def test_a_bad_manifest_is_refused_before_anything_is_sent(
    manifest: Path, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest.write_text(MANIFEST.replace("quantization", "quantisation"))
    for verb in ("plan", "apply"):
        assert run([verb, str(manifest), "--config", str(config)]) == 2
        assert 'quantisation: unknown key; did you mean "quantization"?' in (error := said(capsys))
        assert "fleet.toml" in error


def test_files_without_an_end_are_refused_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["apply", "/dev/zero"]) == 2
    assert "/dev/zero: larger than 4,194,304 bytes; that is no manifest" in said(capsys)
    assert run(["status", "--config", "/dev/zero"]) == 2
    assert "/dev/zero: larger than 65,536 bytes; that is no access file" in said(capsys)


def test_a_missing_manifest_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["apply", str(tmp_path / "none.toml")]) == 2
    assert "none.toml: No such file" in said(capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["aply"], "No such command 'aply'"),
        (["apply"], "Missing argument 'manifest'. (see edgewright apply --help)"),
        (["serve", "--broker", "external"], "broker.address: goes with"),
        (["status", "--limit", "many"], "--limit"),
        (["enroll", "create", "--device", "d1", "--valid-hours", "48"], "--valid-hours: 48; a token"),
        (["serve", "--listen", "7443"], "listen.grpc: '7443' is not host:port"),
        (["serve", "--broker", "maybe"], "broker.mode: 'maybe'; there are managed, external, off"),
    ],
)
def test_wrong_usage_ends_with_2_and_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    assert message in said(capsys)


def test_schema_is_a_json_document_and_help_needs_no_controller(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["schema"]) == 0
    assert "fleet" in json.loads(capsys.readouterr().out)["properties"]
    assert run(["--help"]) == 0
    assert run([]) == 2
    assert capsys.readouterr().err == ""
    capsys.readouterr()
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"edgewright {__version__}\n"


NOISY = """
from edgewright_controller import cli  # first, as the command does
from edgewright_controller.client import connection
connection.CONNECT_S = 5.0
cli.main()
"""


def test_what_grpc_says_of_itself_reaches_nobody_who_did_not_ask_for_it(config: Path, tmp_path: Path) -> None:
    other = Authority.open(tmp_path / "other", "plant-8", NOW)
    stranger = other.server_certificate(["127.0.0.1"], NOW)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(stranger.chain, stranger.key)
    context.set_alpn_protocols(["h2"])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("GRPC_VERBOSITY", None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_shake_hands, args=(listening, context), daemon=True).start()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        command = [sys.executable, "-c", NOISY, "status", "--config", str(config), "--controller", address]

        def said_with(**verbosity: str) -> str:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=60, check=False, env=environment | verbosity
            )
            assert done.returncode == 1
            return done.stderr

        assert "CERTIFICATE_VERIFY_FAILED" in said_with(GRPC_VERBOSITY="INFO")
        (line,) = said_with().splitlines()
        assert line.startswith(f"edgewright: what answers at {address} is no controller of this operator's fleet")


def _shake_hands(listening: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        try:
            peer, _ = listening.accept()
        except OSError:
            return  # the test is over
        with contextlib.suppress(OSError), context.wrap_socket(peer, server_side=True) as secured:
            secured.recv(1)


def test_the_module_runs_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edgewright_controller.cli", "status", "--config", str(tmp_path / "none.toml")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 2
    assert done.stderr.startswith("edgewright: ")


@pytest.mark.parametrize(
    ("target", "environment", "code"),
    [("/dev/full", {}, 1), ("/dev/null", {"PYTHONIOENCODING": "ascii"}, 0)],
    ids=["a full disk behind it", "a console that lacks signs"],
)
def test_output_that_cannot_be_written_is_no_traceback(target: str, environment: dict[str, str], code: int) -> None:
    with open(target, "w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "edgewright_controller.cli", "schema"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
            env=os.environ | environment,
        )
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert not code or "standard output: No space left on device" in done.stderr
