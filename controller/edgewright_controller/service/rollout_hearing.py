"""Devices' words reach the rollouts that wait for them: none is lost, and of each device only the newest waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from edgewright_contract.v1 import agent_pb2
from edgewright_controller import log
from edgewright_controller.ledger import LedgerError
from edgewright_controller.rollout import DOWNLOAD_PAUSED, DevicePhase, DeviceReported, Outcome, Silenced
from edgewright_controller.service import rollout_telling
from edgewright_controller.service.live_rollouts import LiveRollouts

AGAIN_S: Final = 1.0

_OUTCOMES: Final[Mapping[int, Outcome]] = {
    agent_pb2.OUTCOME_IN_PROGRESS: Outcome.IN_PROGRESS,
    agent_pb2.OUTCOME_SUCCEEDED: Outcome.SUCCEEDED,
    agent_pb2.OUTCOME_FAILED: Outcome.FAILED,
    agent_pb2.OUTCOME_HELD: Outcome.FAILED,
}
_AWAITED: Final = frozenset({DevicePhase.OFFERED, DevicePhase.UPDATING, DevicePhase.REVERTING})
_STEPS: Final = frozenset(agent_pb2.Step.values()) - {agent_pb2.STEP_UNSPECIFIED}

_log = log.of(__name__)


class Hearing:
    """What devices have said and the rollouts have not heard. `shut`: the devices that may say nothing any more."""

    def __init__(self, live: LiveRollouts, shut: Callable[[], frozenset[str]]) -> None:
        self._live, self._shut = live, shut
        # A status says everything, so only a device's newest waits.
        self._waiting: dict[str, agent_pb2.DeviceStatus] = {}
        self._reported = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How many devices have said something that has not been heard yet: at most one word of each."""
        return len(self._waiting)

    def reported(self, device: str, status: agent_pb2.DeviceStatus) -> None:
        """A device's status changed. Never blocks."""
        self._waiting[device] = status
        self._reported.set()

    def look_for_shut(self) -> None:
        """Devices were shut out just now. Never blocks."""
        self._reported.set()

    async def run(self) -> None:
        """Hear until cancelled."""
        while True:
            await self._reported.wait()
            self._reported.clear()
            while self._waiting:
                device = next(iter(self._waiting))
                status = self._waiting.pop(device)
                try:
                    async with self._live.turn:
                        await self._hear(device, status)
                except LedgerError as error:
                    # The status is stored, and the device may not repeat it: it is told again soon.
                    _log.error("status waits", device=device, why=str(error))
                    asyncio.get_running_loop().call_later(AGAIN_S, self._again, device, status)
                except Exception:
                    # A fault of ours in one rollout must not make us deaf for the others.
                    _log.exception("status lost by a fault", device=device)
            async with self._live.turn:
                await self.silence_shut()

    async def silence_shut(self) -> None:
        """End the wait for devices that may not answer. The caller holds the turn."""
        shut = self._shut()
        for rollout, live in list(self._live.running.items()):
            for device in shut & live.state.devices.keys():
                if live.state.devices[device].phase in _AWAITED:
                    try:
                        await self._live.event(rollout, Silenced(device, "its certificates were revoked"))
                    except LedgerError as error:
                        _log.error("rollout waits", rollout=rollout, why=str(error))  # the next tick tries again
                        return

    def _again(self, device: str, status: agent_pb2.DeviceStatus) -> None:
        if device not in self._waiting:
            self.reported(device, status)

    async def _hear(self, device: str, status: agent_pb2.DeviceStatus) -> None:
        """What a device says of a generation, unless it speaks of another release: of one that it had to see to on
        the way, and that is not what was given to it. A refusal of the metadata names none."""
        outcome = _OUTCOMES.get(status.outcome)
        name = agent_pb2.Step.Name(status.step).removeprefix("STEP_").lower() if status.step in _STEPS else ""
        if status.downloads_paused and status.step == agent_pb2.STEP_DOWNLOADING:
            name = DOWNLOAD_PAUSED  # so that a deadline which passes says why
        for rollout, live in list(self._live.running.items()):
            state = live.state
            if device not in state.devices or state.devices[device].generation != status.generation:
                continue
            rollout_telling.device(live.followers, live.news, device, status)
            target = state.targets[device]
            given = (target.release if state.devices[device].offer_stands else target.previous) or ""
            if outcome is Outcome.FAILED and status.release not in ("", given):
                continue
            if outcome is not None:
                again = outcome is Outcome.FAILED and given not in status.held_releases
                said = DeviceReported(device, status.generation, outcome, name, status.reason, again)
                await self._live.event(rollout, said, {device: status})
