"""Near the end of the time for which a wave is watched, its devices are asked their probes once more.

What passed in the minute of the update may fail after an hour of traffic. A device that fails then has failed, and
counts as one that failed at once; one that does not answer in time is not waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from edgewright_contract import digest
from edgewright_contract.v1 import agent_pb2
from edgewright_controller import log
from edgewright_controller.ledger import LedgerError, requests
from edgewright_controller.rollout import DevicePhase, DeviceReported, Outcome, RolloutPhase, RolloutState
from edgewright_controller.service.live_rollouts import LiveRollouts
from edgewright_controller.service.waits_for import watched_at
from edgewright_controller.unix_time import unix_ms

EVERY_S: Final = 5.0
LEAD_S: Final = 120.0  # so long before the end they are asked, or half the time when that is less

_KIND: Final = agent_pb2.DeviceRequest.KIND_PROBE_NOW

_log = log.of(__name__)


@dataclass
class _Asked:
    """What is still open of one rollout: request → (device, generation); and how many devices have passed."""

    waves: set[int] = field(default_factory=set)
    open: dict[str, tuple[str, int]] = field(default_factory=dict)
    passed: int = 0


class RolloutProbes:
    """Asks, and tells rollouts of devices that failed. `hint(device, generation)` makes a device check in."""

    def __init__(self, live: LiveRollouts, hint: Callable[[str, int], None]) -> None:
        self._live, self._hint = live, hint
        self._asked: dict[str, _Asked] = {}

    async def run(self) -> None:
        """Ask and listen until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)  # the pace of looking, not a wait for something
            await self.look()

    def passed(self, rollout: str) -> int:
        """How many of its devices have answered their probes again."""
        return self._asked[rollout].passed if rollout in self._asked else 0

    async def look(self) -> None:
        """Ask where the time has come, and take what was answered."""
        self._asked = {name: asked for name, asked in self._asked.items() if name in self._live.running}
        for name, live in list(self._live.running.items()):
            try:
                await self._ask(name, live.state)
                await self._take_answers(name)
            except LedgerError as error:
                _log.error("probes wait for the ledger", rollout=name, why=str(error))
            except Exception:
                _log.exception("probes are not asked by a fault", rollout=name)

    async def _ask(self, name: str, state: RolloutState) -> None:
        asked = self._asked.setdefault(name, _Asked())
        if state.wave in asked.waves or not _is_due(state, self._live.clock().timestamp()):
            return
        parts = {
            _id(name, state.wave, device): (device, state.devices[device].generation)
            for device in state.members[DevicePhase.SUCCEEDED]
            if state.waves[device] == state.wave and state.targets[device].release is not None
        }
        now_ms = unix_ms(self._live.clock())

        def enter(connection: Connection) -> list[str]:
            # After a restart they may have been asked already.
            new = [one for one in parts if one not in requests.answers(connection, parts)]
            for one in new:
                requests.ask(connection, one, parts[one][0], _KIND, argument="", now_ms=now_ms)
            return new

        wave = state.wave
        new = await self._live.ledger.write(enter)
        asked.waves.add(wave)
        asked.open |= parts
        for one in new:
            self._hint(*parts[one])
        _log.info("probes are asked again", rollout=name, wave=wave, devices=len(parts))

    async def _take_answers(self, name: str) -> None:
        asked = self._asked[name]
        if not asked.open:
            return
        found = await self._live.ledger.read(lambda c: requests.answers(c, asked.open))
        for request, (state, detail) in found.items():
            if state == requests.OPEN:
                continue
            device, generation = asked.open[request]
            if state == requests.FAILED:
                await self._fail(name, device, generation, detail)
            else:
                asked.passed += 1
            del asked.open[request]

    async def _fail(self, name: str, device: str, generation: int, detail: str) -> None:
        reason = f"it failed its probes while it was being watched: {detail}"
        async with self._live.turn:
            if name in self._live.running:
                await self._live.event(name, DeviceReported(device, generation, Outcome.FAILED, "probing", reason))


def _is_due(state: RolloutState, now: float) -> bool:
    """Whether the wave is being watched, and will not be for much longer."""
    if state.phase is not RolloutPhase.WAITING or not state.wave or state.ending is not None:
        return False
    soak_s = state.spec.after_wave(state.wave).soak_s
    left = state.clock.concluded_at + soak_s - watched_at(state, now)
    return soak_s > 0 and left <= min(LEAD_S, soak_s / 2)


def _id(rollout: str, wave: int, device: str) -> str:
    """The same after a restart, so that nobody is asked twice."""
    return digest.of_bytes(f"probe {rollout} {wave} {device}".encode())[:32]
