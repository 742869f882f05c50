"""Where each device goes in a rollback: the release that it leaves, and the one that it returns to."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import Connection

from edgewright_controller.ledger import NotInLedger, devices, releases
from edgewright_controller.ledger.devices import DesiredRow, DeviceRow
from edgewright_controller.service import standing
from edgewright_controller.service.change import BadInput, ChangeRefused


def ways_back(
    connection: Connection, prefix: str, only: Sequence[str], handed_out: Collection[str]
) -> dict[str, tuple[str, str]]:
    """Device → (release to leave, release to return to). `handed_out`: what rollouts give to devices just now.

    Without a `prefix` the change that runs is meant, and when none does, what each device has. Raises BadInput,
    ChangeRefused.
    """
    try:
        named = {releases.find(connection, prefix).digest} if prefix else set()
        rows = [devices.get(connection, device) for device in only] or devices.every(connection)
    except NotInLedger as error:
        raise BadInput(str(error)) from error
    desired = devices.desired(connection, [row.id for row in rows])
    rolled_back = releases.rolled_back(connection)
    in_use = {row.id: _in_use(row, desired.get(row.id), rolled_back) for row in rows}
    leaving = named or (set() if only else set(handed_out)) or {current for current, _ in in_use.values() if current}
    back: dict[str, tuple[str, str]] = {}
    stuck: list[str] = []
    for device, (current, active) in in_use.items():
        if current not in leaving:
            if only:
                has = f"it serves {current[:12]}" if current else "it serves nothing"
                stuck.append(f"{device}: nothing to roll back: {has}")
            continue
        # What it is still on its way to is left for what it serves.
        stays = active if active != current and active not in leaving else ""
        target = stays or devices.good_before(connection, device, current, without=leaving)
        if target is None:
            stuck.append(f"{device}: no earlier release has worked there, so there is none to return to")
        else:
            back[device] = (current, target)
    if stuck and (only or not back):
        raise ChangeRefused("\n".join(stuck))
    if not back:
        serves = f"release {min(named)[:12]}" if named else "anything"
        raise ChangeRefused(f"nothing to roll back: no device serves {serves}")
    return back


def _in_use(row: DeviceRow, desired: DesiredRow | None, rolled_back: Collection[str]) -> tuple[str, str]:
    """(what the device is on its way to, else what it serves; what it serves). What it refused is not in use.

    Whoever serves what was rolled back is on its way from it, not to it.
    """
    status = standing.said(row)
    active = status.active_release if status else ""
    if desired is None or desired.release is None or active in rolled_back:
        return active, active
    settled = status is not None and status.generation >= desired.generation and status.outcome in devices.SETTLED
    return (active or desired.release if settled else desired.release), active


def still_leaving(connection: Connection, leaving: Collection[str]) -> dict[str, tuple[str, str]]:
    """Device → (release that it serves and shall leave, release to return to)."""
    back = {}
    for row in devices.every(connection):
        status = standing.said(row)
        current = status.active_release if status else ""
        target = devices.good_before(connection, row.id, current) if current in leaving else None
        if target is not None:
            back[row.id] = (current, target)
    return back
