"""A real mosquitto for the agent's tests, with the access list that devices meet in the field."""

from __future__ import annotations

import os
import queue
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from paho.mqtt.client import Client

from edgewright_contract import names
from edgewright_contract.mqtt_link import Incoming, LinkSettings, MqttLink, Outgoing, tls_files
from tests.agent.throwaway_ca import Leaf, ThrowawayCa
from tools.fetch_mosquitto import installed_broker

ROOT = Path(__file__).resolve().parents[2]


def _program() -> tuple[Path, dict[str, str]]:
    if found := installed_broker():
        return found, {}
    home = ROOT / ".tools/mosquitto"
    if not (home / "usr/sbin/mosquitto").exists():
        pytest.fail("no mosquitto: run `make mosquitto`, or `make test` which does")
    libraries = [str(path) for pattern in ("usr/lib/*-linux-*", "lib/*-linux-*") for path in home.glob(pattern)]
    return home / "usr/sbin/mosquitto", {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}


class RealMosquitto:
    """Start, kill and start again on the same port."""

    def __init__(self, folder: Path, ca: ThrowawayCa):
        self._folder, server = folder, ca.server()
        folder.mkdir()
        # The controller's client certificate has the same name, hence the same files in the throwaway CA's folder.
        chain = server.certificate.rename(folder / "server.pem")
        key = server.key.rename(folder / "server.key")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        writes = "".join(f"pattern write {names.TOPIC_ROOT}/%u/up/{leaf}\n" for leaf in names.UP_LEAVES)
        (folder / "acl").write_text(
            f"user {names.CONTROLLER_CN}\ntopic readwrite {names.TOPIC_ROOT}/#\n\n"
            f"user service.late\ntopic read {names.TOPIC_ROOT}/#\n\n"
            f"{writes}pattern read {names.TOPIC_ROOT}/%u/down/#\n"
        )
        (folder / "acl").chmod(0o600)
        (folder / "mosquitto.conf").write_text(
            f"listener {self.port} 127.0.0.1\ncafile {ca.ca}\ncertfile {chain}\nkeyfile {key}\n"
            "require_certificate true\nuse_identity_as_username true\nuse_username_as_clientid true\n"
            f"allow_anonymous false\nacl_file {folder / 'acl'}\npersistence true\npersistence_location {folder}/\n"
            "user root\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        program, environment = _program()
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [program, "-c", self._folder / "mosquitto.conf"], env=os.environ | environment, stdout=log, stderr=log
            )
        until(self._listens, f"mosquitto to listen; see {self._folder / 'log'}")

    def stop(self) -> None:
        """In order: it saves what it has."""
        if self._process:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def kill(self) -> None:
        """As a power cut would: nothing that it only remembered survives."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Listening:
    """A plain client that remembers what it hears and acknowledges at once."""

    def __init__(self, address: str, leaf: Leaf, client_id: str, topics: tuple[str, ...], will: Outgoing | None = None):
        self.heard: queue.Queue[Incoming] = queue.Queue()
        self.confirmed: queue.Queue[int] = queue.Queue()
        self.connections: list[int] = []
        self.losses: list[int] = []
        self._will = will
        self.link = MqttLink(
            LinkSettings(
                address=address,
                client_id=client_id,
                tls=tls_files(leaf.certificate, leaf.key, leaf.ca),
                subscribe=topics,
                session_expiry_s=60,
                receive_maximum=100,
                max_packet_bytes=70_000,
                first_pause_s=0.1,
                longest_pause_s=0.5,
            ),
            self,
        )
        self.link.start()

    def say(self, topic: str, payload: bytes, retain: bool = False) -> bool:
        return self.link.publish(self.connections[-1], Outgoing(1, topic, payload, retain))

    def cut(self) -> None:
        """Lose the connection without a word, as a device does whose cable is pulled."""

        def drop(client: Client) -> None:
            stream = client.socket()
            assert stream is not None
            stream.close()

        self._will = None
        self.link._hand_over(self.connections[-1], drop)

    def will(self) -> Outgoing | None:
        return self._will

    def connected(self, connection: int) -> None:
        self.connections.append(connection)

    def disconnected(self, connection: int) -> None:
        self.losses.append(connection)

    def published(self, connection: int, token: int) -> None:
        self.confirmed.put(token)

    def received(self, message: Incoming) -> None:
        self.heard.put(message)


def until(true: Callable[[], bool], what: str, deadline_s: float = 60.0) -> None:
    """Wait for something that other threads and processes do."""
    deadline = time.monotonic() + deadline_s
    while not true():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {deadline_s} s in vain for {what}")
        time.sleep(0.01)
