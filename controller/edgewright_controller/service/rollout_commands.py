"""What operators say to rollouts, those that run and those that have ended."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from edgewright_controller.ledger import cordons, rollouts
from edgewright_controller.rollout import (
    Aborted,
    Command,
    DevicePhase,
    Retried,
    RolloutError,
    RolloutPhase,
    RolloutState,
)
from edgewright_controller.service.job import Job
from edgewright_controller.service.live_rollouts import LiveRollouts
from edgewright_controller.service.retrying import FAILED, again, is_cordoned
from edgewright_controller.service.rollout_beginning import begin

_ENDED: Final = {
    RolloutPhase.SUCCEEDED: "succeeded",
    RolloutPhase.FAILED: "failed",
    RolloutPhase.ABORTED: "was aborted",
    RolloutPhase.SUPERSEDED: "was superseded",
}


@dataclass(frozen=True)
class Answer:
    """What came of a command: where `rollout` stands then, and which devices were retried or skipped. A retry of what
    has ended names the rollout that it began."""

    rollout: str
    phase: RolloutPhase
    devices: tuple[str, ...] = ()


class Commands:
    """Carries them out; the caller has the turn. `shut`: the devices that may say nothing any more."""

    def __init__(self, live: LiveRollouts, shut: Callable[[], frozenset[str]]) -> None:
        self._live, self._shut = live, shut

    async def do(self, rollout: str, command: Command) -> Answer:
        """Raises NotInLedger when there is no such rollout, RolloutError when it cannot be done, LedgerError."""
        live = self._live.running.get(rollout)
        if live is None:
            return await self._to_ended(rollout, command)
        if isinstance(command, Retried):
            command = await self._without_cordoned(live.state, command)
        changes = await self._live.event(rollout, command)
        self._live.news.set()
        named = isinstance(command, Retried) or bool(getattr(command, "devices", None))
        moved = tuple(sorted(change.device for change in changes.devices)) if named else ()
        return Answer(rollout, live.state.phase, moved)

    async def _without_cordoned(self, state: RolloutState, command: Retried) -> Retried:
        """A device that failed and was then cordoned is not offered anything. Raises RolloutError for one by name."""
        failed = {name for phase in FAILED for name in state.members[phase]}
        meant = failed if command.devices is None else command.devices
        cordoned = await self._live.ledger.read(lambda c: cordons.every(c, meant))
        if not cordoned:
            return command
        left = failed - cordoned.keys()
        if command.devices is not None or not left:
            raise RolloutError("\n".join(f"{device}: {is_cordoned(row)}" for device, row in cordoned.items()))
        return Retried(frozenset(left), command.by)

    async def _to_ended(self, rollout: str, command: Command) -> Answer:
        if not isinstance(command, Retried):
            raise RolloutError(await self._live.ledger.read(lambda c: _refusal(c, rollout, command)))
        by, _, why = command.by.partition(": ")
        named, shut = command.devices or frozenset(), self._shut()
        wish = await self._live.ledger.read(lambda c: again(c, rollout, named, by=by, why=why, shut=shut))
        begun = await begin(self._live, wish, Job())
        return Answer(begun.state.spec.id, begun.state.phase, tuple(sorted(wish.releases)))


def _refusal(connection: Connection, rollout: str, command: Command) -> str:
    row = rollouts.get(connection, rollout)
    counts = rollouts.counts(connection, rollout)
    if isinstance(command, Aborted):
        cure = "`edgewright rollback` takes back what it gave" if counts.get(DevicePhase.SUCCEEDED) else ""
    elif counts.get(DevicePhase.FAILED) or counts.get(DevicePhase.TIMED_OUT):
        cure = f"`edgewright rollout retry {rollout}` begins a new one with the devices that failed"
    else:
        cure = "`edgewright apply` begins a new one"
    said = f"rollout {rollout} has ended already; it {_ENDED[row.state]}: {row.reason}"
    return f"{said}; {cure}" if cure else said
