"""Who was heard of lately, by the controller's clock alone.

Kept in memory: after a restart the ledger's last times stand in until devices check in again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

# Two check-ins missed, and some patience.
ONLINE_S: Final = 150.0


class Presence:
    """When each device was last heard of, over gRPC or MQTT. `clock` gives seconds that only rise."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[str, float] = {}
        self._gone: set[str] = set()

    def seen(self, device: str) -> None:
        """The device checked in or published something just now."""
        self._seen[device] = self._clock()
        self._gone.discard(device)

    def gone(self, device: str) -> None:
        """The broker says that the device's connection ended; it may be heard of again the next moment."""
        self._gone.add(device)

    def seen_s_ago(self, device: str) -> float | None:
        """Seconds since it was last heard of, None when not since this controller started."""
        last = self._seen.get(device)
        return None if last is None else self._clock() - last

    def online(self, device: str) -> bool:
        """Whether it was heard of lately, and has not said farewell since."""
        ago = self.seen_s_ago(device)
        return ago is not None and ago <= ONLINE_S and device not in self._gone

    def since(self, last: float) -> tuple[dict[str, float], float]:
        """Devices heard of after the moment `last`, with seconds ago, and the moment of now, for the next call."""
        now = self._clock()
        return {device: now - seen for device, seen in self._seen.items() if seen > last}, now
