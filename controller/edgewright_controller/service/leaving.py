"""Devices leave the rollouts that run: because somebody cordoned them, or took them out of the fleet."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import Connection

from edgewright_controller.ledger import cordons, devices
from edgewright_controller.rollout import Left
from edgewright_controller.service.live_rollouts import LiveRollouts


async def leave(live: LiveRollouts, named: Collection[str], reason: str, *, waiting_only: bool) -> None:
    """All rollouts go on without these devices; with `waiting_only`, only where they wait for their offer. The caller
    has the turn. Raises LedgerError; then it may be said again."""
    for rollout in list(live.running):
        for device in named:
            if rollout in live.running and device in live.running[rollout].state.devices:
                await live.event(rollout, Left(device, reason, waiting_only))
    live.news.set()


async def leave_as_stored(live: LiveRollouts) -> None:
    """What was said of devices and did not reach every rollout, because the controller ended in between."""

    def look(connection: Connection) -> tuple[Mapping[str, str], list[str]]:
        cordoned = {device: row.words for device, row in cordons.every(connection).items()}
        gone = [row.id for row in devices.every(connection) if row.decommissioned_ms is not None]
        return cordoned, gone

    cordoned, gone = await live.ledger.read(look)
    for device, words in cordoned.items():
        await leave(live, [device], f"cordoned by {words}", waiting_only=True)
    await leave(live, gone, "decommissioned", waiting_only=False)
