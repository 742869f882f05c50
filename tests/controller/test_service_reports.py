"""Reports over a real broker: stored, shown as they come in, and a status among them moves a rollout."""

from __future__ import annotations

import asyncio
from pathlib import Path

from edgewright_contract import envelope, names
from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.config import BrokerMode
from tests.agent.real_mosquitto import Listening
from tests.agent.throwaway_ca import Leaf
from tests.controller.broker_room import said, topic_of, until
from tests.controller.service_rig import Controller, Device, controller, manifest, result


def connected(device: Device, folder: Path) -> Listening:
    """The device's own connection to the broker, which hears hints."""
    files = {
        "key": device.key_pem,
        "pem": device.welcome.certificate_chain_pem,
        "ca": device.welcome.ca_pem,
    }
    for suffix, content in files.items():
        (folder / f"{device.id}.{suffix}").write_bytes(content)
    leaf = Leaf(*(folder / f"{device.id}.{suffix}" for suffix in files))
    return Listening(device.welcome.mqtt_address, leaf, device.id, (names.hint_topic(device.id),))


async def test_reports_are_stored_shown_and_move_a_rollout_and_a_hint_goes_out(tmp_path: Path) -> None:
    async with controller(tmp_path / "state", BrokerMode.MANAGED) as fleet:
        device = await fleet.enrol("jetson-01")
        client = connected(device, tmp_path)
        try:
            await until(lambda: bool(client.connections), "the device to connect")
            tail = fleet.operator.Tail(operator_pb2.TailRequest(devices=["jetson-01"]))
            shown: list[operator_pb2.TailEvent] = []
            watching = asyncio.create_task(_collect(tail, shown))
            await device.check_in()

            applying = asyncio.create_task(fleet.apply(manifest(tmp_path, ["jetson-01"]), tmp_path))
            await until(lambda: not client.heard.empty(), "the hint")
            answer = await device.check_in()
            # Nothing more over gRPC: how it ends comes over MQTT.
            release = device.offered(answer)
            report = said("jetson-01", 1, "update")
            report.update.CopyFrom(
                agent_pb2.DeviceStatus(
                    sequence=2,
                    generation=answer.generation,
                    release=release,
                    active_release=release,
                    step=agent_pb2.STEP_IDLE,
                    outcome=agent_pb2.OUTCOME_SUCCEEDED,
                )
            )
            assert client.say(topic_of(report), envelope.encode(report))
            assert result(await asyncio.wait_for(applying, 20)).succeeded
            await until(lambda: bool(shown), "the tail")
            assert shown[0].envelope == report
            watching.cancel()
            await _stored(fleet)
        finally:
            await asyncio.to_thread(client.link.stop)


async def _collect(tail: object, shown: list[operator_pb2.TailEvent]) -> None:
    async for event in tail:  # type: ignore[attr-defined]  # a call of grpc, which has no types
        shown.append(event)


async def _stored(fleet: Controller) -> None:
    answer = await fleet.operator.Status(operator_pb2.StatusRequest(), timeout=10)
    assert answer.telemetry_stored == 1
    assert answer.broker_connected
    assert answer.devices[0].status.active_release == answer.devices[0].desired_release
