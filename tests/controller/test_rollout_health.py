"""What devices report reaches the gate of a rollout, and stops it; their probes are asked again before it goes on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path

from edgewright_contract.v1 import agent_pb2, telemetry_pb2
from edgewright_controller.gates import GatePolicy, HealthPolicy
from edgewright_controller.ledger import Ledger, devices, requests, rollouts, telemetry
from edgewright_controller.rollout import (
    DevicePhase,
    DeviceReported,
    Outcome,
    RolloutPhase,
    RolloutPolicy,
    RolloutSpec,
    RolloutState,
    RolloutTarget,
    Started,
    Tick,
)
from edgewright_controller.service.live_rollouts import LiveRollout, LiveRollouts
from edgewright_controller.service.rollout_health import RolloutHealth
from edgewright_controller.service.rollout_probes import RolloutProbes
from edgewright_controller.unix_time import unix_ms
from tests.controller.ledger_rows import EPOCH, fill, opened

NAMES = ("dev-1", "dev-2", "dev-3", "dev-4")
NOON = datetime(2026, 3, 2, 12, 0, tzinfo=timezone.utc)


@dataclass
class Room:
    """A ledger with four devices that have an old release, a rollout of a new one, and a clock."""

    ledger: Ledger
    live: LiveRollouts
    old: str
    new: str
    now: datetime = NOON
    hinted: list[str] = field(default_factory=list)
    seq: int = 0

    @property
    def state(self) -> RolloutState:
        one = self.live.running.get("rollout-1") or self.live.last
        assert one is not None
        return one.state

    def told(self, device: str, generation: int, errors: int, speed: float) -> telemetry.Report:
        """One minute of a device: sixty requests."""
        self.seq += 1
        envelope = telemetry_pb2.Envelope(
            schema=1,
            device_id=device,
            spool_epoch=EPOCH,
            seq=self.seq,
            generation=generation,
            artifact_digest=bytes.fromhex("a" * 64 if generation == 1 else "b" * 64),
            telemetry=telemetry_pb2.Telemetry(requests=60, errors=errors, decode_tokens_per_s=speed),
        )
        return device, envelope, unix_ms(self.now)

    async def passes(self, minutes: int, generation: int, *, errors: int, speed: float = 20.0) -> None:
        """Time, in which every device reports."""
        reports = []
        for _ in range(minutes):
            self.now += timedelta(minutes=1)
            reports += [self.told(device, generation, errors, speed) for device in NAMES]
            async with self.live.turn:
                for rollout in list(self.live.running):
                    await self.live.event(rollout, Tick())
        await self.ledger.write(lambda c: telemetry.store(c, reports))

    async def begin(self, policy: GatePolicy) -> None:
        """Give all four the new release, and let it succeed there."""
        targets = tuple(RolloutTarget(device, self.new, self.old, 1) for device in NAMES)
        spec = RolloutSpec("rollout-1", (targets,), RolloutPolicy(gate=policy))
        about, now = {"what": "a test", "undoes": False}, self.now.timestamp()
        state = await self.ledger.write(lambda c: rollouts.create(c, spec, by="admin", about=about, now=now))
        self.live.running["rollout-1"] = LiveRollout(state)
        await self.live.event("rollout-1", Started())
        for device in NAMES:
            await self.live.event("rollout-1", DeviceReported(device, 2, Outcome.SUCCEEDED))
        assert self.state.phase is RolloutPhase.WAITING


@asynccontextmanager
async def room(folder: Path) -> AsyncIterator[Room]:
    with opened(folder) as ledger:
        old, new = ledger.write_now(lambda c: fill(c, "ab", " ".join(NAMES)))
        for device in NAMES:
            ledger.write_now(lambda c, d=device: devices.set_desired(c, d, old, reason="first", now_ms=1))  # type: ignore[misc] # mypy cannot type a lambda's default
        found: list[Room] = []
        live = LiveRollouts(ledger, lambda device, _: found[0].hinted.append(device), lambda: found[0].now)
        found.append(Room(ledger, live, old, new))
        yield found[0]


SOAKING = GatePolicy(soak_s=3600.0)


async def test_a_release_that_is_as_good_as_the_one_before_goes_on(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.passes(10, 1, errors=2)
        await it.begin(SOAKING)
        health = RolloutHealth(it.live, lambda _: 0)
        for _ in range(5):
            await it.passes(10, 2, errors=2)
            await health.look()
        found = it.state.health
        assert found.errors is not None
        assert found.speed is not None
        assert (found.requests, found.errors.devices, found.speed.devices) == (12_000, 4, 4)
        assert max(found.errors.weight, found.speed.weight) < 0
        await it.passes(12, 2, errors=2)
        assert it.state.phase is RolloutPhase.SUCCEEDED
        same = "3.33% of requests failed on 4 devices, 3.33% before; 20.0 tokens/s on 4 devices, 20.0 before"
        assert it.state.reason == f"4 of 4 devices succeeded; {same}"


async def test_errors_that_double_stop_it_while_it_is_being_watched(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.passes(10, 1, errors=2)
        await it.begin(SOAKING)
        health = RolloutHealth(it.live, lambda _: 0)
        await it.passes(20, 2, errors=6)
        await health.look()
        assert it.state.phase is RolloutPhase.FAILED
        assert it.state.reason == "10.00% of requests failed on 4 devices, 3.33% before"
        await health.look()  # of a rollout that has ended nothing is asked


async def test_a_speed_that_halves_stops_it_and_with_health_off_nothing_does(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.passes(10, 1, errors=0)
        await it.begin(SOAKING)
        await it.passes(10, 2, errors=0, speed=9.0)
        await RolloutHealth(it.live, lambda _: 0).look()
        assert it.state.phase is RolloutPhase.FAILED
        assert it.state.reason == "9.0 tokens/s on 4 devices, 20.0 before"
    (tmp_path / "off").mkdir()
    async with room(tmp_path / "off") as it:
        await it.passes(10, 1, errors=0)
        await it.begin(GatePolicy(soak_s=3600.0, health=HealthPolicy(on=False)))
        await it.passes(10, 2, errors=40, speed=1.0)
        await RolloutHealth(it.live, lambda _: 0).look()
        assert it.state.phase is RolloutPhase.WAITING


async def test_before_is_read_once_and_a_look_without_news_tells_nothing(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.passes(10, 1, errors=2)
        await it.begin(SOAKING)
        await it.passes(5, 2, errors=2)
        health = RolloutHealth(it.live, lambda _: 0)
        await health.look()
        clock = it.state.clock
        await health.look()
        assert it.state.clock is clock
        before = it.state.health
        await it.passes(1, 2, errors=2)
        await health.look()
        assert it.state.health != before


async def test_probes_are_asked_once_near_the_end_and_one_that_fails_is_a_failed_device(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.begin(SOAKING)
        it.hinted.clear()
        probes = RolloutProbes(it.live, lambda device, _: it.hinted.append(device))
        await it.passes(57, 2, errors=0)
        await probes.look()
        assert it.hinted == []
        await it.passes(1, 2, errors=0)
        await probes.look()
        await probes.look()
        await RolloutProbes(it.live, lambda device, _: it.hinted.append(device)).look()  # after a restart
        assert it.hinted == list(NAMES)
        for device in NAMES:
            (asked,) = it.ledger.read_now(lambda c, d=device: requests.open_of(c, d))  # type: ignore[misc] # mypy cannot type a lambda's default
            assert asked.kind == agent_pb2.DeviceRequest.KIND_PROBE_NOW
            said = agent_pb2.RequestResult(id=asked.id, succeeded=device != "dev-3", detail="capital: it says Rome")
            it.ledger.write_now(lambda c, d=device, s=said: requests.answer(c, d, s, 5))  # type: ignore[misc] # mypy cannot type a lambda's default
        await probes.look()
        assert probes.passed("rollout-1") == 3
        assert it.state.devices["dev-3"].phase is DevicePhase.FAILED
        assert it.state.phase is RolloutPhase.FAILED
        reason = "it failed its probes while it was being watched: capital: it says Rome"
        assert it.state.devices["dev-3"].reason == reason


async def test_probes_that_pass_let_it_go_on_and_who_does_not_answer_is_not_waited_for(tmp_path: Path) -> None:
    async with room(tmp_path) as it:
        await it.begin(SOAKING)
        probes = RolloutProbes(it.live, lambda *_: None)
        await it.passes(58, 2, errors=0)
        await probes.look()
        (asked,) = it.ledger.read_now(lambda c: requests.open_of(c, "dev-1"))
        said = agent_pb2.RequestResult(id=asked.id, succeeded=True, detail="2 probes passed")
        it.ledger.write_now(lambda c: requests.answer(c, "dev-1", said, 5))
        await probes.look()
        await it.passes(3, 2, errors=0)
        await probes.look()
        assert it.state.phase is RolloutPhase.SUCCEEDED
