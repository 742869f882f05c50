"""Trust, measured: section [trust] of the figures.

usage: python benchmarks/trust.py [--only NAME …]

What a check-in costs the controller is CPU time of its process, read before and after many of them over real gRPC and
mutual TLS, from one device that holds everything (nothing changed) or from devices that hold nothing yet (one
signature each). The connection stands before the counting begins.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import queue
import re
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import psutil

from edgewright_agent import enrolment
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.identity import Identity
from edgewright_agent.link import Credentials, Link, Refused
from edgewright_agent.trust import Repository
from edgewright_agent.trust_store import TrustStore
from edgewright_contract import envelope, names
from edgewright_contract.mqtt_link import Incoming, LinkSettings, MqttLink, Outgoing
from edgewright_contract.release import Release
from edgewright_contract.targets import ImageTarget
from edgewright_contract.v1 import agent_pb2, operator_pb2, telemetry_pb2
from edgewright_controller.client import Fleet, read_access
from edgewright_controller.director import Desired, Director, DirectorMetadata
from edgewright_controller.publish import ImageRepository

ROOT: Final = Path(__file__).resolve().parent.parent
CHECK_INS: Final = 3_000
WARM: Final = 300
SIGNING_DEVICES: Final = 200
SIGNATURES: Final = 100_000
REFRESHES: Final = 200
HOST: Final = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"

MANIFEST: Final = """
[fleet]
name = "bench"
[models.tiny]
source = "unused"
[profiles.jetson]
runtime = "gguf"
quantization = "prebuilt"
prebuilt = "tiny.gguf"
accelerator = "cpu"
memory = "8GB"
[groups.all]
model = "tiny"
profile = "jetson"
devices = ["bench-0"]
[devices.bench-0]
[rollout]
device_deadline = "60s"
"""


def figure(name: str, value: float, unit: str, of: str = "") -> None:
    print(json.dumps({"name": name, "value": round(value, 3), "unit": unit, "of": of, "host": HOST}), flush=True)


class Controller:
    """`edgewright serve` as a process of its own."""

    def __init__(self, state: Path, broker: str = "off") -> None:
        command = [sys.executable, "-m", "edgewright_controller.cli", "serve", "--state", str(state)]
        command += [
            "--fleet",
            "bench",
            "--broker",
            broker,
            "--mqtt",
            "127.0.0.1:0",
            "--listen",
            "127.0.0.1:0",
            "--enrolment",
            "127.0.0.1:0",
        ]
        self._log = (state.parent / "controller.log").open("wb")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        assert self.process.stdout is not None
        ready = self.process.stdout.readline()
        if "ready at" not in ready:
            raise SystemExit(f"the controller did not start: {(state.parent / 'controller.log').read_text()[-2000:]}")
        self.address = re.findall(r"ready at (\S+),", ready)[0]
        self.fleet = Fleet(read_access(state / "operator" / "client.toml"))
        self._process = psutil.Process(self.process.pid)

    def cpu_s(self) -> float:
        """CPU seconds that the process has used."""
        times = self._process.cpu_times()
        return times.user + times.system

    def end(self) -> None:
        self.fleet.close()
        self.process.terminate()
        self.process.wait(30)
        self._log.close()


_WIRE: Final = {
    Repository.IMAGE: agent_pb2.REPOSITORY_IMAGE,
    Repository.DIRECTOR: agent_pb2.REPOSITORY_DIRECTOR,
}


@dataclass
class Device:
    """A real identity, a real trust store and a real link; no engine."""

    who: Identity
    trust: TrustStore
    link: Link
    sequence: int = 1
    generation: int = 0
    release: str = ""

    @classmethod
    def enrolled(cls, controller: Controller, state: Path, name: str) -> Device:
        token = controller.fleet.create_enrolment(name).token
        who = enrolment.enrol(token, state)
        credentials = Credentials(who.key, who.certificate_path, who.ca_path)
        link = Link(controller.address, credentials)
        return cls(who, TrustStore.open(state / "agent.sqlite"), link)

    def request(self) -> agent_pb2.CheckInRequest:
        """What an idle agent sends."""
        settled = agent_pb2.OUTCOME_SUCCEEDED if self.release else agent_pb2.OUTCOME_UNSPECIFIED
        return agent_pb2.CheckInRequest(
            status=agent_pb2.DeviceStatus(
                generation=self.generation,
                release=self.release,
                step=agent_pb2.STEP_IDLE,
                outcome=settled,
                active_release=self.release,
                sequence=self.sequence,
                engine="xllamacpp 1.0",
                accelerator="cpu",
                endpoint="http://127.0.0.1:8080/v1",
            ),
            held=[
                agent_pb2.HeldMetadata(repository=_WIRE[one.repository], role=one.role, version=one.version)
                for one in self.trust.held()
            ],
            inventory_digest="0" * 64,
            spool_epoch=b"e" * 16,
        )

    def follow(self) -> None:
        """One check-in; what it assigns is done at once."""
        answer = self.link.check_in(self.request())
        files = {(Repository(file.repository), file.name): file.content for file in answer.metadata}
        assignment = self.trust.apply(files, self.who, datetime.now(timezone.utc))
        release = assignment.release.digest if assignment.release else ""
        if (assignment.generation, release) != (self.generation, self.release):
            self.generation, self.release, self.sequence = assignment.generation, release, self.sequence + 1

    def touch(self) -> None:
        """A call that fails, so that the connection stands."""
        try:
            self.link.fetch_object("0" * 64, 1, Cancellation())
        except Refused:
            return
        raise SystemExit("an object that is not there was given")

    def close(self) -> None:
        self.link.close()
        self.trust.close()


@contextmanager
def room() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="edgewright-bench-") as folder:
        yield Path(folder)


def check_ins() -> None:
    """CPU of the controller for a check-in: nothing changed, and one signature."""
    with room() as folder:
        controller = Controller(folder / "controller")
        try:
            device = Device.enrolled(controller, folder / "bench-0", "bench-0")
            _settle(controller, device, folder)
            request = device.request()
            for _ in range(WARM):
                answer = device.link.check_in(request)
            if answer.metadata:
                raise SystemExit(f"an unchanged check-in brought {[file.name for file in answer.metadata]}")
            idle = _idle(controller)
            began, before = time.monotonic(), controller.cpu_s()
            for _ in range(CHECK_INS):
                device.link.check_in(request)
            used = controller.cpu_s() - before - idle * (time.monotonic() - began)
            figure("trust.checkin_cpu_ms", 1000 * used / CHECK_INS, "ms", f"{CHECK_INS} check-ins, nothing changed")
            device.close()
            _signing(controller, folder, idle)
        finally:
            controller.end()


def _settle(controller: Controller, device: Device, folder: Path) -> None:
    # A header of version 3 with no tensors and no keys: nothing here loads it.
    (folder / "tiny.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(64))
    results: list[operator_pb2.ApplyResult] = []

    def apply() -> None:
        events = controller.fleet.apply(MANIFEST, "fleet.toml", str(folder))
        results.extend(event.result for event in events if event.HasField("result"))

    applying = threading.Thread(target=apply)
    applying.start()
    while applying.is_alive():
        device.follow()
        applying.join(0.05)
    if not (results and results[0].succeeded and device.release):
        raise SystemExit(f"the apply did not succeed: {results}")
    device.follow()


def _idle(controller: Controller) -> float:
    """CPU seconds a second that it uses with nobody asking."""
    before, pause_s = controller.cpu_s(), 3.0
    time.sleep(pause_s)
    return (controller.cpu_s() - before) / pause_s


def _signing(controller: Controller, folder: Path, idle: float) -> None:
    devices = [
        Device.enrolled(controller, folder / f"new-{number}", f"new-{number}") for number in range(SIGNING_DEVICES)
    ]
    requests = []
    for device in devices:
        device.touch()
        device.sequence = 0  # nothing to store: what is measured is the signature, and its row in the ledger
        requests.append(device.request())
    began, before = time.monotonic(), controller.cpu_s()
    answers = [device.link.check_in(request) for device, request in zip(devices, requests, strict=True)]
    used = controller.cpu_s() - before - idle * (time.monotonic() - began)
    if not all(any(file.repository == agent_pb2.REPOSITORY_DIRECTOR for file in answer.metadata) for answer in answers):
        raise SystemExit("a first check-in brought no signed metadata")
    figure("trust.checkin_signing_cpu_ms", 1000 * used / SIGNING_DEVICES, "ms", f"{SIGNING_DEVICES} first check-ins")
    for device in devices:
        device.close()


def signatures() -> None:
    """A fleet of 100,000 devices, signed for on one core: targets, snapshot and timestamp of each."""
    with room() as folder:
        now = datetime.now(timezone.utc)
        director = Director.open(folder / "director", folder / "keys", "bench", now)
        wanted = _desired(1, "a")
        before = time.process_time()
        for number in range(SIGNATURES):
            director.sign(f"dev-{number}", wanted, 1, now)
        figure("trust.sign_100k_s", time.process_time() - before, "s", f"{SIGNATURES} devices, CPU of one core")


def refreshes() -> None:
    """What a device pays to believe a changed answer: both repositories moved, checked, and stored durably."""
    with room() as folder:
        # The builder's process signs for a bounded time from the clock's now on, so the days measured lie behind.
        now = datetime.now(timezone.utc) - timedelta(hours=13 * (REFRESHES + 11))
        image = ImageRepository.open(folder / "image", folder / "keys", now)
        director = Director.open(folder / "director", folder / "keys", "bench", now)
        image.publish([_target("a"), _target("b")], now)
        store = TrustStore.create(
            folder / "agent.sqlite", image.first_root, director.first_root, not_before=now - timedelta(days=1)
        )
        who = _Someone()
        used = 0.0
        for number in range(REFRESHES + 10):
            now += timedelta(hours=13)  # timestamps are signed anew
            image.refresh(now)
            director.refresh(now)
            made = director.sign(who.device, _desired(number + 1, "ab"[number % 2]), number + 1, now)
            answer = _answer(store, image, director, made)
            before = time.process_time()
            assignment = store.apply(answer, who, now)
            if number >= 10:
                used += time.process_time() - before
            if assignment.generation != number + 1:
                raise SystemExit("the device did not believe what was signed for it")
        store.close()
        figure("trust.refresh_cpu_ms", 1000 * used / REFRESHES, "ms", f"{REFRESHES} changed answers")


@dataclass(frozen=True)
class _Someone:
    device: str = "bench-0"
    fleet: str = "bench"


def _target(mark: str) -> ImageTarget:
    return ImageTarget("model", "tiny", "gguf-cpu", "gguf", mark * 64, 321, "c" * 64, 77, 0)


def _desired(generation: int, mark: str) -> Desired:
    release = Release("tiny", "jetson", "gguf", mark * 64, "cpu", 1 << 30, {}, ())
    return Desired(generation, release, _target(mark))


def _answer(
    store: TrustStore, image: ImageRepository, director: Director, made: DirectorMetadata
) -> dict[tuple[Repository, str], bytes]:
    held = store.held()
    versions = {
        repository: {one.role: one.version for one in held if one.repository is repository} for repository in Repository
    }
    lacking = {Repository.IMAGE: image.files(versions[Repository.IMAGE])}
    lacking[Repository.DIRECTOR] = director.files(made, versions[Repository.DIRECTOR])
    return {(repository, name): content for repository, files in lacking.items() for name, content in files}


def revocation() -> None:
    """From the operator's command until a thief is out: at the next call, and on an MQTT session that stands.

    Two devices, one after the other: the broker has just been started again for the first, so the second waits longest.
    """
    with room() as folder:
        controller = Controller(folder / "controller", broker="managed")
        try:
            devices = [Device.enrolled(controller, folder / name, name) for name in ("bench-0", "bench-1")]
            sessions = [_Session(device.who) for device in devices]
            took = [
                _shut_out(controller, device, session, number)
                for number, (device, session) in enumerate(zip(devices, sessions, strict=True), 1)
            ]
            time.sleep(10)  # for a session that comes back; an honest one does within seconds
            if any(session.stands for session in sessions):
                raise SystemExit("a revoked device opened another MQTT session")
            _stored(controller, len(devices))
            figure("trust.revocation_grpc_s", max(grpc_s for grpc_s, _ in took), "s", "the next call is refused")
            said = "the session that stood has ended, and nothing said over it was stored; the slower of two in a row"
            figure("trust.revocation_mqtt_s", max(mqtt_s for _, mqtt_s in took), "s", said)
            for device, session in zip(devices, sessions, strict=True):
                session.link.stop()
                device.close()
        finally:
            controller.end()


def _shut_out(controller: Controller, device: Device, session: _Session, number: int) -> tuple[float, float]:
    """Seconds from the command until the device's next call is refused, and until its session ends, which speaks on.

    `number`: how many reports are stored when this device has said one, before it is revoked.
    """
    device.follow()
    session.link.start()
    connection = session.begun()
    session.say(connection)
    _stored(controller, number)
    began = time.monotonic()
    controller.fleet.revoke(operator_pb2.RevokeRequest.KIND_DEVICE, device.who.device)
    try:
        device.link.check_in(device.request())
        raise SystemExit("a revoked device was answered")
    except Refused:
        grpc_s = time.monotonic() - began
    while session.stands:
        session.say(connection)
        if time.monotonic() - began > 120:
            raise SystemExit("the session of a revoked device goes on")
        time.sleep(0.02)
    return grpc_s, time.monotonic() - began


def _stored(controller: Controller, count: int) -> None:
    """Until just so many reports are stored."""
    deadline = time.monotonic() + 60
    while (found := controller.fleet.status().telemetry_stored) != count:
        if found > count or time.monotonic() > deadline:
            raise SystemExit(f"{found} reports are stored, not {count}")
        time.sleep(0.05)


class _Session:
    """A device's MQTT session, which says events and notes when it begins and ends."""

    def __init__(self, who: Identity) -> None:
        self._device, self._said = who.device, 0
        self._up: queue.Queue[int] = queue.Queue()
        self.stands = False
        settings = LinkSettings(
            address=who.mqtt_address,
            client_id=who.device,
            tls=who.tls_context,
            subscribe=(names.hint_topic(who.device),),
            session_expiry_s=60,
            receive_maximum=10,
            max_packet_bytes=1 << 16,
        )
        self.link = MqttLink(settings, self)

    def begun(self) -> int:
        """The connection that begins next."""
        return self._up.get(timeout=60)

    def say(self, connection: int) -> None:
        """One more event."""
        self._said += 1
        told = telemetry_pb2.Envelope(
            schema=envelope.SCHEMA, device_id=self._device, spool_epoch=b"e" * 16, boot_id=b"b" * 16, seq=self._said
        )
        told.event.detail = f"number {self._said}"
        topic = names.up_topic(self._device, envelope.leaf_of(told))
        self.link.publish(connection, Outgoing(self._said, topic, envelope.encode(told)))

    def will(self) -> Outgoing | None:
        """None."""
        return None

    def connected(self, connection: int) -> None:
        """It begins."""
        self.stands = True
        self._up.put(connection)

    def disconnected(self, connection: int) -> None:
        """It ends."""
        self.stands = False

    def published(self, connection: int, token: int) -> None:
        """The broker has it."""

    def received(self, message: Incoming) -> None:
        """Nothing is heard."""


def attacks() -> None:
    """Every test that bears the marker `attack`: how many attacks were tried, and how many were not refused."""
    with room() as folder:
        report = folder / "attacks.json"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "benchmarks.attack_report", "-m", "attack"]
        environment = {**os.environ, "EDGEWRIGHT_ATTACK_REPORT": str(report)}
        ended = subprocess.run(
            [*command, "tests"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if not report.exists():
            raise SystemExit(f"the attacks were not tried:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
        outcomes: dict[str, bool] = json.loads(report.read_text())
    won = sorted(name for name, refused in outcomes.items() if not refused)
    figure("trust.attacks_tried", len(outcomes), "count", "names of attacks; each test first shows the honest case")
    figure("trust.attacks_won", len(won), "count", "; ".join(won))


FIGURES: Final[dict[str, Callable[[], None]]] = {
    "checkin": check_ins,
    "sign": signatures,
    "refresh": refreshes,
    "revocation": revocation,
    "attacks": attacks,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Measures trust; prints one JSON line for each figure.")
    parser.add_argument("--only", nargs="+", choices=list(FIGURES), default=list(FIGURES))
    for name in parser.parse_args(arguments).only:
        FIGURES[name]()


if __name__ == "__main__":
    main()
