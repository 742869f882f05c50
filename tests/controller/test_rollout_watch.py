"""Showing a rollout and watching it, over real gRPC, with devices that only say how they are."""

from __future__ import annotations

import asyncio
import queue
import time
from collections.abc import AsyncIterator
from datetime import datetime, timezone
from pathlib import Path

import grpc
import grpc.aio
import pytest

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller import cli
from edgewright_controller.client import Access, Fleet
from edgewright_controller.ledger import rollouts
from edgewright_controller.rollout import Outcome, RolloutSpec, RolloutTarget, Started, in_two_waves
from edgewright_controller.service.rollout_news import RolloutNews
from edgewright_controller.service.rollout_watches import RolloutWatches
from edgewright_controller.service.rollouts_runner import RolloutsRunner
from tests.controller.ledger_rows import fill, opened
from tests.controller.rollout_driver import Driver, spec
from tests.controller.service_rig import Controller, Device, controller, manifest, result, words

NAMES = ["jetson-01", "jetson-02", "mac-01"]
Event = operator_pb2.ApplyEvent


class Watcher:
    """A stream of WatchRollout, read as it comes."""

    def __init__(self, fleet: Controller, rollout: str = "") -> None:
        self.call = fleet.operator.WatchRollout(operator_pb2.WatchRolloutRequest(rollout=rollout), timeout=60)
        self.coming = aiter(self.call)
        self.events: list[Event] = []
        self.devices: dict[str, operator_pb2.DeviceProgress] = {}

    async def until(self, states: dict[str, str]) -> None:
        """Read until these devices stand so."""
        while {name: view.state for name, view in self.devices.items()} != states:
            self.take(await anext(self.coming))

    async def rest(self) -> list[Event]:
        """Read to the end."""
        async for event in self.coming:
            self.take(event)
        return self.events

    def take(self, event: Event) -> None:
        self.events.append(event)
        self.devices.update((one.device, one) for one in event.devices.devices)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[Controller]:
    async with controller(tmp_path / "state") as running:
        yield running


async def show(fleet: Controller, rollout: str = "") -> operator_pb2.ShowRolloutResponse:
    answer: operator_pb2.ShowRolloutResponse = await fleet.operator.ShowRollout(
        operator_pb2.ShowRolloutRequest(rollout=rollout), timeout=10
    )
    return answer


async def begun(
    fleet: Controller, folder: Path, first_wave: str = "1"
) -> tuple[list[Device], asyncio.Task[list[Event]]]:
    """Devices of a fleet, and an apply whose first wave is open."""
    devices = [await fleet.enrol(name) for name in NAMES]
    applying = asyncio.create_task(fleet.apply(manifest(folder, NAMES, first_wave=first_wave), folder))
    deadline = time.monotonic() + 60
    while (await fleet.status())[NAMES[0]].desired_generation == 0:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)  # paces the polling; the deadline ends it
    return devices, applying


async def test_a_watcher_is_told_how_it_stands_then_each_change_then_the_result(
    fleet: Controller, tmp_path: Path
) -> None:
    (first, second, third), applying = await begun(fleet, tmp_path)
    watcher = Watcher(fleet)
    await watcher.until({NAMES[0]: "offered", NAMES[1]: "waiting", NAMES[2]: "waiting"})
    told = watcher.events[0].rollout
    assert (told.rollout, told.state, told.wave, told.waves) == ("rollout-1", "running", 1, 2)
    assert (told.view.what, told.view.by) == ("apply of fleet.toml", "admin")
    assert told.view.waits_for == "1 device to answer; it is called silent in 30 s"
    assert 0 < told.view.waits_s <= 30
    assert [(wave.number, wave.devices) for wave in told.wave_views] == [(1, 1), (2, 2)]
    assert [watcher.devices[name].wave for name in NAMES] == [1, 2, 2]

    assert await first.update()
    await watcher.until({NAMES[0]: "succeeded", NAMES[1]: "offered", NAMES[2]: "offered"})
    second.says(generation=1, step=agent_pb2.STEP_DOWNLOADING, outcome=agent_pb2.OUTCOME_IN_PROGRESS)
    second.status.done_bytes, second.status.total_bytes = 3, 10
    await second.check_in()
    await watcher.until({NAMES[0]: "succeeded", NAMES[1]: "updating", NAMES[2]: "offered"})
    status = watcher.devices[NAMES[1]].status
    assert (status.step, status.done_bytes, status.total_bytes) == (agent_pb2.STEP_DOWNLOADING, 3, 10)

    for device, outcome in ((second, agent_pb2.OUTCOME_SUCCEEDED), (third, agent_pb2.OUTCOME_FAILED)):
        device.says(
            generation=1, step=agent_pb2.STEP_IDLE, outcome=outcome, reason="no room" if device is third else ""
        )
        await device.check_in()
    events = await watcher.rest()
    assert {name: view.state for name, view in watcher.devices.items()} == {
        NAMES[0]: "succeeded",
        NAMES[1]: "succeeded",
        NAMES[2]: "failed",
    }
    assert watcher.devices[NAMES[2]].reason == "no room"
    assert events[-2].rollout.view.ended_unix_ms
    assert events[-2].rollout.view.waits_for == ""
    assert result(events).summary == result(await applying).summary
    assert (result(events).devices_succeeded, result(events).devices_failed) == (2, 1)


async def test_one_that_has_ended_gives_its_standing_and_its_result_at_once(fleet: Controller, tmp_path: Path) -> None:
    devices, applying = await begun(fleet, tmp_path, '"100%"')
    for device in devices:
        assert await device.update()
    ended = result(await applying)
    for name in ("", "rollout-1"):
        watcher = Watcher(fleet, name)
        events = await watcher.rest()
        assert [event.WhichOneof("event") for event in events] == ["rollout", "devices", "result"]
        assert {view.state for view in watcher.devices.values()} == {"succeeded"}
        assert result(events).summary == ended.summary


async def test_the_commands_watch_and_draw_a_rollout_that_has_ended(
    fleet: Controller, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    devices, applying = await begun(fleet, tmp_path, '"100%"')
    for device in devices:
        assert await device.update()
    await applying

    async def edgewright(*arguments: str) -> tuple[int, str, str]:
        config = ["--config", str(fleet.running.client_toml)]
        code = await asyncio.to_thread(cli.run, ["rollout", *arguments, *config])
        said = capsys.readouterr()
        return code, said.out, said.err

    code, out, _ = await edgewright("watch")
    assert code == 0
    assert out.splitlines()[:2] == [
        "rollout-1: succeeded, wave 1 of 1. 3 of 3 devices succeeded",
        "3 devices: 3 succeeded",
    ]
    code, _, error = await edgewright("watch", "rollout-7")
    assert (code, "there is no rollout 'rollout-7'; `edgewright rollout list`" in error) == (2, True)
    picture = tmp_path / "out.svg"
    code, out, _ = await edgewright("show", "rollout-1", "--plot", str(picture))
    assert (code, out) == (0, f"rollout-1: drawn in {picture}\n")
    assert "apply of fleet.toml by admin" in picture.read_text()
    code, _, error = await edgewright("show", "--plot", str(tmp_path / "nowhere" / "out.png"))
    assert (code, "out.png: No such file or directory" in error) == (1, True)


async def test_several_watch_and_one_that_leaves_is_missed_by_nobody(fleet: Controller, tmp_path: Path) -> None:
    devices, applying = await begun(fleet, tmp_path, '"100%"')
    watchers = [Watcher(fleet) for _ in range(5)]
    for watcher in watchers:
        await watcher.until(dict.fromkeys(NAMES, "offered"))
    watchers[0].call.cancel()
    for device in devices:
        assert await device.update()
    ended = [await watcher.rest() for watcher in watchers[1:]]
    assert [result(events).summary for events in ended] == [result(await applying).summary] * 4


async def test_a_controller_that_stops_ends_the_watch_in_order(tmp_path: Path) -> None:
    events: queue.Queue[Event | None] = queue.Queue()

    def watch(access: Access) -> None:
        with Fleet(access) as client:
            for event in client.watch():
                events.put(event)
        events.put(None)

    async with controller(tmp_path / "state") as fleet:
        _, applying = await begun(fleet, tmp_path)
        watching = asyncio.create_task(asyncio.to_thread(watch, fleet.access))
        first = await asyncio.to_thread(events.get, timeout=60)
        assert first is not None
        assert first.rollout.rollout == "rollout-1"
        applying.cancel()  # the server would wait out its grace for it
    await asyncio.wait_for(watching, 60)
    *_, last, end = list(events.queue)
    assert end is None
    assert last is not None
    assert last.message == "the controller stops; rollout-1 goes on when it is back"


async def test_an_unknown_rollout_and_none_at_all_are_told(fleet: Controller) -> None:
    for name, why in (("", "there was no rollout yet"), ("rollout-7", "there is no rollout 'rollout-7'")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await Watcher(fleet, name).rest()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert why in words(caught.value)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await show(fleet, name)
        assert why in words(caught.value)


async def test_a_rollout_is_shown_with_waves_devices_policy_and_its_history(fleet: Controller, tmp_path: Path) -> None:
    (first, *_), applying = await begun(fleet, tmp_path)
    shown = await show(fleet)
    assert (shown.rollout.rollout, shown.rollout.state) == ("rollout-1", "running")
    assert shown.rollout.waits_for
    assert [(wave.number, wave.devices, wave.then) for wave in shown.waves] == [(1, 1, "go on"), (2, 2, "go on")]
    offered, waiting, _ = shown.devices
    assert (offered.device, offered.wave, offered.state, offered.generation) == (NAMES[0], 1, "offered", 1)
    assert offered.release
    assert 0 < offered.answers_within_s <= 30
    assert (waiting.wave, waiting.state, waiting.answers_within_s) == (2, "waiting", 0)
    assert (shown.policy.device_deadline_s, shown.policy.on_failure) == (30, "keep")
    assert [(change.device, change.state) for change in shown.changes] == [("", "running"), (NAMES[0], "offered")]
    assert first.id == NAMES[0]
    first.says(generation=1, outcome=agent_pb2.OUTCOME_FAILED, reason="no room")
    await first.check_in()
    assert not result(await applying).succeeded
    ended = await show(fleet, "rollout-1")
    assert (ended.rollout.state, ended.rollout.waits_for) == ("failed", "")
    assert ended.rollout.ended_unix_ms >= ended.rollout.created_unix_ms
    assert (ended.devices[0].state, ended.devices[0].reason) == ("failed", "no room")
    assert ("", "failed") in [(change.device, change.state) for change in ended.changes]
    assert {view.answers_within_s for view in ended.devices} == {0}


async def test_a_large_rollout_stands_in_few_messages(tmp_path: Path) -> None:
    names = [f"d{n:05}" for n in range(1500)]
    with opened(tmp_path) as ledger:
        (release,) = ledger.write_now(lambda c: fill(c, "a", names[0]))
        targets = [RolloutTarget(name, release, None, 0) for name in names]
        large = RolloutSpec("rollout-1", in_two_waves(targets, 1))
        ledger.write_now(lambda c: rollouts.create(c, large, by="admin", about={}, now=time.time()))
        runner = RolloutsRunner(ledger, lambda _device, _generation: None, clock=lambda: datetime.now(timezone.utc))
        await runner.start()
        stream = RolloutWatches(ledger, runner, lambda: datetime.now(timezone.utc)).watch("")
        events = [await anext(stream) for _ in range(3)]
        await runner.close()
    assert [event.WhichOneof("event") for event in events] == ["rollout", "devices", "devices"]
    assert [one.device for event in events for one in event.devices.devices] == names
    assert sum(event.ByteSize() for event in events) < 50 * len(names)


def test_of_a_flood_of_news_each_device_is_looked_at_once_the_newest_last() -> None:
    driver = Driver(spec(3, 3))
    driver.do(Started())
    news = RolloutNews(driver.state)
    for done in range(1000):
        for name in ("dev-2", "dev-0"):
            status = agent_pb2.DeviceStatus(step=agent_pb2.STEP_DOWNLOADING, done_bytes=done, active_model="tiny")
            news.say(Event(device=operator_pb2.DeviceProgress(device=name, status=status)))
    assert news.since(0) == ["dev-2", "dev-0"]
    assert news.since(news.count - 1) == ["dev-0"]
    assert news.since(news.count) == []
    assert news.progress("dev-2") == agent_pb2.DeviceStatus(step=agent_pb2.STEP_DOWNLOADING, done_bytes=999)
    driver.says(2, Outcome.SUCCEEDED)
    news.say(Event(device=operator_pb2.DeviceProgress(device="dev-2", state="succeeded")))
    assert news.progress("dev-2") is None
    assert news.since(news.count - 1) == ["dev-2"]
