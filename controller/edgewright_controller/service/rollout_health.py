"""The gate is told how devices do with a new release, while the rollout that hands it out is watched.

The ledger has what devices report, added up. Now and then it is read for the devices that have the new release, beside
what the same devices showed before, and what that comes to is told to the rollout. Nothing of it is stored: after a
restart it is read anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

from sqlalchemy import Connection

from edgewright_controller import log
from edgewright_controller.gates import HealthPolicy, HealthSamples, Slice, baseline, compare
from edgewright_controller.ledger import LedgerError, device_health, devices, releases
from edgewright_controller.ledger.device_health import Compared
from edgewright_controller.rollout import DevicePhase, Evidence, RolloutPhase, RolloutState
from edgewright_controller.service.live_rollouts import LiveRollouts
from edgewright_controller.unix_time import unix_ms

EVERY_S: Final = 15.0
MOST: Final = 300  # devices that are compared: more would say the same, and cost more
OTHERS: Final = 100  # devices without the release, that help to know what is usual at which hour

_NOT_YET: Final = 0  # stands for the generation of a device without the release
_WATCHED: Final = frozenset({RolloutPhase.RUNNING, RolloutPhase.WAITING})

_log = log.of(__name__)


@dataclass
class _Known:
    """What is remembered of one rollout: what devices showed before, by device and generation, which does not change;
    and what was told last."""

    before: dict[tuple[str, int], Sequence[Slice]] = field(default_factory=dict)
    told: HealthSamples = field(default_factory=HealthSamples)


class RolloutHealth:
    """Looks at the rollouts that run. `probed` says how many devices of a rollout have answered their probes again."""

    def __init__(self, live: LiveRollouts, probed: Callable[[str], int]) -> None:
        self._live, self._probed = live, probed
        self._known: dict[str, _Known] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)  # the pace of looking, not a wait for something
            await self.look()

    async def look(self) -> None:
        """Tell each rollout that is watched how its devices do, if that is news."""
        self._known = {name: known for name, known in self._known.items() if name in self._live.running}
        for name, live in list(self._live.running.items()):
            if not _is_watched(live.state):
                continue
            try:
                await self._look_at(name, live.state)
            except LedgerError as error:
                _log.error("health is not known this time", rollout=name, why=str(error))
            except Exception:
                # A fault of ours must not end the looking: it would promote in silence.
                _log.exception("health is not known by a fault", rollout=name)

    async def _look_at(self, name: str, state: RolloutState) -> None:
        known = self._known.setdefault(name, _Known())
        policy, updated, others = state.spec.policy.gate.health, _updated(state), _others(state)
        zones = {device: state.targets[device].zone for device in (*updated, *others)}
        now_ms = unix_ms(self._live.clock())
        found = await self._live.ledger.read(
            lambda c: _compared(c, known.before, updated, others, zones=zones, policy=policy, now_ms=now_ms)
        )
        found = replace(found, probed=self._probed(name))
        if found == known.told:
            return
        async with self._live.turn:
            if name in self._live.running:
                await self._live.event(name, Evidence(found))
                known.told = found


def _is_watched(state: RolloutState) -> bool:
    return state.phase in _WATCHED and state.wave > 0 and state.ending is None and state.spec.policy.gate.health.on


@dataclass(frozen=True)
class _Part:
    """A device's part in a rollout, as the ledger is asked about it."""

    generation: int
    release: str
    previous: str


def _updated(state: RolloutState) -> dict[str, _Part]:
    """Devices that have the new release and had another one, evenly over all of them when there are too many."""
    return _some(state, state.members[DevicePhase.SUCCEEDED], MOST)


def _others(state: RolloutState) -> dict[str, _Part]:
    return _some(state, state.members[DevicePhase.WAITING], OTHERS)


def _some(state: RolloutState, names: Mapping[str, None], most: int) -> dict[str, _Part]:
    parts: dict[str, _Part] = {}
    for name in list(names)[:: -(-len(names) // most) or 1]:
        target = state.targets[name]
        if target.release and target.previous and target.release != target.previous:
            parts[name] = _Part(state.devices[name].generation, target.release, target.previous)
    return parts


def _compared(
    connection: Connection,
    remembered: dict[tuple[str, int], Sequence[Slice]],
    updated: Mapping[str, _Part],
    others: Mapping[str, _Part],
    *,
    zones: Mapping[str, str],
    policy: HealthPolicy,
    now_ms: int,
) -> HealthSamples:
    """What the devices show, read and added up; adds to `remembered`."""
    parts = {**updated, **others}
    artifacts = releases.artifacts_of(connection, {one for p in parts.values() for one in (p.release, p.previous)})
    given = devices.given_ms(connection, {name: part.generation for name, part in updated.items()})
    pairs = [
        # One that has no new release yet is looked at until now, in whatever generation.
        Compared(
            name,
            part.generation + (name in others),
            artifacts[part.release],
            artifacts[part.previous],
            given.get(name, now_ms),
        )
        for name, part in parts.items()
        if part.release in artifacts and part.previous in artifacts and (name in given or name in others)
    ]

    def hour_of(device: str, hour: int) -> int:
        return _hour_of_day(zones[device], hour)

    keys = {one.device: (one.device, one.generation if one.device in updated else _NOT_YET) for one in pairs}
    new = [one for one in pairs if keys[one.device] not in remembered]
    read = device_health.before(connection, new, hour_of)
    for one in new:
        remembered[keys[one.device]] = read.get(one.device, ())
    known = baseline({one.device: remembered[keys[one.device]] for one in pairs})
    mine = [one for one in pairs if one.device in updated]
    return compare(known, device_health.after(connection, mine, hour_of, now_ms), policy)


@lru_cache(maxsize=4096)
def _hour_of_day(zone: str, hour: int) -> int:
    return datetime.fromtimestamp(hour * 3600, ZoneInfo(zone)).hour
