"""Draws up offline mandates: which release, under which generation, entered in the ledger with the mandate itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from edgewright_contract import mandate as contract
from edgewright_contract import names
from edgewright_controller import log
from edgewright_controller.ledger import LedgerError, NotInLedger, audit, devices, mandates, releases, rolled_back_on
from edgewright_controller.ledger.mandates import MandateRow
from edgewright_controller.ledger.releases import ReleaseRow
from edgewright_controller.publish import PublishError
from edgewright_controller.publish.mandates import Terms, draw_up
from edgewright_controller.service.change import BadInput, ChangeRefused
from edgewright_controller.unix_time import unix_ms

if TYPE_CHECKING:
    from edgewright_controller.ledger import Ledger
    from edgewright_controller.publish import ImageRepository
    from edgewright_controller.service.revocations import Revocations
    from edgewright_controller.service.rollouts_runner import RolloutsRunner

_MOST: Final = contract.MAX_LIFE

_log = log.of(__name__)


class Mandates:
    """Makes mandates for one fleet."""

    def __init__(
        self,
        fleet: str,
        ledger: Ledger,
        image: ImageRepository,
        runner: RolloutsRunner,
        revocations: Revocations,
        *,
        clock: Callable[[], datetime],
    ) -> None:
        self._fleet, self._ledger, self._image, self._clock = fleet, ledger, image, clock
        self._runner, self._revocations = runner, revocations

    async def create(
        self, device: str, profile: str, release: str, valid_s: int, *, by: str
    ) -> tuple[bytes, MandateRow]:
        """An unsigned mandate for `device` or for `profile`, whichever is not empty.

        `release`: a digest or the beginning of one, empty: what it should have now. Raises BadInput, ChangeRefused,
        LedgerError; then nothing is entered.
        """
        _check(device, profile, valid_s)
        if device in self._revocations.shut_devices():
            raise ChangeRefused(
                f"{device} is revoked; enrol it again first: edgewright enroll create --device {device}"
            )
        now = self._clock().replace(microsecond=0)
        await self._check_at_rest(device, profile)

        def act(connection: Connection) -> tuple[bytes, MandateRow]:
            chosen = _chosen(connection, device, profile, release)
            row = MandateRow(
                number=mandates.next_number(connection),
                device=device or None,
                profile=profile or None,
                generation=_next_generation(connection, device, chosen.digest),
                release=chosen.digest,
                issued_ms=unix_ms(now),
                expires_ms=unix_ms(now) + valid_s * 1000,
                by=by,
            )
            document = draw_up(self._image.documents(), self._terms(row, chosen, now, valid_s))
            mandates.put(connection, row)
            _enter(connection, row)
            return document, row

        try:
            document, row = await self._ledger.write(act)
        except PublishError as error:
            raise ChangeRefused(str(error)) from error
        whom = {"device": device} if device else {"profile": profile}
        _log.info("mandate drawn up", operator=by, number=row.number, generation=row.generation, **whom)
        return document, row

    async def _check_at_rest(self, device: str, profile: str) -> None:
        """A rollout counts its devices' generations itself, so none may be taken from under it."""
        if device:
            running = self._runner.under_way([device])
        else:
            of_profile = await self._ledger.read(lambda c: _of_profile(c, profile))
            running = self._runner.under_way(*of_profile)
        if running:
            raise ChangeRefused(
                f"{device or f'profile {profile}'} is in {running}, which runs: wait for its end, or end it with"
                f" `edgewright rollout abort {running}`"
            )

    def _terms(self, row: MandateRow, chosen: ReleaseRow, now: datetime, valid_s: int) -> Terms:
        return Terms(
            fleet=self._fleet,
            device=row.device,
            profile=row.profile,
            number=row.number,
            generation=row.generation,
            release=chosen.release,
            target=chosen.target,
            issued=now,
            expires=now + timedelta(seconds=valid_s),
        )


def _check(device: str, profile: str, valid_s: int) -> None:
    if bool(device) == bool(profile):
        raise BadInput("a mandate is for a device or for a profile: name one of them")
    for what, named in (("device", device), ("profile", profile)):
        if named and not names.is_id(named):
            raise BadInput(f"{what}: {named[:80]!r} is not an id: small letters, digits and -, at most 63")
    if not 0 < valid_s <= _MOST.total_seconds():
        raise BadInput(f"a mandate is valid for more than nothing and at most {_MOST.days} days")


def _chosen(connection: Connection, device: str, profile: str, prefix: str) -> ReleaseRow:
    """The release that the mandate gives. Raises BadInput, ChangeRefused."""
    try:
        if device:
            devices.get(connection, device)
        digest = releases.find(connection, prefix).digest if prefix else _now(connection, device, profile)
    except NotInLedger as error:
        raise BadInput(str(error)) from error
    except LedgerError as error:  # several releases begin so
        raise BadInput(str(error)) from error
    row = releases.get(connection, digest)
    if profile and row.release.profile != profile:
        raise BadInput(f"release {digest[:12]} is of profile {row.release.profile}, not of {profile}")
    there = rolled_back_on.releases_of(connection, [device]).get(device, frozenset())
    if digest in releases.rolled_back(connection) | there:
        raise ChangeRefused(f"release {digest[:12]} was rolled back; `edgewright apply --again` releases it")
    return row


def _now(connection: Connection, device: str, profile: str) -> str:
    """The digest of what the device, or the profile's devices, should have. Raises ChangeRefused."""
    if device:
        wanted = devices.desired(connection, [device]).get(device)
        if wanted is None or wanted.release is None:
            raise ChangeRefused(f"{device} should have nothing now; name a release with --release")
        return wanted.release
    known = releases.of_profile(connection, profile)
    found = {row.release for row in devices.desired(connection).values() if row.release in known}
    if len(found) != 1:
        several = ", ".join(sorted(digest[:12] for digest in found))
        what = f"its devices should have different releases ({several})" if found else "none of its devices has one"
        raise ChangeRefused(f"profile {profile}: {what}; name a release with --release")
    return found.pop()


def _of_profile(connection: Connection, profile: str) -> tuple[frozenset[str], frozenset[str]]:
    """The devices that should have a release of this profile, and all its releases."""
    known = releases.of_profile(connection, profile)
    return frozenset(row.device for row in devices.desired(connection).values() if row.release in known), known


def _next_generation(connection: Connection, device: str, release: str) -> int:
    """Above all that the device, or any device of the profile, now or before it joined, may have had."""
    if device:
        return devices.generation_of(connection, device, release) + 1
    return mandates.highest(connection) + 1


def _enter(connection: Connection, row: MandateRow) -> None:
    until = datetime.fromtimestamp(row.expires_ms / 1000, timezone.utc)
    audit.append(
        connection,
        actor=f"operator {row.by}",
        action="mandate.create",
        subject=row.device or f"profile {row.profile}",
        release=row.release,
        detail=f"mandate {row.number}, generation {row.generation}, until {until:%Y-%m-%d}",
        now_ms=row.issued_ms,
    )
