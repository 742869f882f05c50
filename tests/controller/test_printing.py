"""What `status`, `devices` and `rollout` show to a person, on a narrow terminal too, and to a script."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console, RenderableType

from edgewright_contract.v1 import agent_pb2, operator_pb2, telemetry_pb2
from edgewright_controller.cli import device_pages, printing, rollout_pages

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


@pytest.mark.parametrize("width", [80, 200])
def test_devices_has_one_line_a_device_with_what_it_is(width: int) -> None:
    lines = shown(device_pages.listed(fleet()), width)
    known = row(lines, "jetson-01")
    parts = ("1 s ago", "cuda Orin", "gguf, onnx", "16.0 GB", "100.0 GB", "0.1.0")
    assert [known.index(part) for part in parts] == sorted(known.index(part) for part in parts)
    assert row(lines, "npu-pc-01").split()[1:] == ["never", *"–––––"]
    assert lines[-1] == "jetson-01: nothing confines the engine in: own user, network"
    assert "labels" not in "".join(lines), "nobody has any"


@pytest.mark.parametrize("width", [80, 200])
def test_devices_says_labels_and_who_takes_no_part_in_changes(width: int) -> None:
    answer = fleet()
    answer.devices[0].labels.update(ring="early", site="oslo")
    answer.devices[0].cordoned = "admin: waits for a disk"
    answer.devices[1].decommissioned = True
    answer.devices[2].revoked = True
    lines = shown(device_pages.listed(answer), width)
    assert row(lines, "jetson-01").endswith("ring=early"), "one label a line, so that names stay whole"
    assert lines[4].split()[-1] == "site=oslo"
    text = " ".join(" ".join(lines).split())
    assert "jetson-01: cordoned by admin: waits for a disk" in text
    assert "mac-01: decommissioned; to let it in again: edgewright enroll create --device mac-01" in text
    assert "npu-pc-01: its certificates are revoked; to let it in again:" in text


def test_an_empty_fleet_is_told_how_it_gets_a_device() -> None:
    (line,) = shown(device_pages.listed(operator_pb2.StatusResponse(fleet="demo")), 80)
    assert line == "fleet demo: no device; `edgewright enroll create --device ID` lets one in"


@pytest.mark.parametrize("width", [80, 200])
def test_a_devices_page_says_what_it_is_should_have_has_and_had(width: int) -> None:
    answer = operator_pb2.ShowDeviceResponse(
        device=fleet().devices[0],
        generations=[
            operator_pb2.GenerationView(
                generation=3, release=NEW, outcome=agent_pb2.OUTCOME_FAILED, reason="rollout-3"
            ),
            operator_pb2.GenerationView(generation=2, release=OLD, outcome=agent_pb2.OUTCOME_SUCCEEDED),
        ],
        rollouts=["rollout-3", "rollout-1"],
    )
    answer.device.cordoned = "admin"
    lines = shown(device_pages.shown(answer), width)
    assert lines[0] == "jetson-01, online"
    assert all(len(line) <= width for line in lines)
    facts = {name.strip(): value.strip() for name, value in (line.split("  ", 2)[1:] for line in lines[1:14])}
    assert facts["system"] == "Linux 6.1, 8 × ARM Cortex-A78AE"
    assert facts["should serve"].endswith(f"{NEW[:12]}, generation 3")
    assert facts["serves"] == f"smollm2, {OLD[:12]}, 34.2 tokens/s"
    assert facts["cordoned"] == "by admin; to end that: edgewright devices uncordon jetson-01"
    assert facts["why"] == "probe speaks: the answer does not match"
    assert facts["rollouts"] == "rollout-3, rollout-1"
    assert [line.split()[:2] for line in lines[-2:]] == [["3", NEW[:12]], ["2", OLD[:12]]]
    assert [line.split()[-2:] for line in lines[-2:]] == [["failed", "rollout-3"], ["succeeded", "–"]]


def rollout(devices: int = 3) -> operator_pb2.ShowRolloutResponse:
    """One that waits for approval after its first wave, of which the first device has failed."""
    return operator_pb2.ShowRolloutResponse(
        rollout=operator_pb2.RolloutView(
            rollout="rollout-3",
            state="approval",
            reason="wave 1 of 2 is good",
            wave=1,
            waves=2,
            devices_by_state={"failed": 1, "waiting": devices - 1},
            what="apply of fleet.toml",
            by="alice",
            why="faster answers",
            waits_for="approval of wave 1, until 2026-12-05 19:12; then it is aborted",
        ),
        waves=[
            operator_pb2.WaveView(number=1, devices=1, soak_s=600.0, then="approval", what="ring=early"),
            operator_pb2.WaveView(number=2, devices=devices - 1, then="go on", what="100%"),
        ],
        devices=[
            operator_pb2.RolloutDeviceView(
                device=f"jetson-{number:02}",
                wave=1 if number == 1 else 2,
                state="failed" if number == 1 else "waiting",
                reason="probe speaks: the answer does not match" if number == 1 else "",
                release=NEW,
            )
            for number in range(devices, 0, -1)
        ],
        changes=[
            operator_pb2.RolloutChangeView(state="running", at_unix_ms=1, reason="wave 1"),
            operator_pb2.RolloutChangeView(device="jetson-01", state="failed", at_unix_ms=2, reason="does not match"),
        ],
        policy=operator_pb2.RolloutPolicyView(
            device_deadline_s=900.0,
            max_failures=1,
            max_failed_percent=10.0,
            on_failure="revert",
            patience_s=7 * 86400.0,
            deadline_s=12 * 3600.0,
            devices_per_minute=60,
            windows=["mon to fri, 01:00 to 05:00"],
        ),
    )


@pytest.mark.parametrize("width", [80, 200])
def test_a_rollouts_page_says_where_it_stands_what_it_waits_for_and_why(width: int) -> None:
    lines = shown(rollout_pages.shown(rollout()), width)
    assert lines[0] == "rollout-3: approval, wave 1 of 2"
    assert all(len(line.rstrip()) <= width for line in lines)
    text = " ".join(" ".join(lines).split())
    for part in (
        "what apply of fleet.toml by alice",
        "why faster answers",
        "waits for approval of wave 1, until 2026-12-05 19:12; then it is aborted",
        "devices 1 failed, 2 waiting",
        "stops when more than 1 device and more than 10 % of those offered it failed, and all go back; a device answers"
        " within 15 min; waits at most 7 d for people and windows; is over within 12 h; 60 devices a minute;"
        " mon to fri, 01:00 to 05:00",
        "1 1 ring=early 10 min approval 1 failed",
        "2 2 100% – end 2 waiting",
        "jetson-01: probe speaks: the answer does not match",
        "rollout-3 running: wave 1",
        "jetson-01 failed: does not match",
    ):
        assert part in text
    first, second, third = (row(lines, f"jetson-0{number}") for number in (1, 2, 3))
    assert lines.index(first) < lines.index(second) < lines.index(third), "trouble stands first"


def test_of_a_large_rollout_the_page_shows_what_is_remarkable_unless_all_is_asked_for() -> None:
    lines = shown(rollout_pages.shown(rollout(400)), 80)
    assert row(lines, "jetson-01").split()[2] == "failed"
    assert not [line for line in lines if line.startswith("jetson-02")]
    assert "399 more devices: --all shows them" in lines
    assert (
        len([line for line in shown(rollout_pages.shown(rollout(400), everything=True), 80) if "waiting" in line]) > 398
    )


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (90, "1 min 30 s"), (900, "15 min"), (7 * 86400, "7 d"), (90061, "1 d 1 h")]
)
def test_durations_are_said_as_manifests_have_them(seconds: float, words: str) -> None:
    assert printing.duration(seconds) == words


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


def test_a_plan_tells_its_waves_and_what_a_cordoned_device_waits_for() -> None:
    kinds = operator_pb2.PlannedChange
    answer = operator_pb2.PlanResponse(
        changes=[
            kinds(device="jetson-01", model="m", profile="p", kind=kinds.KIND_INSTALL),
            kinds(device="jetson-02", model="m", profile="p", kind=kinds.KIND_CORDONED, note="cordoned by ana"),
        ],
        waves=[
            operator_pb2.WaveView(number=1, devices=1, soak_s=1800, then="approval", what="ring=early"),
            operator_pb2.WaveView(number=2, devices=20, then="pause", what="50%"),
            operator_pb2.WaveView(number=3, devices=300, then="go on", what="100%"),
        ],
    )
    said = shown(printing.plan(answer), 120)
    assert said[2:5] == [
        "  wave 1: 1 device (ring=early), then watched for 30 min, then waits for approval",
        "  wave 2: 20 devices (50%), then paused",
        "  wave 3: 300 devices (100%)",
    ]
    assert said[1] == "  | jetson-02: cordoned m for p: – → known after the build (cordoned by ana)"
    assert said[5] == "0 to build, 0 cached; 1 device changes."
