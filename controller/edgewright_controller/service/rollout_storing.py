"""What the rollouts' acts leave in the ledger: each with its entry in the audit log, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Protocol, TypeVar

from sqlalchemy import Connection

from edgewright_controller.ledger import audit, releases, rolled_back_on, rollouts
from edgewright_controller.rollout import (
    Aborted,
    Actions,
    Changes,
    Event,
    Paused,
    Resumed,
    RolloutSpec,
    RolloutState,
)
from edgewright_controller.service.wish import Wish
from edgewright_controller.unix_time import unix_ms

T = TypeVar("T")


class Storage(Protocol):
    """What is needed of a ledger."""

    async def read(self, act: Callable[[Connection], T], /) -> T:
        """What `act` reads. Raises LedgerError."""

    async def write(self, act: Callable[[Connection], T], /) -> T:
        """What `act` returns, once it is stored. Raises LedgerError."""


def created(
    connection: Connection, spec: RolloutSpec, wish: Wish, about: Mapping[str, object], now: float
) -> RolloutState:
    """A new rollout, what is refused from now on because of it, and its entry in the audit log."""
    given = {release for release in wish.releases.values() if release}
    only = given.pop() if len(given) == 1 else ""
    said = {"actor": f"operator {wish.by}", "action": "rollout.begin", "subject": spec.id, "release": only}
    detail = f"{wish.about}: {len(wish.releases)} devices"
    audit.append(connection, **said, detail=audit.with_reason(detail, wish.why), now_ms=int(now * 1000))
    refuse(connection, wish, int(now * 1000))
    return rollouts.create(connection, spec, by=wish.by, about=about, now=now)


def refuse(connection: Connection, wish: Wish, now_ms: int) -> None:
    """What a rollback leaves is not released again by itself."""
    for device, release in sorted(wish.refuses):
        if device:
            rolled_back_on.mark(connection, device, release, wish.by, now_ms)
        else:
            releases.mark_rolled_back(connection, release, wish.by, now_ms)


def stored(connection: Connection, rollout: str, event: Event, done: tuple[Changes, Actions], now: datetime) -> None:
    """What an event did to a rollout, with the entry of what an operator did by it."""
    rollouts.commit(connection, rollout, *done)
    if isinstance(event, Paused | Resumed | Aborted):
        by, _, reason = event.by.partition(": ")
        said = {"actor": f"operator {by}", "action": f"rollout.{type(event).__name__.lower()}", "subject": rollout}
        audit.append(connection, **said, detail=reason, now_ms=unix_ms(now))
