"""Downloads that operators pause and resume, and rollouts that do not wait for them for ever."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import audit, devices, requests
from edgewright_controller.ledger.requests import RequestRow
from edgewright_controller.rollout import RolloutPhase, RolloutPolicy
from edgewright_controller.service.pausing import PAUSE, RESUME, Pausing, is_new
from edgewright_controller.unix_time import unix_ms
from tests.controller.rollout_driver import policy
from tests.controller.runner_rig import ROLLOUT, Rig, rig
from tests.controller.service_rig import Controller, controller
from tests.controller.typed import refuses, shows


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


async def test_a_device_is_asked_with_its_check_in_and_shown_as_what_it_says(
    fleet: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    device, _ = await fleet.enrol("jetson-01"), await fleet.enrol("jetson-02")
    await device.check_in()
    said = await shows(fleet, "devices pause jetson-01 --reason metered", capsys)
    assert said == "jetson-01: asked to pause its downloads\n"
    assert await shows(fleet, "devices pause jetson-01", capsys) == "jetson-01: paused already\n"
    (asked,) = (await device.check_in()).requests
    assert asked.kind == agent_pb2.DeviceRequest.KIND_PAUSE_DOWNLOADS
    device.says(downloads_paused=True)
    await device.check_in(results=[agent_pb2.RequestResult(id=asked.id, succeeded=True)])
    assert "edgewright devices resume jetson-01" in await shows(fleet, "devices show jetson-01", capsys)
    assert not (await device.check_in()).requests
    assert await shows(fleet, "devices pause jetson-01", capsys) == "jetson-01: paused already\n"
    document = json.loads(await shows(fleet, "devices resume jetson-01 jetson-02 --json", capsys))
    assert document == {"changed": ["jetson-01"]}
    (asked,) = (await device.check_in()).requests
    assert asked.kind == agent_pb2.DeviceRequest.KIND_RESUME_DOWNLOADS
    assert "jetson-01: was not paused" in await shows(fleet, "devices resume jetson-01", capsys)
    history = await shows(fleet, "history --device jetson-01", capsys)
    assert "metered" in history
    assert "device.pause" in history
    assert "is not enrolled" in await refuses(fleet, "devices pause jetson-09", 2, capsys)


async def test_a_pause_and_its_end_reach_a_device_that_was_off_in_their_order(
    fleet: Controller, capsys: pytest.CaptureFixture[str]
) -> None:
    device = await fleet.enrol("jetson-01")
    for word in ("pause", "resume", "pause", "resume"):
        await shows(fleet, f"devices {word} jetson-01", capsys)
    asked = [request.kind for request in (await device.check_in()).requests]
    assert asked == [PAUSE, RESUME, PAUSE, RESUME]


def asked(kind: agent_pb2.DeviceRequest.Kind, state: str) -> RequestRow:
    return RequestRow("1", "dev-a", kind, "", state, "", 0, None)


SAYS = agent_pb2.DeviceStatus(downloads_paused=True)


@pytest.mark.parametrize(
    ("was", "status", "pause_is_new", "resume_is_new"),
    [
        (None, None, True, False),
        (None, SAYS, False, True),
        (asked(PAUSE, requests.OPEN), None, False, True),
        (asked(RESUME, requests.OPEN), SAYS, True, False),
        (asked(PAUSE, requests.SUCCEEDED), SAYS, False, True),
        (asked(RESUME, requests.SUCCEEDED), agent_pb2.DeviceStatus(), True, False),
        # It lost its disk since, or its agent says nothing of pauses.
        (asked(PAUSE, requests.SUCCEEDED), agent_pb2.DeviceStatus(), True, True),
        (asked(PAUSE, requests.FAILED), agent_pb2.DeviceStatus(), True, False),
    ],
)
def test_when_a_device_has_to_be_asked(
    was: RequestRow | None, status: agent_pb2.DeviceStatus | None, pause_is_new: bool, resume_is_new: bool
) -> None:
    assert (is_new(True, was, status), is_new(False, was, status)) == (pause_is_new, resume_is_new)


async def downloading(made: Rig, device: str, sequence: int, *, paused: bool) -> None:
    given = made.given(device)[-1]
    status = agent_pb2.DeviceStatus(
        sequence=sequence,
        generation=given.generation,
        release=given.release or "",
        step=agent_pb2.STEP_DOWNLOADING,
        outcome=agent_pb2.OUTCOME_IN_PROGRESS,
        downloads_paused=paused,
    )
    made.ledger.write_now(lambda c: devices.report(c, device, status, unix_ms(made.now)))
    made.runner.reported(device, status)
    await made.until_device(device, "updating")


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (policy(deadline_s=900.0), "no answer within 900 s; the last that it said was downloading, paused on request"),
        (
            policy(deadline_s=900.0, steps={"download": 600.0}),
            "downloading, paused on request for 600 s, as long as it may take",
        ),
    ],
)
async def test_a_rollout_ends_its_wait_for_a_paused_device_and_says_why(
    tmp_path: Path, limits: RolloutPolicy, said: str
) -> None:
    async with rig(tmp_path, ("dev-a",)) as made:
        await made.begin(("dev-a",), policy=limits)
        await made.until_device("dev-a", "offered")
        await downloading(made, "dev-a", 5, paused=False)
        await downloading(made, "dev-a", 6, paused=True)
        await made.passes(950.0)
        await made.until_device("dev-a", "timed_out")
        assert said in made.state().devices["dev-a"].reason
        await made.until_ended(RolloutPhase.FAILED, ROLLOUT)


async def test_pauses_are_entered_and_devices_that_have_something_are_hinted(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        hints: list[tuple[str, int]] = []
        pausing = Pausing(made.ledger, lambda *hint: hints.append(hint), lambda: made.now)
        await made.begin(("dev-a",))
        await made.until_device("dev-a", "offered")
        assert await pausing.pause(["dev-a", "dev-b"], by="alice", reason="metered") == ["dev-a", "dev-b"]
        assert hints == [("dev-a", made.given("dev-a")[-1].generation)]
        assert await pausing.resume(["dev-a"], by="bob", reason="") == ["dev-a"]
        rows = made.ledger.read_now(lambda c: list(audit.entries(c)))
        assert [
            (row.actor, row.action, row.subject, row.detail) for row in rows if row.action.startswith("device.")
        ] == [
            ("operator alice", "device.pause", "dev-a", "it fetches nothing; why: metered"),
            ("operator alice", "device.pause", "dev-b", "it fetches nothing; why: metered"),
            ("operator bob", "device.resume", "dev-a", "it fetches again"),
        ]
