"""Offline mandates in a running agent: taken from their folder, believed or refused, and acted upon without a network.

The lifecycle gets what a mandate says as it gets what a check-in says. As nobody answers check-ins here, this is also
what brings an accepted mandate again: after a restart, and while its release is not served yet.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Collection
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, Protocol

from edgewright_agent.database import StateDamaged
from edgewright_agent.lifecycle_state import Fault, Outcome
from edgewright_agent.mandate_folder import Handed, MandateFolder
from edgewright_agent.state_store import KnownRelease
from edgewright_agent.trust import Assignment, MetadataStale, TrustRefused
from edgewright_agent.update import Updates

LOOK_S: Final = 2.0
AGAIN_S: Final = 60.0

_log = logging.getLogger(__name__)


class MandateTrust(Protocol):
    """What decides whether a mandate is believed."""

    def apply_mandate(self, document: bytes, holds: Collection[str], now: datetime) -> Assignment:
        """Raises TrustRefused, MetadataStale, StateDamaged."""

    def mandate(self) -> bytes | None:
        """The one that was accepted last, as long as nothing newer was. Raises StateDamaged."""

    def generation(self) -> int:
        """The highest that was accepted. Raises StateDamaged."""


class Mandates:
    """Runs on the agent's event loop."""

    def __init__(
        self, folder: MandateFolder, trust: MandateTrust, updates: Updates, look_in: Callable[[Path | None], None]
    ) -> None:
        """`look_in` is told where else an artifact may be had from."""
        self._folder, self._trust, self._updates, self._look_in = folder, trust, updates, look_in
        self._again_at = -math.inf
        self._complaint = ""

    async def run(self) -> None:
        """Look, for ever, until cancelled."""
        while True:
            try:
                await self.once(time.monotonic())
            except (StateDamaged, OSError) as error:
                self._complain(f"a mandate cannot be taken in: {error}")
            except Exception:
                # A fault of ours must not take the engine down with it: the device serves on and looks again.
                _log.exception("a mandate failed in a way that nobody thought of")
            await asyncio.sleep(LOOK_S)

    async def once(self, now: float) -> None:
        """Take in what lies in the folder; now and then, bring what was accepted again.

        `now`: monotonic seconds. Raises StateDamaged, OSError.
        """
        for handed in await asyncio.to_thread(self._folder.waiting):
            await self._take(handed)
        if now >= self._again_at:
            self._again_at = now + AGAIN_S
            await self._again()

    async def _take(self, handed: Handed) -> None:
        word: dict[str, Any]
        try:
            assignment = await self._believe(handed.document)
        except (TrustRefused, MetadataStale) as error:
            _log.warning("mandate refused: %s", error)
            word = {"refused": str(error)}
        else:
            _log.info("a mandate gives generation %d", assignment.generation)
            await asyncio.to_thread(self._folder.keep_content, handed.content)
            self._look_in(handed.content)
            await self._assign(assignment)
            release = assignment.release.digest if assignment.release else ""
            word = {"generation": assignment.generation, "release": release, "held": assignment.held}
        await asyncio.to_thread(self._folder.done, handed, word)

    async def _again(self) -> None:
        document = await asyncio.to_thread(self._trust.mandate)
        content = await asyncio.to_thread(self._folder.content)
        if document is None:  # none, or overtaken: what lies where its content lay is not for what comes now
            if content is not None:
                await asyncio.to_thread(self._folder.keep_content, None)
                self._look_in(None)
            return
        self._look_in(content)
        state = self._updates.state
        serves = state.outcome is Outcome.SUCCEEDED and state.broken is Fault.NONE
        if serves and await asyncio.to_thread(self._trust.generation) <= state.generation:
            return
        try:
            assignment = await self._believe(document)
        except (TrustRefused, MetadataStale) as error:
            self._complain(f"the mandate that was accepted is worth nothing any more: {error}")
        else:
            self._complaint = ""
            await self._assign(assignment)

    async def _believe(self, document: bytes) -> Assignment:
        holds = self._updates.state.held
        return await asyncio.to_thread(self._trust.apply_mandate, document, holds, datetime.now(timezone.utc))

    async def _assign(self, assignment: Assignment) -> None:
        release, target = assignment.release, assignment.target
        known = KnownRelease(release, target) if release is not None and target is not None else None
        await self._updates.assign(assignment.generation, known)

    def _complain(self, what: str) -> None:
        """Once, and not each time that it is tried again."""
        if what != self._complaint:
            _log.error("%s. What serves goes on serving", what)
        self._complaint = what
