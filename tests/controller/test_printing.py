"""What `status`, `devices` and `rollout list` show to a person, on a narrow terminal too, and to a script."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console, RenderableType

from edgewright_contract.v1 import agent_pb2, operator_pb2, telemetry_pb2
from edgewright_controller.cli import printing

OLD, NEW = "ab" * 32, "cd" * 32


def fleet() -> operator_pb2.StatusResponse:
    """A device that refused its newest release, one that is away, one that has just enrolled."""
    inventory = agent_pb2.Inventory(
        os="Linux 6.1",
        cpu="ARM Cortex-A78AE",
        cores=8,
        memory_bytes=16 * 10**9,
        disk_free_bytes=10**11,
        runtimes=["gguf", "onnx"],
        agent_version="0.1.0",
        python_version="3.10.12",
        accelerators=[agent_pb2.Accelerator(kind="cuda", name="Orin")],
    )
    refused = agent_pb2.DeviceStatus(
        generation=3,
        release=NEW,
        active_release=OLD,
        active_model="smollm2",
        outcome=agent_pb2.OUTCOME_FAILED,
        reason="probe speaks: the answer does not match",
        engine="xllamacpp 0.2.1",
        accelerator="cpu",
        unconfined=["own user", "network"],
    )
    away = agent_pb2.DeviceStatus(generation=2, active_release=OLD, active_model="smollm2")
    return operator_pb2.StatusResponse(
        fleet="demo",
        devices=[
            operator_pb2.DeviceView(
                device="jetson-01",
                enrolled=True,
                online=True,
                seen_s_ago=1.0,
                desired_generation=3,
                desired_release=NEW,
                status=refused,
                inventory=inventory,
                telemetry=telemetry_pb2.Telemetry(decode_tokens_per_s=34.25),
            ),
            operator_pb2.DeviceView(
                device="mac-01",
                enrolled=True,
                seen_s_ago=500.0,
                desired_generation=3,
                desired_release=NEW,
                status=away,
            ),
            operator_pb2.DeviceView(device="npu-pc-01", enrolled=True, seen_s_ago=-1.0),
        ],
        rollouts=[
            operator_pb2.RolloutView(
                rollout="rollout-3",
                state="failed",
                wave=1,
                waves=2,
                reason="1 of 1 failed",
                devices_by_state={"failed": 1, "skipped": 2, "timed_out": 1},
            )
        ],
    )


def shown(thing: RenderableType, width: int) -> list[str]:
    """The lines on a terminal of this width."""
    console = Console(file=io.StringIO(), width=width)
    console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def row(lines: list[str], device: str) -> str:
    (line,) = [line for line in lines if line.startswith(device) and ": " not in line]
    return line


@pytest.mark.parametrize("width", [80, 120, 200])
def test_status_has_one_line_a_device_with_whole_short_digests_and_below_it_why(width: int) -> None:
    lines = shown(printing.status(fleet()), width)
    refused, away, new = (row(lines, device) for device in ("jetson-01", "mac-01", "npu-pc-01"))
    assert refused.split() == ["jetson-01", "online", "smollm2", NEW[:12], OLD[:12], "failed", "34.2"]
    assert away.split()[1:] == ["8", "min", "ago", "smollm2", NEW[:12], OLD[:12], "behind", "–"]
    assert new.split()[1:] == ["never", "–", "–", "–", "–", "–"]
    assert refused.index(NEW[:12]) == away.index(NEW[:12]), "digests stand below each other"
    text = "\n".join(lines)
    assert "jetson-01: probe speaks: the answer does not match" in text
    assert "mac-01: has not taken up generation 3 yet; last heard of 8 min ago" in text
    assert "rollout-3: failed, wave 1 of 2; 1 failed, 2 skipped, 1 timed_out. 1 of 1 failed" in text


def test_status_says_of_a_device_that_is_ahead_of_a_restored_ledger_what_to_do() -> None:
    answer = fleet()
    answer.devices[1].desired_generation = 1
    lines = shown(printing.status(answer), 200)
    assert row(lines, "mac-01").split()[-2:] == ["ahead", "–"]
    assert "mac-01: ahead of the ledger, which came from a backup: apply to take it up" in "\n".join(lines)


def test_devices_shows_what_each_one_is_and_which_versions_run_there() -> None:
    lines = shown(printing.devices(fleet()), 200)
    known = row(lines, "jetson-01")
    for part in (
        *("1 s ago", "Linux 6.1, 8 × ARM Cortex-A78AE", "16.0 GB", "100.0 GB", "cuda Orin", "gguf, onnx"),
        *("xllamacpp 0.2.1 on cpu", "0.1.0, Python 3.10.12"),
    ):
        assert part in known
    assert lines[-1] == "jetson-01: nothing confines the engine in: own user, network"
    assert row(lines, "npu-pc-01").split()[1:] == ["never", *"–––––––"]
    assert [line.split()[0] for line in shown(printing.devices(fleet()), 80) if "-01 " in line] == [
        *("jetson-01", "mac-01", "npu-pc-01")
    ]


def test_json_is_one_document_a_line_with_every_field_and_always_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        printing.json_line(fleet())
    first, second = capsys.readouterr().out.splitlines()
    assert first == second
    document = json.loads(first)
    assert document["devices"][2]["desired_release"] == ""
    assert document["devices"][0]["status"]["outcome"] == "OUTCOME_FAILED"
    assert document["devices"][0]["status"]["unconfined"] == ["own user", "network"]
    assert list(document["rollouts"][0]["devices_by_state"]) == ["failed", "skipped", "timed_out"]
    assert set(document) == {field.name for field in operator_pb2.StatusResponse.DESCRIPTOR.fields}
