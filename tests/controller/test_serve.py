"""`edgewright serve` as an operator runs it: a process, its ready line, its end, and the verbs against it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgewright_contract import enrolment_token
from edgewright_controller.cli import run
from tests.controller.pki_requests import new_key
from tests.controller.service_rig import Device, manifest

ENVIRONMENT = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
ANY = "127.0.0.1:0"


def command(state: Path, *flags: str) -> list[str]:
    listen = ("--listen", ANY, "--enrolment", ANY, "--mqtt", ANY)
    return [sys.executable, "-m", "edgewright_controller.cli", "serve", "--state", str(state), *listen, *flags]


@contextlib.contextmanager
def serving(state: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """A controller that has said that it is ready."""
    with (state.parent / "serve.log").open("w") as log:
        process = subprocess.Popen(
            command(state, "--fleet", "plant-7", *flags), stdout=subprocess.PIPE, stderr=log, text=True, env=ENVIRONMENT
        )
    try:
        assert process.stdout is not None
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            assert waiting.select(60), "no ready line"
        line = process.stdout.readline()
        assert line.startswith("edgewright: fleet plant-7 ready at "), (state.parent / "serve.log").read_text()
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(20)
        assert process.stdout is not None
        process.stdout.close()


def refused(state: Path, *flags: str) -> str:
    """How a controller that cannot start says so: one line, exit 1, no traceback."""
    done = subprocess.run(
        command(state, *flags), capture_output=True, text=True, timeout=60, check=False, env=ENVIRONMENT
    )
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_it_starts_ends_on_sigterm_with_0_and_starts_again_on_the_same_state(tmp_path: Path) -> None:
    state = tmp_path / "state"
    for _ in range(2):
        with serving(state) as process:
            assert run(["status", "--config", str(state / "operator" / "client.toml")]) == 0
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    assert "belongs to fleet 'plant-7', not 'plant-8'" in refused(state, "--fleet", "plant-8")


def test_operators_are_told_the_name_by_which_this_host_is_called(tmp_path: Path) -> None:
    with serving(tmp_path / "state", "--broker", "off", "--name", "localhost", "--listen", "0.0.0.0:0"):
        config = tmp_path / "state" / "operator" / "client.toml"
        assert 'address = "localhost:' in config.read_text()
        assert run(["status", "--config", str(config)]) == 0


def test_a_second_controller_on_one_state_folder_and_a_taken_port_are_refused(tmp_path: Path) -> None:
    with serving(tmp_path / "state", "--broker", "off") as process:
        line = refused(tmp_path / "state")
        assert f"another controller (pid {process.pid}) uses this state folder" in line
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(tmp_path / "other", "--broker", "off", "--listen", f"127.0.0.1:{port}")
        assert f"listen.grpc: cannot listen on 127.0.0.1:{port}" in line


@pytest.mark.parametrize("setting", ["listen", "enrolment", "mqtt"])
def test_each_port_that_is_taken_is_named_and_binds_the_folder_to_no_fleet(tmp_path: Path, setting: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused(tmp_path / "state", f"--{setting}", f"127.0.0.1:{port}")
    key = {"listen": "grpc"}.get(setting, setting)
    assert f"listen.{key}: cannot listen on 127.0.0.1:{port}: address already in use; name another" in line
    if setting != "mqtt":  # a broker that was left behind is ended first, for which the folder must be known
        with serving(tmp_path / "state", "--broker", "off"):
            pass


def test_a_state_folder_that_is_a_file_and_an_address_that_says_nothing_to_devices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert f"{tmp_path / 'file'}: Not a directory" in refused(tmp_path / "file", "--broker", "off")
    line = refused(tmp_path / "state", "--listen", "0.0.0.0:0", "--broker", "off")
    assert "names: 0.0.0.0:0 is every address of this host" in line
    assert "--settings" in line


def test_a_killed_controller_leaves_a_state_that_the_next_one_takes_up(tmp_path: Path) -> None:
    with serving(tmp_path / "state") as process:
        process.kill()
        process.wait(10)
    with serving(tmp_path / "state") as process:
        assert process.poll() is None


def test_who_lets_a_device_in_is_told_what_it_means(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    with serving(state):
        config = ("--config", str(state / "operator" / "client.toml"))
        assert run(["enroll", "create", "--device", "jetson-01", *config]) == 0
        said = capsys.readouterr()
        assert "enrolled already" not in said.err
        asyncio.run(Device.enrol(said.out.strip().rsplit(" ", 1)[1]))
        assert run(["enroll", "create", "--device", "jetson-01", *config]) == 0
        said = capsys.readouterr()
        assert "jetson-01 is enrolled already, since 20" in said.err
        assert "takes over jetson-01, and every certificate of the present one is revoked" in said.err
        key = tmp_path / "key.pub"
        key.write_text("hello")
        authorise = ("enroll", "authorise", "--device", "jetson-02", "--public-key")
        assert run([*authorise, str(key), *config]) == 2
        assert "this is not a public key in PEM; give the file that" in capsys.readouterr().err
        assert run([*authorise, str(tmp_path / "none.pub"), *config]) == 2
        assert "none.pub: No such file" in capsys.readouterr().err
        spki = PublicFormat.SubjectPublicKeyInfo
        key.write_bytes(new_key().public_key().public_bytes(Encoding.PEM, spki))
        assert run([*authorise, str(key), *config]) == 0
        line, _ = capsys.readouterr().out.strip().rsplit(" ", 1)
        assert line == "edgewright-agent enroll --config agent.toml --token"


def test_the_verbs_against_a_controller_with_its_broker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "state"
    text = tmp_path / "fleet.toml"
    text.write_text(manifest(tmp_path, ["jetson-01"]))
    with serving(state, "--log-format", "json"):
        config = ("--config", str(state / "operator" / "client.toml"))
        assert run(["enroll", "create", "--device", "jetson-01", *config]) == 0
        line, token = capsys.readouterr().out.strip().rsplit(" ", 1)
        assert line == "edgewright-agent enroll --config agent.toml --token"
        assert token.startswith("ewt1.")
        with a_living_device(token):
            assert run(["plan", str(text), *config]) == 0
            assert "+ jetson-01: install tiny for jetson" in capsys.readouterr().out
            assert run(["apply", str(text), *config]) == 0
            shown = capsys.readouterr().out
            assert "build tiny gguf prebuilt: done" in shown
            assert "jetson-01: succeeded" in shown
            assert run(["plan", str(text), "--json", *config]) == 0
            assert json.loads(capsys.readouterr().out)["builds"][0]["cached"]
            text.write_text(manifest(tmp_path, ["jetson-01"], weights=b"second"))
            assert run(["apply", str(text), "--json", *config]) == 0
            events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert events[-1]["result"]["succeeded"]
            assert run(["rollback", "--device", "jetson-01", *config]) == 0
            capsys.readouterr()
            assert run(["apply", str(text), *config]) == 1
            assert "--again" in capsys.readouterr().err
            assert run(["rollback", "--device", "mac-09", *config]) == 2
            assert "there is no device 'mac-09'" in capsys.readouterr().err
            assert run(["rollout", "pause", "rollout-1", *config]) == 1
            assert "rollout-1 has ended already; it succeeded" in capsys.readouterr().err
            assert run(["rollout", "abort", "rollout-9", "--revert", *config]) == 2
            assert "there is no rollout 'rollout-9'" in capsys.readouterr().err
            assert run(["rollout", "list", *config]) == 0
            listed = capsys.readouterr().out
            assert all(name in listed for name in ("rollout-1", "rollout-2", "rollout-3", "apply of", "rollback of"))
            assert run(["rollout", "list", "--limit", "1", "--json", *config]) == 0
            assert [one["rollout"] for one in json.loads(capsys.readouterr().out)["rollouts"]] == ["rollout-3"]
        assert run(["status", "--json", *config]) == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["broker_connected"]
        assert answer["devices"][0]["desired_generation"] == "3"
        for verb in ("status", "devices"):
            assert run([verb, *config]) == 0
            assert "jetson-01" in capsys.readouterr().out
    log = (tmp_path / "serve.log").read_text()
    events = [json.loads(line) for line in log.splitlines()]
    assert {"device enrolled", "rollout begins", "device succeeded", "rollout ended"} <= {
        one["event"] for one in events
    }
    succeeded = [one for one in events if one["event"] == "device succeeded"]
    assert [(one["device"], one["rollout"]) for one in succeeded] == [
        ("jetson-01", f"rollout-{number}") for number in (1, 2, 3)
    ]
    assert succeeded[2]["release"] == succeeded[0]["release"] != succeeded[1]["release"]
    assert enrolment_token.parse(token).secret not in log


def test_tail_of_a_device_that_there_is_not_ends_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path / "state"):
        config = ("--config", str(tmp_path / "state" / "operator" / "client.toml"))
        assert run(["tail", "mac-09", *config]) == 2
    assert "'mac-09' is not enrolled" in capsys.readouterr().err


@contextlib.contextmanager
def a_living_device(token: str) -> Iterator[None]:
    """A device on a thread of its own, because the verbs block this one."""
    enrolled, end = threading.Event(), threading.Event()

    async def live() -> None:
        device = await Device.enrol(token)
        enrolled.set()
        async with device.living():
            await asyncio.to_thread(end.wait, 280)

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    try:
        assert enrolled.wait(60)
        yield
    finally:
        end.set()
        thread.join(10)
