"""Where each device goes in a rollback: the release that it leaves, and the one that it returns to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from edgewright_controller.ledger import NotInLedger, devices, releases, rollouts
from edgewright_controller.ledger.devices import DesiredRow, DeviceRow
from edgewright_controller.service import standing
from edgewright_controller.service.change import BadInput, ChangeRefused

_LOOKED_THROUGH: Final = 100  # rollouts, the newest first, for the change that is meant

Ways = dict[str, tuple[str, str]]
"""Device → (release to leave, release to return to)."""


def ways_back(connection: Connection, prefix: str, only: Sequence[str], handed_out: Collection[str]) -> Ways:
    """The ways of all devices, or of those in `only`. `handed_out`: what rollouts give to devices just now.

    Without a `prefix` the change that runs is meant, and when none does, the newest of which something is still in
    use; for devices in `only`, what each of them has. Raises BadInput, ChangeRefused.
    """
    try:
        named = releases.find(connection, prefix).digest if prefix else ""
        rows = [devices.get(connection, device) for device in only] or devices.every(connection)
    except NotInLedger as error:
        raise BadInput(str(error)) from error
    held = _all_held(connection, rows)
    if named:
        leaving: frozenset[str] = frozenset({named})
    elif only:
        leaving = frozenset(one.in_use for one in held.values() if one.in_use)
    else:
        in_use = frozenset(release for one in held.values() for release in (one.active, one.in_use) if release)
        leaving = frozenset(handed_out) & in_use or _newest_in_use(connection, in_use)
    back = _ways(connection, held, leaving, only_current=bool(only))
    if only:
        _check_each(held, leaving, back)
    if not back:
        stuck = [device for device, one in held.items() if one.in_use and one.in_use in leaving]
        if stuck:
            raise ChangeRefused("\n".join(f"{device}: {_NO_EARLIER}" for device in stuck))
        what = f"no device has release {named[:12]}" if named else "no device has a release"
        raise ChangeRefused(f"nothing to roll back: {what}; `edgewright status` shows what each has")
    return back


def still_leaving(connection: Connection, leaving: Collection[str]) -> Ways:
    """The ways of devices that turned out to have one of these after all."""
    return _ways(connection, _all_held(connection, devices.every(connection)), frozenset(leaving), only_current=False)


_NO_EARLIER: Final = "no earlier release has worked there, so there is none to return to"


@dataclass(frozen=True)
class _Held:
    """What a device has: `active` serves, `given` is what it is to have, whether or not it is `settled`."""

    active: str
    given: str
    settled: bool

    @property
    def in_use(self) -> str:
        """What it is on its way to, else what it serves. What it refused is not in use."""
        return (self.active or self.given) if self.settled else (self.given or self.active)


def _all_held(connection: Connection, rows: Sequence[DeviceRow]) -> dict[str, _Held]:
    desired = devices.desired(connection, [row.id for row in rows])
    return {row.id: _held(row, desired.get(row.id)) for row in rows}


def _held(row: DeviceRow, desired: DesiredRow | None) -> _Held:
    status = standing.said(row)
    settled = (
        desired is not None
        and status is not None
        and status.generation >= desired.generation
        and status.outcome in devices.SETTLED
    )
    given = (desired.release or "") if desired is not None else ""
    return _Held(status.active_release if status is not None else "", given, settled or not given)


def _newest_in_use(connection: Connection, in_use: frozenset[str]) -> frozenset[str]:
    """What the newest change gave, that anybody still has. Changes that took something back are none."""
    for row in rollouts.every(connection, _LOOKED_THROUGH):
        if row.about.get("undoes"):
            continue
        targets = rollouts.load(connection, row.id).targets.values()
        found = frozenset(target.release for target in targets if target.release) & in_use
        if found:
            return found
    return in_use


def _ways(
    connection: Connection, held: dict[str, _Held], leaving: frozenset[str], *, only_current: bool
) -> dict[str, tuple[str, str]]:
    back: Ways = {}
    for device, one in held.items():
        has = {one.in_use} if only_current else {one.active, one.given}
        left = next((release for release in (one.given, one.active) if release in has & leaving), "")
        if not left:
            continue
        # What it only was to get, or failed at, is left for what it serves; nobody returns to what others leave.
        stays = one.active if one.active != left and one.active not in leaving else ""
        target = stays or devices.good_before(connection, device, left, without=leaving)
        elsewhere = not one.settled and one.given not in leaving and one.given != target
        if target is not None and not elsewhere:
            back[device] = (left, target)
    return back


def _check_each(held: dict[str, _Held], leaving: frozenset[str], back: Ways) -> None:
    """Devices that were named one by one must all have a way. Raises ChangeRefused."""
    faults = []
    for device, one in held.items():
        if device in back:
            continue
        if one.in_use and one.in_use in leaving:
            faults.append(f"{device}: {_NO_EARLIER}")
        else:
            has = f"it has release {one.in_use[:12]}" if one.in_use else "it has none"
            faults.append(f"{device}: nothing to roll back: {has}")
    if faults:
        raise ChangeRefused("\n".join(faults))
