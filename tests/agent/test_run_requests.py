"""What a controller asks of a running agent, answered by the process: probes, logs, births. With a real broker."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgewright_contract import envelope, names
from edgewright_contract.release import Probe
from edgewright_contract.v1 import agent_pb2, telemetry_pb2
from edgewright_controller.pki import Authority, KeyPair
from tests.agent.real_mosquitto import Listening, RealMosquitto, until
from tests.agent.small_controller import DEVICE, SmallController
from tests.agent.test_run import AgentProcess
from tests.agent.throwaway_ca import Leaf, ThrowawayCa

KINDS = agent_pb2.DeviceRequest
STATE = names.up_topic(DEVICE, "state")


class FleetCa(ThrowawayCa):
    """The controller's own authority, where the broker's double expects a throwaway one."""

    def __init__(self, authority: Authority, folder: Path) -> None:
        super().__init__(folder)
        self._authority, self.ca = authority, authority.ca_path

    def server(self) -> Leaf:
        return self._copied(self._authority.server_certificate(["127.0.0.1"]), "server")

    def client(self) -> Leaf:
        return self._copied(self._authority.service_client_certificate(), "client")

    def _copied(self, pair: KeyPair, name: str) -> Leaf:
        leaf = Leaf(self._folder / f"{name}.key", self._folder / f"{name}.pem", self.ca)
        shutil.copyfile(pair.key, leaf.key)
        shutil.copyfile(pair.chain, leaf.certificate)
        return leaf


@dataclass
class Fleet:
    controller: SmallController
    agent: AgentProcess
    listening: Listening

    def ask(self, kind: KINDS.Kind) -> agent_pb2.RequestResult:
        """The device's answer to one request."""
        id_ = f"request {len(self.controller.requests)}"
        self.controller.requests.append(KINDS(id=id_, kind=kind))
        self.controller.until(lambda _: any(result.id == id_ for result in self.controller.results))
        (result,) = [result for result in self.controller.results if result.id == id_]
        return result

    def next_birth(self) -> telemetry_pb2.Birth:
        while True:
            message = self.listening.heard.get(timeout=60)
            said = envelope.parse(message.topic, message.payload)
            if said.HasField("birth"):
                return said.birth


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """A device that serves, heard over MQTT."""
    controller = SmallController(tmp_path / "controller")
    ca = FleetCa(controller.authority, tmp_path / "ca")
    broker = RealMosquitto(tmp_path / "broker", ca)
    broker.start()
    listening = Listening(broker.address, ca.client(), names.CONTROLLER_CN, (STATE,))
    until(lambda: bool(listening.connections), "the controller to connect")
    agent = AgentProcess(tmp_path / "device")
    agent.write_config("127.0.0.1:0", mqtt=broker.address)
    enrolled = agent.command("enroll", "--token", controller.token())
    assert enrolled.returncode == 0, enrolled.stderr
    agent.start()
    yield Fleet(controller, agent, listening)
    agent.end()
    listening.link.stop()
    broker.kill()
    controller.stop()


def serve(fleet: Fleet, generation: int, name: str, probe: Probe) -> None:
    fleet.controller.want(generation, fleet.controller.release(name, probe, prefix=f"{name} "))
    assert fleet.controller.ended(generation).outcome == agent_pb2.OUTCOME_SUCCEEDED


def test_probe_now_asks_the_active_engine_and_says_what_it_answered(fleet: Fleet, tmp_path: Path) -> None:
    before = fleet.ask(KINDS.KIND_PROBE_NOW)
    assert (before.succeeded, before.detail) == (False, "no version is active")
    marker = tmp_path / "later"
    probe = Probe("greets", "well met", expect="well met")
    wanted = fleet.controller.release("one", probe, generate="fail", once=str(marker))
    marker.touch()  # while this is there, it answers
    fleet.controller.want(1, wanted)
    assert fleet.controller.ended(1).outcome == agent_pb2.OUTCOME_SUCCEEDED
    assert fleet.ask(KINDS.KIND_PROBE_NOW) == agent_pb2.RequestResult(
        id="request 1", succeeded=True, detail="1 probes passed"
    )
    marker.unlink()
    failed = fleet.ask(KINDS.KIND_PROBE_NOW)
    assert failed.succeeded is False
    assert "greets" in failed.detail
    # A probe on request decides nothing: what serves goes on serving.
    assert fleet.controller.status.active_release == wanted[0].digest
    assert fleet.agent.ask() == "hello there"


def test_rebirth_says_what_serves_now(fleet: Fleet) -> None:
    serve(fleet, 1, "one", Probe("greets", "well met", expect="well met"))
    while not fleet.next_birth().engine:
        pass  # births of the start and of the switch come first
    until(lambda: fleet.ask(KINDS.KIND_SEND_LOGS).succeeded, "a quiet line")
    while not fleet.listening.heard.empty():
        fleet.listening.heard.get()
    assert fleet.ask(KINDS.KIND_REBIRTH).succeeded
    birth = fleet.next_birth()
    assert (birth.engine, birth.accelerator) == ("echo 1.0", "cpu (cpu:0)")
    assert birth.status.active_release == fleet.controller.status.active_release


def test_logs_have_the_agents_and_the_engines_lines_and_no_token(fleet: Fleet) -> None:
    serve(fleet, 1, "one", Probe("greets", "well met", expect="well met"))
    lines = fleet.ask(KINDS.KIND_SEND_LOGS).detail.splitlines()
    agents, engines = lines[: lines.index("-- engine")], lines[lines.index("-- engine") :]
    assert any("generation 1" in line for line in agents)
    assert "echo: loading" in engines
    assert "ewt1." not in "".join(lines)
