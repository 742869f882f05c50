"""Who was heard of lately, by the controller's clock alone.

Kept in memory: after a restart the ledger's last times stand in until devices check in again.
"""

from __future__ import annotations

from typing import Final

# Two check-ins missed, and some patience.
ONLINE_S: Final = 150.0


class Presence:
    """When each device was last heard of. Times are seconds of one clock that the caller chooses."""

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}
        self._gone: set[str] = set()

    def seen(self, device: str, now: float) -> None:
        """The device checked in or published something."""
        self._seen[device] = now
        self._gone.discard(device)

    def gone(self, device: str) -> None:
        """The broker says that the device's connection ended; it may be heard of again the next moment."""
        self._gone.add(device)

    def last(self, device: str) -> float | None:
        """When it was last heard of since this controller started, None when not at all."""
        return self._seen.get(device)

    def online(self, device: str, now: float) -> bool:
        """Whether it was heard of lately, and has not said farewell since."""
        last = self._seen.get(device)
        return last is not None and now - last <= ONLINE_S and device not in self._gone
