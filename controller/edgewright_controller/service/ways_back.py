"""Where each device goes in a rollback: the release that it leaves, and the one that it returns to.

A rollback of the whole fleet leaves aside what cannot go back and says so; devices that were named one by one must all
be able to, or nothing is done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2
from edgewright_controller.ledger import (
    NotInLedger,
    applied,
    cordons,
    devices,
    epochs,
    labels,
    releases,
    rolled_back_on,
    rollouts,
)
from edgewright_controller.ledger.devices import DesiredRow, DeviceRow
from edgewright_controller.ledger.epochs import Epochs
from edgewright_controller.manifest import Manifest, ManifestError, parse
from edgewright_controller.manifest.errors import suggestion
from edgewright_controller.rollout import DevicePhase
from edgewright_controller.service import standing
from edgewright_controller.service.change import BadInput, ChangeRefused

_LOOKED_THROUGH: Final = 100  # rollouts, the newest first, for the change that is meant

Ways = dict[str, tuple[str, str]]
"""Device → (release to leave, release to return to)."""


@dataclass(frozen=True)
class Asked:
    """What shall be taken back. `release`: digest or its beginning, empty: whatever is in use. `devices` and `groups`:
    only these, both empty: all. `generation`: with one device, back to what that one gave it; 0: the release before."""

    release: str = ""
    devices: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    generation: int = 0

    @property
    def everywhere(self) -> bool:
        """Whether the whole fleet is meant."""
        return not self.devices and not self.groups


@dataclass(frozen=True)
class Surroundings:
    """What the ledger does not tell: the releases that rollouts give to devices just now, the devices of which
    everything is revoked, and whether an artifact is whole in the store."""

    handed_out: Collection[str]
    shut: Collection[str]
    is_whole: Callable[[str], bool]


@dataclass(frozen=True)
class WaysBack:
    """What a rollback comes to. `left_alone` and `stuck` have the release too: those that nobody may touch, and those
    that cannot go back; each with why. `spared` only waited for it, and shall not get it any more (device → release).
    """

    ways: Ways
    left_alone: Mapping[str, str] = field(default_factory=dict)
    stuck: Mapping[str, str] = field(default_factory=dict)
    spared: Mapping[str, str] = field(default_factory=dict)

    @property
    def leaving(self) -> frozenset[str]:
        """The releases that somebody leaves."""
        return frozenset(left for left, _ in self.ways.values())

    def refuses(self, asked: Asked) -> frozenset[tuple[str, str]]:
        """What is not released again by itself, (device, release): all over the fleet, where the device is empty, after
        a rollback of the whole; after one of a part just there, since others may well go on with it."""
        if asked.everywhere:
            return frozenset(("", left) for left in self.leaving)
        there = ((device, left) for device, (left, _) in self.ways.items())
        return frozenset((*there, *self.spared.items()))


def ways_back(connection: Connection, asked: Asked, around: Surroundings) -> WaysBack:
    """The ways of all that are asked for.

    Without a release the change that runs is meant, and when none does, the newest of which something is still in
    use; for devices that were named, what each of them has. Raises BadInput, ChangeRefused, also when nobody can go
    back.
    """
    _check_form(asked)
    try:
        named = releases.find(connection, asked.release).digest if asked.release else ""
    except NotInLedger as error:
        raise BadInput(str(error)) from error
    scope = _scope(connection, asked)
    _check_named(connection, asked, scope, around)
    held = _all_held(connection, scope)
    if asked.generation:
        return _to_generation(connection, asked, named, held, around)
    leaving = _leaving(connection, named, asked, held, around)
    found = _ways(connection, held, leaving, around, only_current=bool(asked.devices and not asked.groups))
    if not asked.everywhere:
        found = replace(found, spared=_waiting_for(connection, held.keys() - found.ways.keys(), leaving))
    _check_each(asked, held, leaving, found)
    if not found.ways:
        if found.stuck or found.left_alone:
            raise ChangeRefused("\n".join(f"{device}: {why}" for device, why in _told(found)))
        what = f"no device has release {named[:12]}" if named else "no device has a release"
        raise ChangeRefused(f"nothing to roll back: {what}; `edgewright status` shows what each has")
    return found


def still_leaving(connection: Connection, leaving: Collection[str], around: Surroundings) -> WaysBack:
    """The ways of devices that turned out to have one of these after all."""
    held = _all_held(connection, _scope(connection, Asked()))
    return _ways(connection, held, frozenset(leaving), around, only_current=False)


_NO_EARLIER: Final = "no earlier release has worked there, so there is none to return to"
_ALL_TAKEN_BACK: Final = "every other release that worked there was taken back, so there is none to return to"


def _told(found: WaysBack) -> Iterable[tuple[str, str]]:
    yield from found.stuck.items()
    for device, why in found.left_alone.items():
        yield device, f"left alone: {why}"


def _check_form(asked: Asked) -> None:
    if asked.generation and (len(set(asked.devices)) != 1 or asked.groups):
        raise BadInput("a generation is of one device: --to goes with exactly one --device, and with no --group")


# ── Whom it is about ──


def _scope(connection: Connection, asked: Asked) -> list[DeviceRow]:
    """The devices that are asked for and were ever enrolled; of those that nobody named, the ones that are in the fleet
    still. Raises BadInput, ChangeRefused."""
    only = None if asked.everywhere else {*asked.devices, *_members(connection, asked.groups)}
    rows = devices.every(connection, only)
    return [row for row in rows if row.decommissioned_ms is None or row.id in asked.devices]


def _members(connection: Connection, groups: Collection[str]) -> set[str]:
    if not groups:
        return set()
    row, manifest = _last_applied(connection)
    if manifest is None:
        raise ChangeRefused("no manifest was applied here yet, so there are no groups; name devices with --device")
    for group in groups:
        if group not in manifest.groups:
            near = suggestion(group, manifest.groups)
            raise BadInput(f"there is no group {group!r} in {row}, the manifest that was applied last{near}")
    return {device for group in groups for device in manifest.members(group)}


def _last_applied(connection: Connection) -> tuple[str, Manifest | None]:
    """The manifest that was applied last, and its file's name. Raises ChangeRefused."""
    row = applied.last(connection)
    if row is None:
        return "", None
    try:
        return row.file, parse(row.text, file=row.file, labels=labels.every(connection))
    except ManifestError as error:  # an older controller took it, or devices have other labels since
        first = str(error).splitlines()[0]
        raise ChangeRefused(
            f"the manifest that was applied last does not hold any more: {first}; apply one that does"
        ) from error


def _check_named(connection: Connection, asked: Asked, scope: Collection[DeviceRow], around: Surroundings) -> None:
    """Devices that were named must be ones that can be rolled back. Raises BadInput, ChangeRefused."""
    rows, cordoned = {row.id: row for row in scope}, cordons.every(connection, asked.devices)
    unknown, closed = [], []
    for device in dict.fromkeys(asked.devices):
        again = f"`edgewright enroll create --device {device}` makes a token to let it in again"
        if device not in rows:
            unknown.append(_unknown(connection, device))
        elif rows[device].decommissioned_ms is not None:
            closed.append(f"{device}: it was decommissioned, so nothing reaches it; {again}")
        elif device in around.shut:
            closed.append(f"{device}: its certificates are revoked, so nothing reaches it; {again}")
        elif device in cordoned:
            lift = f"`edgewright devices uncordon {device}` lifts that"
            closed.append(f"{device}: it is cordoned by {cordoned[device].words}; {lift}")
    if unknown:
        raise BadInput("\n".join(unknown))
    if closed:
        raise ChangeRefused("\n".join(closed))


def _unknown(connection: Connection, device: str) -> str:
    _, manifest = _last_applied(connection)
    if manifest is not None and device in manifest.devices:
        cure = f"`edgewright enroll create --device {device}` makes its token"
        return f"{device}: it has not enrolled yet, so it has nothing to go back from; {cure}"
    near = suggestion(device, [row.id for row in devices.every(connection)])
    return f"there is no device {device!r}{near}"


# ── What they have ──


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


def _all_held(connection: Connection, rows: Collection[DeviceRow]) -> dict[str, _Held]:
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


# ── What they leave ──


def _leaving(
    connection: Connection, named: str, asked: Asked, held: Mapping[str, _Held], around: Surroundings
) -> frozenset[str]:
    if named:
        return frozenset({named})
    if asked.devices and not asked.groups:
        return frozenset(one.in_use for one in held.values() if one.in_use)
    in_use = frozenset(release for one in held.values() for release in (one.active, one.in_use) if release)
    return frozenset(around.handed_out) & in_use or _newest_in_use(connection, in_use)


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


def _waiting_for(connection: Connection, among: Iterable[str], leaving: frozenset[str]) -> dict[str, str]:
    """Devices that a rollout will give one of these as soon as it is their turn."""
    wanted = set(among)
    found: dict[str, str] = {}
    for name in rollouts.live(connection):
        state = rollouts.load(connection, name)
        for device in wanted & state.members[DevicePhase.WAITING].keys():
            release = state.targets[device].release
            if release is not None and release in leaving:
                found[device] = release
    return found


# ── Where they go ──


def _ways(
    connection: Connection,
    held: Mapping[str, _Held],
    leaving: frozenset[str],
    around: Surroundings,
    *,
    only_current: bool,
) -> WaysBack:
    back: Ways = {}
    stuck: dict[str, str] = {}
    alone: dict[str, str] = {}
    cordoned, before = cordons.every(connection), _Before(connection, held, leaving)
    judge = _Judge(connection, around)
    for device, one in held.items():
        has = {one.in_use} if only_current else {one.active, one.given}
        left = next((release for release in (one.given, one.active) if release in has & leaving), "")
        if not left:
            continue
        if device in cordoned:
            alone[device] = f"it is cordoned by {cordoned[device].words}"
            continue
        # What it only was to get, or failed at, is left for what it serves; nobody returns to what others leave.
        stays = one.active if one.active != left and one.active not in leaving else ""
        target = stays or before.newest(device, left)
        if target is None:
            if one.in_use in leaving:
                stuck[device] = before.why_none(device, left)
            continue
        if not one.settled and one.given not in leaving and one.given != target:
            continue  # it is on its way to something else
        hindrance = judge.hindrance(device, target, one)
        if hindrance:
            stuck[device] = hindrance
        else:
            back[device] = (left, target)
    return WaysBack(back, stuck=stuck, left_alone=alone)


class _Before:
    """What worked on each device and was not taken back, everywhere or there, nor is now; looked up for all at once."""

    def __init__(self, connection: Connection, held: Collection[str], leaving: frozenset[str]) -> None:
        self._worked = devices.succeeded(connection, held)
        self._everywhere = releases.rolled_back(connection) | leaving
        self._there = rolled_back_on.releases_of(connection, held)

    def newest(self, device: str, leaving: str) -> str | None:
        """The newest of them beside `leaving`, None when there is none."""
        gone = {leaving} | self._everywhere | self._there.get(device, frozenset())
        return next((release for release in self._worked.get(device, ()) if release not in gone), None)

    def why_none(self, device: str, leaving: str) -> str:
        """Why there is none."""
        return _ALL_TAKEN_BACK if set(self._worked.get(device, ())) - {leaving} else _NO_EARLIER


@dataclass
class _Judge:
    """Whether a release can still be given to a device. Remembers what many devices share."""

    connection: Connection
    around: Surroundings
    _whole: dict[str, bool] = field(default_factory=dict)
    _epochs: Epochs | None = None

    def hindrance(self, device: str, digest: str, held: _Held) -> str:
        """Why the device cannot return to this release; empty when it can. What it serves, it just goes on with."""
        if digest == held.active:
            return ""
        row = releases.get(self.connection, digest)
        what, model, epoch = f"release {digest[:12]}", row.release.model, row.target.release_epoch
        if self._epochs is None:
            self._epochs = epochs.activated(self.connection)
        if epoch < (own := self._epochs.on(device, model)):
            return (
                f"it would refuse {what}, which has release epoch {epoch}: it has had {model} of epoch {own};"
                " go forward instead, with a corrected release"
            )
        if epoch < (highest := self._epochs.of_model(model)):
            return (
                f"{what} has release epoch {epoch}, and models.{model}.release_epoch = {highest} forbids what is below;"
                " go forward instead, with a corrected release"
            )
        artifact = row.release.artifact
        if artifact not in self._whole:
            self._whole[artifact] = self.around.is_whole(artifact)
        if not self._whole[artifact]:
            return (
                f"{what} was collected: its artifact {artifact[:12]} is not whole in the store any more;"
                " apply the manifest that made it, which builds it again"
            )
        return ""


def _to_generation(
    connection: Connection, asked: Asked, named: str, held: Mapping[str, _Held], around: Surroundings
) -> WaysBack:
    """The one device's way to what a generation gave it. Raises BadInput, ChangeRefused."""
    ((device, one),) = held.items()
    if not one.in_use or (named and one.in_use != named):
        raise ChangeRefused(f"{device}: nothing to roll back: {_has(one)}")
    row = _generation(connection, device, asked.generation)
    gave = f"generation {row.generation} gave it"
    if row.release is None:
        raise ChangeRefused(f"{device}: {gave} nothing; to take away what it serves, apply it with serve = false")
    if row.release == one.in_use:
        raise ChangeRefused(f"{device}: {gave} release {row.release[:12]}, which it has now")
    if row.outcome != agent_pb2.OUTCOME_SUCCEEDED and row.release != one.active:
        cure = f"`edgewright devices show {device}` lists those that did"
        raise ChangeRefused(f"{device}: {gave} release {row.release[:12]}, which has not worked there; {cure}")
    if rolled_back_on.refused(connection, {device: row.release}):
        cure = "`edgewright apply --again` with the manifest that made it releases it"
        raise ChangeRefused(f"{device}: {gave} release {row.release[:12]}, which was itself rolled back; {cure}")
    hindrance = _Judge(connection, around).hindrance(device, row.release, one)
    if hindrance:
        raise ChangeRefused(f"{device}: {hindrance}")
    return WaysBack({device: (one.in_use, row.release)})


def _generation(connection: Connection, device: str, generation: int) -> DesiredRow:
    rows = devices.history(connection, device)
    for row in rows:
        if row.generation == generation:
            return row
    known = [str(row.generation) for row in rows]
    had = f"it had {', '.join(known[:12])}{', …' if len(known) > 12 else ''}" if known else "it had none yet"
    raise BadInput(f"{device} has had no generation {generation}; {had}")


def _has(one: _Held) -> str:
    return f"it has release {one.in_use[:12]}" if one.in_use else "it has none"


def _check_each(asked: Asked, held: Mapping[str, _Held], leaving: frozenset[str], found: WaysBack) -> None:
    """Devices that were named one by one must all have a way. Raises ChangeRefused."""
    faults = []
    for device in dict.fromkeys(asked.devices):
        if device in found.ways:
            continue
        why = found.stuck.get(device) or f"nothing to roll back: {_has(held[device])}"
        if device in found.spared:
            cure = f"`edgewright rollout skip` keeps it from release {found.spared[device][:12]}, for which it waits"
            why = f"{why}; {cure}"
        faults.append(f"{device}: {why}")
    if faults:
        raise ChangeRefused("\n".join(faults))
