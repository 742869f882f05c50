from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psutil
import pytest

from edgewright_contract import envelope, names
from edgewright_contract.envelope import EnvelopeRefused
from edgewright_contract.mqtt_link import Outgoing
from edgewright_controller import broker as broker_module
from edgewright_controller.broker import BrokerFailed, BrokerFiles, BrokerMissing, access_list, configuration
from tests.agent.throwaway_ca import Leaf
from tests.controller.broker_room import ALL_UP, BrokerRoom, said, topic_of, until


@pytest.fixture
async def room(tmp_path: Path) -> AsyncIterator[BrokerRoom]:
    room = BrokerRoom(tmp_path / "room")
    await room.broker.start()
    yield room
    await room.close()


async def test_devices_talk_to_the_controller_and_hear_their_own_hints(room: BrokerRoom) -> None:
    leaf = room.device("jetson-01")
    controller = room.client(room.service(), names.CONTROLLER_CN, ALL_UP)
    device = room.client(leaf, "jetson-01", (names.hint_topic("jetson-01"),))
    await room.connected(controller)
    await room.connected(device)
    device.say(topic_of(said("jetson-01", 1)), envelope.encode(said("jetson-01", 1)))
    await until(lambda: controller.heard.qsize() == 1, "the device's word")
    controller.say(names.hint_topic("jetson-01"), b"7")
    await until(lambda: device.heard.qsize() == 1, "the hint")


@pytest.mark.attack("publish on another device's topic, and reading it")
async def test_a_device_can_neither_write_nor_read_what_is_another_devices(room: BrokerRoom) -> None:
    controller = room.client(room.service(), names.CONTROLLER_CN, ALL_UP)
    curious = ("#", names.hint_topic("mac-01"), names.up_topic("mac-01", "telemetry"), f"{names.TOPIC_ROOT}/+/up/#")
    thief = room.client(room.device("jetson-01"), "jetson-01", curious)
    honest = room.client(room.device("mac-01"), "mac-01")
    for client in (controller, thief, honest):
        await room.connected(client)
    thief.say(names.up_topic("mac-01", "telemetry"), b"forged")
    thief.say(names.hint_topic("jetson-01"), b"99")
    thief.say("elsewhere", b"x")
    await until(lambda: thief.confirmed.qsize() == 3, "the broker's answers")
    controller.say(names.hint_topic("mac-01"), b"7", retain=True)
    honest.say(names.up_topic("mac-01", "telemetry"), b"honest")
    thief.say(names.up_topic("jetson-01", "telemetry"), b"own")
    await until(lambda: controller.heard.qsize() == 2, "what is allowed")
    assert {controller.heard.get().payload for _ in range(2)} == {b"honest", b"own"}
    assert thief.heard.empty(), "a denied subscription is granted in words, and delivers nothing"


@pytest.mark.attack("client-id theft on the broker")
async def test_a_device_cannot_take_anothers_connection_by_its_client_id(room: BrokerRoom) -> None:
    victim = room.client(room.device("mac-01"), "mac-01")
    await room.connected(victim)
    thief = room.client(room.device("jetson-01"), "mac-01")
    await room.connected(thief)
    controller = room.client(room.service(), names.CONTROLLER_CN, ALL_UP)
    await room.connected(controller)
    assert victim.say(names.up_topic("mac-01", "event"), b"still here")
    await until(lambda: controller.heard.qsize() == 1, "the victim's word")
    assert victim.losses == []


@pytest.mark.attack("a will on another device's topic")
async def test_a_will_reaches_the_controller_and_one_on_anothers_topic_does_not(room: BrokerRoom) -> None:
    controller = room.client(room.service(), names.CONTROLLER_CN, ALL_UP)
    await room.connected(controller)
    forged = Outgoing(0, names.up_topic("mac-01", "state"), b"forged")
    own = Outgoing(0, names.up_topic("npu-01", "state"), b"own")
    for device, will in (("jetson-01", forged), ("npu-01", own)):
        client = await room.connected(room.client(room.device(device), device, will=will))
        client.cut()
    await until(lambda: controller.heard.qsize() == 1, "the honest will")
    assert controller.heard.get().payload == b"own"


@pytest.mark.attack("operator's certificate on the broker")
async def test_an_operator_can_neither_speak_as_a_device_nor_listen_to_one(room: BrokerRoom) -> None:
    controller = room.client(room.service(), names.CONTROLLER_CN, ALL_UP)
    files = room.authority.operator_certificate("eve", folder=room.folder / "eve")
    curious = ("#", f"{names.TOPIC_ROOT}/+/up/#", names.hint_topic("mac-01"))
    operator = room.client(Leaf(files.key, files.chain, files.ca), "operator.eve", curious)
    honest = room.client(room.device("mac-01"), "mac-01", (names.hint_topic("mac-01"),))
    for client in (controller, operator, honest):
        await room.connected(client)
    own = names.up_topic("operator.eve", "event")
    operator.say(names.up_topic("mac-01", "event"), envelope.encode(said("mac-01", 7)))
    operator.say(names.hint_topic("mac-01"), b"99")
    operator.say(own, envelope.encode(said("mac-01", 8)))
    await until(lambda: operator.confirmed.qsize() == 3, "the broker's answers")
    honest.say(names.up_topic("mac-01", "event"), b"honest")
    controller.say(names.hint_topic("mac-01"), b"7")
    await until(lambda: honest.heard.qsize() == 1, "the hint of the controller")
    assert honest.heard.get().payload == b"7"
    await until(lambda: b"honest" in {message.payload for message in list(controller.heard.queue)}, "the device's word")
    for message in list(controller.heard.queue):
        if message.topic == own:  # its own corner, in which nobody but devices is believed
            with pytest.raises(EnvelopeRefused):
                envelope.parse(message.topic, message.payload)
        else:
            assert message.payload == b"honest"
    assert operator.heard.empty()


def refused(context: ssl.SSLContext, host: str, port: int) -> bool:
    """Whether the broker ends the handshake. With TLS 1.3 the client hears of it when it reads."""
    with socket.create_connection((host, port)) as plain:
        try:
            with context.wrap_socket(plain, server_hostname=host) as tls:
                return tls.recv(1) == b""
        except (ssl.SSLError, ConnectionResetError):
            return True


@pytest.mark.attack("a certificate of another fleet on the broker")
async def test_nobody_connects_without_a_certificate_of_this_fleet(room: BrokerRoom, tmp_path: Path) -> None:
    assert (await room.connected(room.client(room.device("jetson-01"), "jetson-01"))).link.up
    host, _, port = room.broker.address.rpartition(":")
    trusting = ssl.create_default_context(cafile=str(room.authority.ca_path))
    assert refused(trusting, host, int(port))
    other = BrokerRoom(tmp_path / "other").device("jetson-01")
    stranger = ssl.create_default_context(cafile=str(room.authority.ca_path))
    stranger.load_cert_chain(other.certificate, other.key)
    assert refused(stranger, host, int(port))


async def test_a_killed_broker_comes_back_on_its_port(room: BrokerRoom) -> None:
    client = await room.connected(room.client(room.device("jetson-01"), "jetson-01"))
    before, address = room.broker.pid, room.broker.address
    assert before is not None
    os.kill(before, signal.SIGKILL)
    await until(lambda: room.broker.pid not in (None, before), "another broker")
    await until(lambda: len(client.connections) == 2, "the client to come back")
    assert room.broker.address == address


async def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_stand(room: BrokerRoom) -> None:
    client = await room.connected(room.client(room.device("jetson-01"), "jetson-01"))
    leaf = room.device("mac-01")

    def shown() -> bytes:
        host, _, port = room.broker.address.rpartition(":")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the new one begins in the future
        context.load_cert_chain(leaf.certificate, leaf.key)
        with (
            socket.create_connection((host, int(port)), 30) as plain,
            context.wrap_socket(plain, server_hostname=host) as secure,
        ):
            return secure.getpeercert(binary_form=True) or b""

    before = await asyncio.to_thread(shown)
    later = datetime.now(timezone.utc) + timedelta(days=70)
    room.authority.server_certificate(["127.0.0.1"], later)
    assert await asyncio.to_thread(shown) == before
    room.broker.reload()
    deadline = time.monotonic() + 60
    while await asyncio.to_thread(shown) == before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert client.losses == []


async def test_the_port_chosen_once_is_kept_for_the_devices_that_learned_it(room: BrokerRoom) -> None:
    address = room.broker.address
    await room.broker.stop()
    room.broker = room.another_broker()
    await room.broker.start()
    assert room.broker.address == address


async def test_a_stopped_broker_keeps_what_it_holds_for_those_who_are_away(room: BrokerRoom) -> None:
    leaf = room.device("jetson-01")
    controller = await room.connected(room.client(room.service(), names.CONTROLLER_CN))
    controller.say(names.hint_topic("jetson-01"), b"12", retain=True)
    await until(lambda: controller.confirmed.qsize() == 1, "the broker's word")
    await room.broker.stop()
    assert room.broker.pid is None
    await room.broker.start()
    device = room.client(leaf, "jetson-01", (names.hint_topic("jetson-01"),))
    await until(lambda: device.heard.qsize() == 1, "the retained hint")


async def test_a_taken_port_is_one_line_that_names_it(tmp_path: Path) -> None:
    room = BrokerRoom(tmp_path)
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(BrokerFailed, match=f"127.0.0.1:{port}.*in use"):
            await room.another_broker(port).start()


async def test_a_broker_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    room = BrokerRoom(tmp_path)
    files = BrokerFiles(room.files.ca, room.files.chain, tmp_path / "no.key")
    failing = broker_module.Broker(tmp_path / "b", "127.0.0.1", 0, files, broker_module.find_mosquitto())
    with pytest.raises(BrokerFailed, match=r"no\.key"):
        await failing.start()
    assert failing.pid is None


_KILLED_AT_FIRST = """#!{python}
import os, pathlib, signal
starts = pathlib.Path({starts!r})
starts.write_text(starts.read_text() + "+")
if len(starts.read_text()) <= {kills}:
    os.kill(os.getpid(), signal.SIGKILL)
import sys
os.execv({program!r}, [{program!r}, *sys.argv[1:]])
"""


def killed_at_first(folder: Path, kills: int) -> broker_module.Mosquitto:
    """The real broker, whose first so many processes are killed before they serve."""
    real, program, starts = broker_module.find_mosquitto(), folder / "mosquitto", folder / "starts"
    starts.write_text("")
    text = _KILLED_AT_FIRST.format(python=sys.executable, starts=str(starts), kills=kills, program=str(real.program))
    program.write_text(text)
    program.chmod(0o755)
    return broker_module.Mosquitto(program, real.environment)


async def test_a_broker_that_is_killed_while_it_starts_is_started_again(tmp_path: Path) -> None:
    room = BrokerRoom(tmp_path / "room")
    started = broker_module.Broker(tmp_path / "b", "127.0.0.1", 0, room.files, killed_at_first(tmp_path, 2))
    await started.start()
    assert started.pid is not None
    await started.stop()
    hopeless = killed_at_first(tmp_path, broker_module.MAX_KILLS)
    with pytest.raises(BrokerFailed, match="status -9"):
        await broker_module.Broker(tmp_path / "b", "127.0.0.1", 0, room.files, hopeless).start()
    assert len((tmp_path / "starts").read_text()) == broker_module.MAX_KILLS


_CONTROLLER = """
import asyncio, sys
from pathlib import Path
from tests.agent.throwaway_ca import Leaf
from tests.controller.broker_room import BrokerRoom
async def main():
    room = BrokerRoom(Path(sys.argv[1]))
    await room.broker.start()
    # mosquitto forgets a SIGTERM that comes before its main loop; one that serves a client is in it.
    await room.connected(room.client(room.device("jetson-01"), "jetson-01"))
    print(room.broker.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_the_broker_does_not_outlive_a_killed_controller(tmp_path: Path) -> None:
    controller = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _CONTROLLER, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert controller.stdout is not None
    child = psutil.Process(int((await controller.stdout.readline()).split()[0]))
    assert child.is_running()
    controller.kill()
    await controller.wait()
    if sys.platform != "linux":  # elsewhere nobody tells a child that its parent is gone; the next start ends it
        broker_module.end_leftover(tmp_path / "broker")
    await until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the broker to end")


async def test_a_broker_left_behind_is_ended_and_another_process_with_its_number_is_not(room: BrokerRoom) -> None:
    folder = room.folder / "broker"
    before = room.broker.pid
    (folder / "pid").write_text(str(os.getpid()))
    broker_module.end_leftover(folder)
    assert room.broker.pid == before
    (folder / "pid").write_text(str(before))
    broker_module.end_leftover(folder)
    await until(lambda: room.broker.pid not in (None, before), "it to end, and to be started again")


def test_a_missing_mosquitto_is_one_line_that_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert broker_module.find_mosquitto().program.exists()
    with pytest.raises(BrokerMissing, match=r"broker\.mosquitto"):
        broker_module.find_mosquitto(tmp_path / "nothing")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(broker_module, "_SYSTEM_FOLDERS", ())
    monkeypatch.setattr(broker_module, "__file__", str(tmp_path / "broker.py"))
    with pytest.raises(BrokerMissing, match="apt install mosquitto"):
        broker_module.find_mosquitto()


def test_the_configuration_asks_for_certificates_and_names_clients_by_them(tmp_path: Path) -> None:
    files = BrokerFiles(tmp_path / "ca.crt", tmp_path / "chain.crt", tmp_path / "server.key")
    lines = configuration(tmp_path, "127.0.0.1", 7883, files, "root").splitlines()
    for needed in (
        "require_certificate true",
        "use_identity_as_username true",
        "use_username_as_clientid true",
        "allow_anonymous false",
        "listener 7883 127.0.0.1",
        "user root",
    ):
        assert needed in lines
    patterns = [line for line in access_list().splitlines() if line.startswith("pattern")]
    assert all(f"{names.TOPIC_ROOT}/%u/" in line for line in patterns)


def test_a_broker_that_keeps_ending_is_started_less_and_less_often() -> None:
    pauses = [broker_module.pause_s(failures) for failures in range(10)]
    assert pauses == sorted(pauses)
    assert (pauses[0], pauses[-1]) == (0.5, 30.0)
