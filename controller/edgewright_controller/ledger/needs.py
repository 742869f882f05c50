"""Which releases somebody needs, and who: their artifacts stay on the controller's disk.

A release that is only history, however it ended, is not needed. A device that was decommissioned needs nothing: it
enrols anew before it gets anything, and then gets what the manifest has for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from sqlalchemy import Connection, select

from edgewright_controller.ledger import assignments, devices, mandates, releases, rolled_back_on, rollouts, tables
from edgewright_controller.ledger.among import among
from edgewright_controller.ledger.devices import DeviceRow

# What a device would go back to is the newest that worked there and is not what it leaves.
_WAYS_BACK: Final = 2


def of_releases(connection: Connection, now_ms: int) -> dict[str, str]:
    """Release → who needs it, in words; of several the first that is found. `now_ms`: Unix milliseconds."""
    found: dict[str, str] = {}
    for release, why in _all(connection, now_ms):
        if release:
            found.setdefault(release, why)
    return found


def of_artifacts(connection: Connection, now_ms: int) -> dict[str, str]:
    """The same by the artifacts of these releases, and what devices say that they serve, where the ledger does not know
    the release: it came from a backup then, and a device mends its disk from here."""
    needed = of_releases(connection, now_ms)
    rows = devices.every(connection, decommissioned=False)
    serving = [(row.id, row.status.active_artifact) for row in rows if row.status is not None]
    found = {artifact: f"{device} serves it" for device, artifact in serving if artifact}
    for release, artifact in releases.artifacts_of(connection, needed).items():
        found.setdefault(artifact, needed[release])
    return found


def _all(connection: Connection, now_ms: int) -> Iterator[tuple[str | None, str]]:
    rows = devices.every(connection, decommissioned=False)
    yield from _said(rows)
    names = {row.id for row in rows}
    for device, wanted in devices.desired(connection).items():
        if device in names:
            yield wanted.release, f"{device} should have it"
    for device, release in assignments.every(connection).items():
        yield release, f"the manifest that was applied last has it for {device}"
    yield from _of_rollouts(connection)
    for mandate in mandates.every(connection):
        if mandate.expires_ms > now_ms:
            yield mandate.release, f"mandate {mandate.number} gives it"
    yield from _ways_back(connection, names)


def _said(rows: Iterable[DeviceRow]) -> Iterator[tuple[str | None, str]]:
    for row in rows:
        status = row.status
        if status is None:
            continue
        yield status.active_release, f"{row.id} serves it"
        yield status.previous_release, f"{row.id} keeps it as the one before"
        yield status.release, f"{row.id} was given it last"
        for held in status.held_releases:
            yield held, f"{row.id} holds it, to be tried again"


def _of_rollouts(connection: Connection) -> Iterator[tuple[str | None, str]]:
    live = rollouts.live(connection)
    table = tables.rollout_devices
    chosen = select(table.c.rollout, table.c.release, table.c.previous).where(among(table.c.rollout, live)).distinct()
    for rollout, release, previous in connection.execute(chosen):
        yield release, f"{rollout} gives it"
        yield previous, f"{rollout} would go back to it"


def _ways_back(connection: Connection, names: Iterable[str]) -> Iterator[tuple[str | None, str]]:
    names = list(names)
    everywhere, there = releases.rolled_back(connection), rolled_back_on.releases_of(connection, names)
    none: frozenset[str] = frozenset()
    for device, worked in devices.succeeded(connection, names).items():
        gone = everywhere | there.get(device, none)
        ways = [release for release in dict.fromkeys(worked) if release not in gone]
        for release in ways[:_WAYS_BACK]:
            yield release, f"{device} would go back to it"
