"""Newcomers get their release: a small rollout of its own for those who have checked in and may have it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from edgewright_controller import log
from edgewright_controller.ledger import (
    LedgerError,
    assignments,
    cordons,
    devices,
    release_records,
    releases,
    rolled_back_on,
    rollouts,
)
from edgewright_controller.ledger.release_records import GivenBy
from edgewright_controller.newcomers import Decision, Newcomer, Record, decide
from edgewright_controller.rollout import RolloutError, RolloutPolicy
from edgewright_controller.service import standing
from edgewright_controller.service.job import Job
from edgewright_controller.service.live_rollouts import LiveRollout, LiveRollouts
from edgewright_controller.service.rollout_beginning import begin
from edgewright_controller.service.wish import Wish

# Several that enrol together make one rollout.
GATHER_S: Final = 1.0
AGAIN_S: Final = 30.0
BY: Final = "controller"

_log = log.of(__name__)


@dataclass(frozen=True)
class _Seen:
    decision: Decision
    policies: dict[str, RolloutPolicy]


class Newcomers:
    """Looks for them whenever something may have changed for one."""

    def __init__(self, live: LiveRollouts, shut: Callable[[], frozenset[str]]) -> None:
        """`shut`: the devices that may say nothing any more."""
        self._live, self._shut = live, shut
        self._due = asyncio.Event()
        self._told: dict[str, str] = {}

    def look(self) -> None:
        """Something may have changed for a newcomer. Never blocks."""
        self._due.set()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self._due.wait()
            await asyncio.sleep(GATHER_S)  # what comes in this time shares the rollout
            self._due.clear()
            try:
                async with self._live.turn:
                    await self._welcome()
            except (LedgerError, RolloutError) as error:
                _log.error("newcomers wait", why=str(error))
                asyncio.get_running_loop().call_later(AGAIN_S, self._due.set)
            except Exception:
                _log.exception("newcomers were left out by a fault")

    async def _welcome(self) -> None:
        live, shut = dict(self._live.running), self._shut()
        seen = await self._live.ledger.read(lambda c: _look(c, live, shut))
        self._tell(seen.decision.waiting)
        for release, names in seen.decision.given.items():
            wish = Wish(
                releases=dict.fromkeys(names, release),
                policy=seen.policies[release],
                by=BY,
                about=f"newcomers: release {release[:12]}",
                not_again=True,
                by_itself=True,
            )
            await begin(self._live, wish, Job())

    def _tell(self, waiting: Mapping[str, str]) -> None:
        now = dict(waiting)
        for device, why in now.items():
            if self._told.get(device) != why:
                _log.info("newcomer waits", device=device, why=why)
        self._told = now


def _look(connection: Connection, live: dict[str, LiveRollout], shut: frozenset[str]) -> _Seen:
    assigned = assignments.never_given(connection)
    if not assigned:
        return _Seen(Decision(), {})
    digests = set(assigned.values())
    given_by = release_records.given_by(connection, digests)
    succeeded_on = release_records.succeeded_on(connection, digests)
    rolled_back = releases.rolled_back(connection)
    records = {
        digest: Record(
            succeeded_on.get(digest, 0),
            frozenset(one.state for one in _others(given_by.get(digest, [])) if one.state.final),
            _going_out(live, digest),
            digest in rolled_back,
        )
        for digest in digests
    }
    decision = decide(_newcomers(connection, assigned, live, shut), records)
    return _Seen(decision, {digest: _policy(given_by.get(digest, [])) for digest in decision.given})


def _others(given_by: Iterable[GivenBy]) -> list[GivenBy]:
    """What went to others than newcomers."""
    return [one for one in given_by if not one.about.get("by_itself")]


def _policy(given_by: list[GivenBy]) -> RolloutPolicy:
    """Newcomers get a release as others got it last."""
    return (_others(given_by) or given_by)[0].policy if given_by else RolloutPolicy()


def _going_out(live: dict[str, LiveRollout], digest: str) -> str:
    for name, one in live.items():
        if not one.by_itself and any(target.release == digest for target in one.state.targets.values()):
            return name
    return ""


def _newcomers(
    connection: Connection, assigned: dict[str, str], live: dict[str, LiveRollout], shut: frozenset[str]
) -> list[Newcomer]:
    heard = {row.id for row in devices.every(connection, assigned) if standing.said(row) is not None}
    cordoned = cordons.every(connection, assigned)
    refused = rolled_back_on.refused(connection, assigned)
    skipped = rollouts.skipped_by_hand(connection, assigned)
    found = []
    for device, release in assigned.items():
        in_rollout = next((name for name, one in live.items() if _has(one, device)), "")
        if device in shut:
            why = "its certificates were revoked"
        elif device in cordoned:
            why = f"cordoned by {cordoned[device].words}"
        elif in_rollout:
            why = f"it is in {in_rollout}"
        elif device in skipped:
            why = f"it was skipped in {skipped[device]}; the next apply gives it its release"
        elif device in refused:
            why = f"release {release[:12]} was rolled back"
        else:
            why = "" if device in heard else "it has not checked in yet"
        found.append(Newcomer(device, release, why))
    return found


def _has(live: LiveRollout, device: str) -> bool:
    return device in live.state.devices and not live.state.devices[device].detached
