"""How fast a download is and how long it will take yet, by what came of late. Pure: times are given, in seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Long enough to even out calls and syncs, short enough to follow a line that changes.
WINDOW_S: Final = 60.0
_LEAST_S: Final = 2.0  # of looking, before anything is said
_LONGEST_S: Final = 100 * 86400  # beyond that, it is as good as not known


@dataclass(frozen=True)
class Pace:
    """What was heard of one download: (time, bytes that were safe then), the oldest first."""

    heard: tuple[tuple[float, int], ...] = ()

    def after(self, done: int, now: float) -> Pace:
        """With the news that `done` bytes are safe at `now`. Fewer than before: the download begins anew."""
        if self.heard and done < self.heard[-1][1]:
            return Pace(((now, done),))
        # One that is older than the window stays: what came since then came within it and a little more.
        first = next((at for at in range(len(self.heard) - 1, 0, -1) if self.heard[at][0] <= now - WINDOW_S), 0)
        return Pace((*self.heard[first:], (now, done)))

    def bytes_per_s(self, now: float) -> float:
        """Over the last minute or so, the silence since the last news included; 0: not known, or nothing comes."""
        if not self.heard:
            return 0.0
        recent = [one for one in self.heard if one[0] >= now - 2 * WINDOW_S]
        if not recent or now - recent[0][0] < _LEAST_S:
            return 0.0
        return (recent[-1][1] - recent[0][1]) / (now - recent[0][0])

    def remaining_s(self, total: int, now: float) -> int:
        """Until `total` bytes are safe, rounded up; 0: not known, or there already."""
        rate, left = self.bytes_per_s(now), total - (self.heard[-1][1] if self.heard else 0)
        if rate <= 0 or left <= 0 or left / rate > _LONGEST_S:
            return 0
        return -int(-left // rate)
