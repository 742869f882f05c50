"""What the rollouts' acts leave in the ledger: each with its entry in the audit log, in one transaction."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, Protocol, TypeVar

from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import audit, releases, requests, rolled_back_on, rollouts
from edgewright_controller.rollout import (
    Aborted,
    Actions,
    Approved,
    Changes,
    Command,
    Event,
    Paused,
    Resumed,
    Retried,
    RolloutState,
    Skipped,
)
from edgewright_controller.service.wish import Wish, spec
from edgewright_controller.unix_time import unix_ms

T = TypeVar("T")


class Storage(Protocol):
    """What is needed of a ledger."""

    async def read(self, act: Callable[[Connection], T], /) -> T:
        """What `act` reads. Raises LedgerError."""

    async def write(self, act: Callable[[Connection], T], /) -> T:
        """What `act` returns, once it is stored. Raises LedgerError."""


def created(connection: Connection, rollout: str, wish: Wish, now: datetime) -> RolloutState:
    """A new rollout, what is refused from now on because of it, and its entry in the audit log."""
    now_ms = unix_ms(now)
    given = {release for release in wish.releases.values() if release}
    only = given.pop() if len(given) == 1 else ""
    said = {"actor": wish.actor, "action": "rollout.begin", "subject": rollout, "release": only}
    count = len(wish.releases)
    detail = f"{wish.about}: {'1 device' if count == 1 else f'{count} devices'}"
    audit.append(connection, **said, detail=audit.with_reason(detail, wish.why), now_ms=now_ms)
    refuse(connection, wish, now_ms)
    for device in sorted(wish.lifts_holds):
        if release := wish.releases[device]:
            asked, kind = uuid.uuid4().hex, agent_pb2.DeviceRequest.KIND_RELEASE_HOLD
            requests.ask(connection, asked, device, kind, argument=release, now_ms=now_ms)
    about = {"what": wish.about, "undoes": wish.undoes, "why": wish.why, "by_itself": wish.by_itself}
    return rollouts.create(connection, spec(connection, rollout, wish), by=wish.by, about=about, now=now.timestamp())


def refuse(connection: Connection, wish: Wish, now_ms: int) -> None:
    """What a rollback leaves is not released again by itself."""
    for device, release in sorted(wish.refuses):
        if device:
            rolled_back_on.mark(connection, device, release, wish.by, now_ms, reason=wish.why)
        else:
            releases.mark_rolled_back(connection, release, wish.by, now_ms, wish.why)


def stored(connection: Connection, rollout: str, event: Event, done: tuple[Changes, Actions], now: datetime) -> None:
    """What an event did to a rollout, with the entry of what an operator did by it."""
    rollouts.commit(connection, rollout, *done)
    if isinstance(event, Command):
        by, _, reason = event.by.partition(": ")
        said = {"actor": f"operator {by}", "action": f"rollout.{_VERBS[type(event)]}", "subject": rollout}
        detail = audit.with_reason(_detail(event, done[0]), reason)
        audit.append(connection, **said, detail=detail, now_ms=unix_ms(now))


def _detail(command: Command, changes: Changes) -> str:
    if isinstance(command, Aborted):
        return "what has it goes back" if command.revert else "what has it keeps it"
    if isinstance(command, Retried | Skipped):
        named = [change.device for change in changes.devices] if command.devices is None else command.devices
        return ", ".join(sorted(named))
    return _SAID[type(command)]


_SAID: Final[Mapping[type, str]] = {
    Paused: "nothing more is offered",
    Resumed: "it goes on",
    Approved: "the next wave begins",
}
_VERBS: Final[Mapping[type, str]] = {
    Paused: "pause",
    Resumed: "resume",
    Approved: "approve",
    Retried: "retry",
    Skipped: "skip",
    Aborted: "abort",
}
