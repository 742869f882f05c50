"""The agent as a real process: enrolled, updated, attacked, killed; over real gRPC, with a real child as engine."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from edgewright_agent.device_key import FileKeys
from edgewright_agent.engines.confinement import Confinement
from edgewright_agent.link import CHECK_IN_S
from edgewright_contract.release import Probe
from edgewright_contract.v1 import agent_pb2
from edgewright_controller import pki
from tests.agent import echo
from tests.agent.real_mosquitto import until
from tests.agent.small_controller import DEVICE, SmallController

COMMAND = (sys.executable, "-m", "edgewright_agent.cli")


class AgentProcess:
    """One device's folder, and the agent that runs on it."""

    def __init__(self, folder: Path) -> None:
        self.state, self.config = folder / "state", folder / "agent.toml"
        self.log = folder / "agent.log"
        self.base, self._process = "", None
        self.write_config("127.0.0.1:0")

    def write_config(self, listen: str, mqtt: str = "") -> None:
        """With an empty `mqtt` there is no broker."""
        self.config.parent.mkdir(parents=True, exist_ok=True)
        self.config.write_text(
            f'device = "{DEVICE}"\nstate = "state"\n[gateway]\nlisten = "{listen}"\n[disk]\nreserve = "1MB"\n'
            + (f'[mqtt]\naddress = "{mqtt}"\n' if mqtt else "[mqtt]\nenabled = false\n")
            + f'[engines.gguf]\nengine = "{echo.SETTINGS.engine}"\n'
        )

    _process: subprocess.Popen[str] | None

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, arguments[0], "--config", str(self.config), *arguments[1:]],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def start(self) -> str:
        """The line that says that it is up."""
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "run", "--config", str(self.config)], stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.log.read_text()
        self.base = line.split(": ", 1)[1].split(" ", 1)[0].removesuffix("/v1")
        return line

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(30)

    def ask(self, text: str = "hello there", model: str = "smollm2") -> str:
        """The answer of whatever serves. Raises OSError, or AssertionError for any refusal."""
        connection = http.client.HTTPConnection(self.base.removeprefix("http://"), timeout=90)
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}]})
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        document: Any = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, document
        return str(document["choices"][0]["message"]["content"])

    def get(self, path: str) -> Any:
        """The gateway's document at `path`."""
        connection = http.client.HTTPConnection(self.base.removeprefix("http://"), timeout=90)
        connection.request("GET", path)
        answer = connection.getresponse()
        document: Any = json.loads(answer.read())
        connection.close()
        assert answer.status == 200, document
        return document


class Traffic:
    """Requests without pause, on a thread; what failed is kept."""

    def __init__(self, agent: AgentProcess) -> None:
        self._agent, self._ended = agent, threading.Event()
        self.answered, self.failures = 0, list[str]()
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Traffic:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(30)

    def _ask(self) -> None:
        while not self._ended.is_set():
            try:
                self._agent.ask()
                self.answered += 1
            except (OSError, AssertionError, http.client.HTTPException) as error:
                self.failures.append(repr(error))


@pytest.fixture
def agent(tmp_path: Path, controller: SmallController) -> Iterator[AgentProcess]:
    """Enrolled and running, with nothing to serve yet."""
    made = AgentProcess(tmp_path / "device")
    enrolled = made.command("enroll", "--token", controller.token())
    assert enrolled.returncode == 0, enrolled.stderr
    assert made.start().endswith("serves nothing yet\n")
    yield made
    made.end()


def test_a_device_gets_its_first_release_and_serves_it(agent: AgentProcess, controller: SmallController) -> None:
    wanted = controller.release("one", prefix="v1 ")
    controller.want(1, wanted)
    status = controller.ended(1)
    assert status.outcome == agent_pb2.OUTCOME_SUCCEEDED
    assert (status.active_release, status.active_artifact) == (wanted[0].digest, wanted[1].bundle)
    assert (status.engine, status.accelerator) == ("echo 1.0", "cpu (cpu:0)")
    # What the engine that serves is not kept from, by its own start; this machine may lack one thing or the other.
    assert set(status.unconfined) == set(Confinement(state=agent.state).unconfined())
    assert agent.ask() == "v1 hello there"
    assert controller.inventory.runtimes == ["gguf", *[r for r in controller.inventory.runtimes if r != "gguf"]]
    shown = agent.command("status")
    assert f"serves:    smollm2, release {wanted[0].digest[:12]}" in shown.stdout
    assert "identity:  until 20" in shown.stdout
    lacking = f"all but: {', '.join(status.unconfined)}" if status.unconfined else "in all that this version knows"
    assert f"confined:  {lacking}" in shown.stdout
    read = json.loads(agent.command("status", "--json").stdout)
    assert (read["running"], read["health"]["status"], read["outcome"]) == (True, "ok", "succeeded")
    assert read["unconfined"] == list(status.unconfined)


def test_clients_ask_for_the_served_name_and_it_outlives_a_restart(
    agent: AgentProcess, controller: SmallController
) -> None:
    controller.want(1, controller.release("one", prefix="v1 "))
    controller.ended(1)
    assert agent.ask() == "v1 hello there"
    controller.want(2, controller.release("two", served_name="org/assistant", prefix="v2 "))
    status = controller.ended(2)
    assert (status.outcome, status.active_model) == (agent_pb2.OUTCOME_SUCCEEDED, "smollm2")
    for _ in range(2):
        assert agent.ask(model="org/assistant") == "v2 hello there"
        with pytest.raises(AssertionError, match=r"'smollm2' does not exist on this device; there is org/assistant"):
            agent.ask()
        assert agent.get("/v1/models/org/assistant")["id"] == "org/assistant"
        assert agent.get("/health")["model"] == "org/assistant"
        agent.end()
        agent.start()


def test_bad_releases_never_take_traffic_and_a_corrected_one_does(
    agent: AgentProcess, controller: SmallController
) -> None:
    good = controller.release("good", prefix="v1 ")
    controller.want(1, good)
    assert controller.ended(1).outcome == agent_pb2.OUTCOME_SUCCEEDED
    bad_probe = controller.release("probe", Probe("impossible", "hello", expect="goodbye"), prefix="v2 ")
    bad_engine = controller.release("engine", prefix="v3 ", load="abort")
    bad_device = controller.release("device", prefix="v4 ", accelerator="cuda")
    bad_bytes = controller.release("bytes", prefix="v5 ")
    with Traffic(agent) as traffic:
        for generation, (wanted, fault, said) in enumerate(
            [
                (bad_probe, agent_pb2.ERROR_CODE_PROBE_FAILED, "impossible"),
                (bad_engine, agent_pb2.ERROR_CODE_ENGINE_FAILED, "SIGABRT"),
                (bad_device, agent_pb2.ERROR_CODE_ACCELERATOR_WRONG, "made for cpu"),
                (bad_bytes, agent_pb2.ERROR_CODE_ARTIFACT_CORRUPT, "model.gguf: block"),
            ],
            start=2,
        ):
            if wanted is bad_bytes:
                controller.mischief.flips.update(dict.fromkeys(range(1, 8), 1000))
            controller.want(generation, wanted)
            status = controller.ended(generation)
            assert (status.outcome, status.error) == (agent_pb2.OUTCOME_FAILED, fault), status
            assert said in status.reason
            assert status.active_release == good[0].digest
            assert wanted[0].digest in status.held_releases
        # The same release under a new generation is held; another one is taken.
        controller.want(6, bad_probe)
        assert controller.ended(6).outcome == agent_pb2.OUTCOME_HELD
        controller.mischief.flips.clear()
        corrected = controller.release("corrected", prefix="v6 ")
        controller.want(7, corrected)
        status = controller.ended(7)
        assert status.outcome == agent_pb2.OUTCOME_SUCCEEDED, status
    assert traffic.failures == []
    assert traffic.answered > 10
    assert agent.ask() == "v6 hello there"
    assert status.previous_release == good[0].digest
    # A rollback is a higher generation that names the older release.
    controller.want(8, good)
    assert controller.ended(8).active_release == good[0].digest
    assert agent.ask() == "v1 hello there"


def test_a_killed_agent_serves_again_without_any_network(agent: AgentProcess, controller: SmallController) -> None:
    controller.want(1, controller.release("one", prefix="v1 "))
    controller.ended(1)
    controller.stop()
    agent.end(signal.SIGKILL)
    began = time.monotonic()
    assert "serves nothing" not in agent.start()
    assert agent.ask() == "v1 hello there"
    assert time.monotonic() - began < CHECK_IN_S  # it did not wait for an answer of the controller


def test_a_killed_engine_comes_back_by_itself(agent: AgentProcess, controller: SmallController) -> None:
    import psutil

    controller.want(1, controller.release("one", prefix="v1 "))
    controller.ended(1)
    for child in psutil.Process(agent.pid).children():
        os.kill(child.pid, signal.SIGKILL)
    assert agent.ask() == "v1 hello there"


def test_sigkill_in_the_middle_of_an_update_ends_in_the_new_version(
    agent: AgentProcess, controller: SmallController
) -> None:
    controller.want(1, controller.release("one", prefix="v1 "))
    controller.ended(1)
    for round_, pause in enumerate((0.0, 0.1, 0.3, 0.6), start=2):
        controller.want(round_, controller.release(f"r{round_}", prefix=f"v{round_} ", size=4 << 20))
        controller.until(lambda status, generation=round_: status.generation == generation)  # type: ignore[misc]  # mypy cannot type a lambda's default
        time.sleep(pause)
        agent.end(signal.SIGKILL)
        agent.start()
        assert agent.ask().endswith("hello there")
        assert controller.ended(round_).outcome == agent_pb2.OUTCOME_SUCCEEDED
        assert agent.ask() == f"v{round_} hello there"


def test_a_damaged_active_artifact_gives_way_to_the_previous_one_until_it_is_fetched_again(
    agent: AgentProcess, controller: SmallController
) -> None:
    first, second = controller.release("one", prefix="v1 "), controller.release("two", prefix="v2 ")
    for generation, wanted in enumerate((first, second), start=1):
        controller.want(generation, wanted)
        assert controller.ended(generation).outcome == agent_pb2.OUTCOME_SUCCEEDED
    agent.end()
    damaged = agent.state / "artifacts" / second[1].bundle / "model.gguf"
    damaged.chmod(0o644)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    controller.away = True  # else the device may be mended before it has said that it was damaged
    agent.start()
    assert agent.ask() == "v1 hello there"
    assert json.loads(agent.command("status", "--json").stdout)["outcome"] == "failed"
    since = controller.heard
    controller.away = False
    status = controller.until(lambda status: status.outcome == agent_pb2.OUTCOME_FAILED, since)
    assert (status.error, status.active_release) == (agent_pb2.ERROR_CODE_ARTIFACT_CORRUPT, first[0].digest)
    assert "model.gguf" in status.reason
    status = controller.until(lambda status: status.outcome == agent_pb2.OUTCOME_SUCCEEDED)
    assert (status.active_release, list(status.held_releases)) == (second[0].digest, [])
    assert agent.ask() == "v2 hello there"


def test_a_damaged_only_artifact_is_fetched_again(agent: AgentProcess, controller: SmallController) -> None:
    only = controller.release("one", prefix="v1 ")
    controller.want(1, only)
    controller.ended(1)
    agent.end()
    (agent.state / "artifacts" / only[1].bundle / "model.gguf").unlink()
    since = controller.heard
    agent.start()
    controller.until(lambda status: status.outcome == agent_pb2.OUTCOME_FAILED, since)
    status = controller.until(lambda status: status.outcome == agent_pb2.OUTCOME_SUCCEEDED)
    assert status.active_release == only[0].digest
    assert agent.ask() == "v1 hello there"


def test_serving_nothing_ends_the_engine(agent: AgentProcess, controller: SmallController) -> None:
    import psutil

    controller.want(1, controller.release("one"))
    controller.ended(1)
    controller.want(2, None)
    status = controller.ended(2)
    assert (status.outcome, status.active_release) == (agent_pb2.OUTCOME_SUCCEEDED, "")
    assert psutil.Process(agent.pid).children() == []
    with pytest.raises(AssertionError, match="does not exist on this device"):
        agent.ask()


def test_requests_are_answered_once(agent: AgentProcess, controller: SmallController) -> None:
    kinds = agent_pb2.DeviceRequest
    failed = controller.release("bad", Probe("impossible", "hello", expect="goodbye"))
    controller.want(1, failed)
    first = controller.ended(1).sequence
    controller.requests += [
        kinds(id="logs", kind=kinds.KIND_SEND_LOGS),
        kinds(id="hold", kind=kinds.KIND_RELEASE_HOLD, argument=failed[0].digest),
        kinds(id="pause", kind=kinds.KIND_PAUSE_DOWNLOADS),
    ]
    # With its hold released, the same generation is tried again, and fails again.
    controller.until(lambda _: len(controller.results) >= 3)
    again = controller.until(lambda status: status.sequence > first and failed[0].digest in status.held_releases)
    assert again.error == agent_pb2.ERROR_CODE_PROBE_FAILED
    results = {result.id: (result.succeeded, result.detail) for result in controller.results}
    assert results["logs"][0] is True
    assert "no engine runs" in results["logs"][1]
    assert "the controller answers" in results["logs"][1]
    assert results["hold"] == (True, "released")
    assert results["pause"][0] is True
    assert len(controller.results) == 3


def test_what_is_wrong_is_one_line_without_a_traceback(agent: AgentProcess, tmp_path: Path) -> None:
    second = agent.command("run")
    assert second.returncode == 1
    assert "another agent (pid" in second.stderr
    stranger = AgentProcess(tmp_path / "stranger")
    unenrolled = stranger.command("run")
    rubbish = stranger.command("enroll", "--token", "rubbish")
    stranger.write_config(agent.base.removeprefix("http://"))
    shutil.copytree(agent.state, stranger.state, dirs_exist_ok=True)
    taken = stranger.command("run")
    stranger.config.write_text('stat = "x"')
    misspelt = stranger.command("status")
    for done, code, said in (
        (second, 1, "stop it, or set another state folder"),
        (unenrolled, 1, "edgewright-agent enroll --token"),
        (rubbish, 1, "enrolment token"),
        (taken, 1, "gateway.listen: cannot listen on"),
        (misspelt, 2, 'did you mean "state"?'),
    ):
        assert (done.returncode, said in done.stderr) == (code, True), done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith("edgewright-agent: ")


def test_a_certificate_of_a_year_is_renewed_at_the_next_start_and_an_ended_one_asked_for_again(
    tmp_path: Path, controller: SmallController, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = AgentProcess(tmp_path / "device")
    with monkeypatch.context() as patch:
        patch.setattr(pki, "DEVICE_LIFE", timedelta(days=365))
        assert made.command("enroll", "--token", controller.token()).returncode == 0
    controller.want(1, controller.release("one"))
    made.start()
    try:
        controller.ended(1)
        until(lambda: controller.renewals == 1, "the renewal")
        until(lambda: not (made.state / "identity" / "key.pem").exists(), "the old key to go")
        since = controller.heard
        controller.until(lambda status: bool(status.active_release), since)  # it checks in with the new one
        read = json.loads(made.command("status", "--json").stdout)
        life = timedelta(days=30)
        assert read["certificate_until"] == f"{controller.last_issued + life:%Y-%m-%d}"
        assert read["certificate_renews"] < read["certificate_until"]
        assert "renewed from" in made.command("status").stdout
    finally:
        made.end()
    # The next one has ended the moment it is there; the device comes back to it by its key.
    folder = made.state / "identity"
    with monkeypatch.context() as patch:
        patch.setattr(pki, "DEVICE_LIFE", timedelta(minutes=-1))
        (newest,) = folder.glob("1/certificate.pem")
        key = FileKeys().load(folder / "1")
        newest.write_bytes(controller.authority.issue_device(DEVICE, key.csr(), datetime.now(timezone.utc)))
    assert "certificate ended on" in made.command("status").stdout
    made.start()
    try:
        assert made.ask() == "hello there"  # what served, serves
        until(lambda: controller.returns == 1, "the return")
        since = controller.heard
        controller.until(lambda status: bool(status.active_release), since)
    finally:
        made.end()
    assert "Traceback" not in made.log.read_text()


@pytest.mark.attack("key of a revoked device, after it was enrolled again")
def test_a_revoked_device_serves_on_and_comes_back_with_another_key(
    agent: AgentProcess, controller: SmallController
) -> None:
    controller.want(1, controller.release("one", prefix="v1 "))
    controller.ended(1)
    identity = agent.state / "identity"
    stolen = (identity / "key.pem").read_bytes()
    controller.revoke()
    agent.end()
    agent.start()
    until(lambda: controller.refusals == 1, "the refusal")
    until(lambda: "was revoked; enrol it; serving on, trying again" in agent.log.read_text(), "the log")
    until(lambda: "v1" in agent.ask(), "what it served before")
    assert controller.refusals == 1, "it does not ask again at once"
    in_use = agent.command("enroll", "--token", controller.token())
    assert in_use.returncode == 1
    assert "stop it" in in_use.stderr
    agent.end()
    enrolled = agent.command("enroll", "--token", controller.token())
    assert enrolled.returncode == 0, enrolled.stderr
    assert (identity / "1" / "key.pem").read_bytes() != stolen
    since = controller.heard
    agent.start()
    controller.want(2, controller.release("two", prefix="v2 "))
    controller.until(lambda status: status.generation == 2, since=since)
    controller.ended(2)
    assert agent.ask() == "v2 hello there"
    until(lambda: not (identity / "key.pem").exists(), "the stolen key to be forgotten")


def test_the_public_key_is_printed_and_made_once(tmp_path: Path) -> None:
    device = AgentProcess(tmp_path / "device")
    first, second = device.command("key"), device.command("key")
    assert first.stdout.startswith("-----BEGIN PUBLIC KEY-----")
    assert (first.stdout, first.stderr, first.returncode) == (second.stdout, second.stderr, 0)
    assert re.fullmatch(r"sha256 [0-9a-f]{64}\n", first.stderr)
    (device.state / "identity" / "key.pem").write_text("rubbish")
    damaged = device.command("key")
    assert (damaged.returncode, "key.pem is lost or damaged" in damaged.stderr) == (1, True)


def test_sigterm_ends_it_cleanly_with_its_engine(agent: AgentProcess, controller: SmallController) -> None:
    import psutil

    controller.want(1, controller.release("one"))
    controller.ended(1)
    engines = psutil.Process(agent.pid).children()
    assert engines
    assert agent.end() == 0
    assert not any(engine.is_running() for engine in engines)
    assert "Traceback" not in agent.log.read_text()


def test_an_idle_agent_is_small_also_after_an_update(agent: AgentProcess, controller: SmallController) -> None:
    import psutil

    controller.want(1, controller.release("one", size=64 << 20))
    controller.ended(1)
    assert psutil.Process(agent.pid).memory_info().rss < 90e6


def test_paused_downloads_wait_through_a_restart_and_go_on_when_resumed(
    agent: AgentProcess, controller: SmallController
) -> None:
    kinds = agent_pb2.DeviceRequest
    first, second = controller.release("one", prefix="v1 "), controller.release("two", prefix="v2 ")
    controller.want(1, first)
    controller.ended(1)
    controller.requests.append(kinds(id="p1", kind=kinds.KIND_PAUSE_DOWNLOADS))
    controller.until(lambda _: any(result.id == "p1" and result.succeeded for result in controller.results))
    controller.want(2, second)
    waiting = controller.until(lambda status: status.step == agent_pb2.STEP_DOWNLOADING)
    assert "paused" in waiting.reason
    assert waiting.downloads_paused
    assert "download:  paused on request" in agent.command("status").stdout
    agent.end(signal.SIGKILL)
    since = controller.heard
    agent.start()
    waiting = controller.until(
        lambda status: status.step == agent_pb2.STEP_DOWNLOADING and bool(status.endpoint), since
    )
    assert (waiting.done_bytes, agent.ask()) == (0, "v1 hello there")
    controller.requests.append(kinds(id="p2", kind=kinds.KIND_RESUME_DOWNLOADS))
    assert controller.ended(2).outcome == agent_pb2.OUTCOME_SUCCEEDED
    assert agent.ask() == "v2 hello there"


def test_a_release_for_other_hardware_ends_at_once_with_the_reason(
    agent: AgentProcess, controller: SmallController
) -> None:
    good = controller.release("one", prefix="v1 ")
    controller.want(1, good)
    controller.ended(1)
    controller.want(2, controller.release("two", made_for="cuda"))
    status = controller.ended(2)
    assert (status.outcome, status.error) == (agent_pb2.OUTCOME_FAILED, agent_pb2.ERROR_CODE_METADATA_REFUSED)
    assert "gguf-cuda" in status.reason
    assert status.active_release == good[0].digest
    assert agent.ask() == "v1 hello there"
    controller.want(3, good)
    assert controller.ended(3).outcome == agent_pb2.OUTCOME_SUCCEEDED
