"""The life of the device's certificate: looked at now and then, renewed in time, asked for again after its end.

Whatever goes wrong here costs nothing but time: the old certificate is in use until a new one works, and a device
without a good one serves on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Final

from edgewright_agent import certificate_life, succession
from edgewright_agent.backoff import Backoff
from edgewright_agent.cancellation import Cancellation
from edgewright_agent.certificate_life import What
from edgewright_agent.device_key import IdentityError
from edgewright_agent.identity import FOLDER, Identity
from edgewright_agent.key_pairs import Pairs
from edgewright_agent.link import BadAnswer, LinkDown, Refused
from edgewright_agent.succession import Line, Means, OpenLine

# A clock may be set, and a device may sleep: nobody waits for weeks in one piece.
LOOK_S: Final = 600.0
_FIRST_PAUSE_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 1800.0

_log = logging.getLogger(__name__)


class Renewing:
    """The loop. `line` is the connection that stands; `on_renewed` gets the identity that is in use from now on."""

    def __init__(
        self,
        state: Path,
        identity: Identity,
        line: Line,
        *,
        open_line: OpenLine,
        on_renewed: Callable[[Identity], None],
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._means = Means(state, open_line, Cancellation())
        self._identity, self._line, self._on_renewed, self._clock = identity, line, on_renewed, clock
        self._backoff = Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        self._complaint = ""

    def stop(self) -> None:
        """Cut short what waits for the network, once `run` is cancelled."""
        self._means.cancellation.cancel()

    async def run(self) -> None:
        """Look for ever, until cancelled."""
        await asyncio.to_thread(self._tidy)  # what a power cut kept from being removed
        while True:
            try:
                wait_s = await self.once()
            except Exception:
                # A fault of ours must not take the engine down with it.
                _log.exception("the certificate was not renewed, in a way that nobody thought of")
                wait_s = self._backoff.pause()
            await asyncio.sleep(wait_s)

    async def once(self) -> float:
        """Do what is due; seconds until the next look."""
        now = self._clock()
        what = certificate_life.due(self._identity.device, self._identity.life, now)
        if what is What.WAIT:
            return LOOK_S
        try:
            identity = await asyncio.to_thread(self._act, what, now)
        except (LinkDown, BadAnswer, Refused, IdentityError, OSError) as error:
            self._complain(what, str(error))
            return self._backoff.pause()
        until = f"{identity.life.not_after:%Y-%m-%d %H:%M} UTC"
        if now < identity.life.not_after:
            self._backoff.reset()
            self._complaint = ""
            _log.info("a new certificate, good until %s", until)
        else:
            self._complain(
                what, f"the controller's newest ends at {until}, and this device's clock is past that; set it"
            )
        self._identity = identity
        self._on_renewed(identity)
        await asyncio.to_thread(self._tidy)
        return LOOK_S

    def _act(self, what: What, now: datetime) -> Identity:
        if what is What.RENEW:
            return succession.renew(self._means, self._identity, self._line, now)
        return succession.come_back(self._means, self._identity, now)

    def _tidy(self) -> None:
        """The old key is of no more use to anybody but a thief."""
        try:
            Pairs(self._means.state / FOLDER, self._identity.keys).forget_former()
        except (IdentityError, OSError) as error:
            _log.warning("an old key stays on the disk: %s", error)

    def _complain(self, what: What, complaint: str) -> None:
        """Once, and not each time that it is tried again."""
        if complaint != self._complaint:
            doing = "not renewed" if what is What.RENEW else "ended, and no new one is given"
            _log.warning("the certificate is %s: %s; trying again, and serving on", doing, complaint)
        self._complaint = complaint
