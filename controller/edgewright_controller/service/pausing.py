"""Downloads that operators pause and resume, for as long as a line is wanted for something else.

A device is asked with its next check-in, and again until it has answered; it keeps to it by itself. A rollout does not
wait for it the longer: its deadlines go on, and say that it was paused.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from edgewright_contract.v1 import agent_pb2
from edgewright_controller import log
from edgewright_controller.ledger import Ledger, audit, devices, requests
from edgewright_controller.ledger.requests import RequestRow
from edgewright_controller.service.cordons import check_enrolled
from edgewright_controller.unix_time import unix_ms

PAUSE: Final = agent_pb2.DeviceRequest.KIND_PAUSE_DOWNLOADS
RESUME: Final = agent_pb2.DeviceRequest.KIND_RESUME_DOWNLOADS

_ACTIONS: Final = {True: "device.pause", False: "device.resume"}
_DETAILS: Final = {True: "it fetches nothing", False: "it fetches again"}

_log = log.of(__name__)


def is_new(wanted: bool, asked: RequestRow | None, status: agent_pb2.DeviceStatus | None) -> bool:
    """Whether a device has still to be asked for what is wanted, True: a pause.

    What it is being asked counts first, then what it says of itself: it may have lost its disk since it was asked. An
    agent that says nothing of pauses is believed to keep to one that it agreed to.
    """
    if asked is not None and asked.state == requests.OPEN:
        return wanted is not (asked.kind == PAUSE)
    says = status is not None and status.downloads_paused
    agreed = asked is not None and asked.state == requests.SUCCEEDED and asked.kind == PAUSE
    return not says if wanted else says or agreed


class Pausing:
    """Asks devices. `hint(device, generation)` makes one check in."""

    def __init__(self, ledger: Ledger, hint: Callable[[str, int], None], clock: Callable[[], datetime]) -> None:
        self._ledger, self._hint, self._clock = ledger, hint, clock

    async def pause(self, named: Sequence[str], *, by: str, reason: str) -> list[str]:
        """Have these devices fetch nothing; those that were not asked to before.

        Raises BadInput for a device that there is not, LedgerError.
        """
        return await self._ask(named, by, reason, paused=True)

    async def resume(self, named: Sequence[str], *, by: str, reason: str) -> list[str]:
        """Let these devices fetch again; those that were paused. Raises as `pause` does."""
        return await self._ask(named, by, reason, paused=False)

    async def _ask(self, named: Sequence[str], by: str, reason: str, *, paused: bool) -> list[str]:
        now_ms = unix_ms(self._clock())

        def act(connection: Connection) -> dict[str, int]:
            check_enrolled(connection, named)
            asked = requests.newest(connection, named, (PAUSE, RESUME))
            rows = {row.id: row for row in devices.every(connection, named)}
            changed = [name for name in dict.fromkeys(named) if is_new(paused, asked.get(name), rows[name].status)]
            for name in changed:
                kind = PAUSE if paused else RESUME
                requests.ask(connection, uuid.uuid4().hex, name, kind, argument="", now_ms=now_ms)
                about = {"actor": f"operator {by}", "action": _ACTIONS[paused], "subject": name}
                audit.append(connection, **about, detail=audit.with_reason(_DETAILS[paused], reason), now_ms=now_ms)
            given = devices.desired(connection, changed)
            return {name: given[name].generation if name in given else 0 for name in changed}

        changed = await self._ledger.write(act)
        _log.info("downloads paused" if paused else "downloads resumed", devices=list(changed), operator=by, why=reason)
        for name, generation in changed.items():
            if generation:  # one that was never given anything hears of it at its regular time
                self._hint(name, generation)
        return list(changed)
