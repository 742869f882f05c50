"""Who may download now: so many streams at once, each device in its turn. Pure: time and chance are arguments.

A device that finds every slot taken is told when to come back, and keeps its place until a little after that: whoever
came later does not overtake it. While anybody waits, streams end after a turn, and readers get less patience.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from typing import Final

STREAMS: Final = 256
STREAMS_OF_ONE: Final = 4
TURN_BYTES: Final = 8 << 20
# How long a place is kept for a device beyond the time that it was told: its way here takes a while.
GRACE_S: Final = 10.0
SHORTEST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0
_MAX_PLACES: Final = 10_000
_NEWEST: Final = 0.1  # the weight of the newest stream in the average that waits are reckoned with


class TooMany(Exception):
    """No slot is free for this device; `again_s` is when to ask again, in seconds from now."""

    def __init__(self, message: str, again_s: float) -> None:
        self.again_s = again_s
        super().__init__(message)


class DownloadSlots:
    """At most `streams` downloads, of one device at most `of_one`."""

    def __init__(
        self, streams: int = STREAMS, of_one: int = STREAMS_OF_ONE, chance: random.Random | None = None
    ) -> None:
        self._streams, self._of_one = streams, of_one
        # It only keeps devices from coming back at the same moment.
        self._chance = chance or random.Random()  # noqa: S311 jitter needs no cryptography
        self._running: Counter[str] = Counter()
        self._places: OrderedDict[str, float] = OrderedDict()  # who waits, in order, and until when its place is kept
        self._turn_s = 1.0

    @property
    def crowded(self) -> bool:
        """Whether somebody waits for a slot."""
        return bool(self._places)

    def take(self, device: str, now: float) -> None:
        """Give `device` a slot. Raises TooMany; then it has a place in the line."""
        self._forget(now)
        if self._running[device] >= self._of_one:
            raise TooMany(
                f"this device has {self._of_one} downloads under way, as many as it may; end one of them",
                self._jittered(1.0),
            )
        free = self._streams - self._running.total()
        ahead = self._ahead(device)
        if ahead < free:
            self._places.pop(device, None)
            self._running[device] += 1
            return
        again_s = self._jittered(self._turn_s * (ahead - free + 1) / self._streams)
        if device in self._places or len(self._places) < _MAX_PLACES:
            self._places[device] = now + again_s + GRACE_S
        raise TooMany(f"all {self._streams} downloads of this controller are taken, {ahead} wait before this", again_s)

    def give_back(self, device: str, lasted_s: float) -> None:
        """A download of `device` ended after so many seconds."""
        self._running[device] -= 1
        if not self._running[device]:
            del self._running[device]
        self._turn_s += _NEWEST * (lasted_s - self._turn_s)

    def _forget(self, now: float) -> None:
        """Places of those that did not come back. Times rise along the line but for jitter, so the first decides."""
        while self._places and next(iter(self._places.values())) < now:
            self._places.popitem(last=False)

    def _ahead(self, device: str) -> int:
        """How many are before it in the line."""
        if device not in self._places:
            return len(self._places)
        return next(place for place, one in enumerate(self._places) if one == device)

    def _jittered(self, seconds: float) -> float:
        """A wait of at least that, and up to half as long again, within the bounds."""
        bounded = min(max(seconds, SHORTEST_WAIT_S), LONGEST_WAIT_S)
        return bounded * (1 + self._chance.random() / 2)
