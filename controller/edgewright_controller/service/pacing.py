"""How fast bytes may go: a token bucket for each device and each site that has a limit. Pure: time is an argument.

A bucket takes everybody's bytes at once and says how long they must wait: who asks first goes first, and all that ask
of a site's bucket get on together.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from edgewright_controller.delivery.terms import Terms

# What a line that was idle may send at once, in seconds of its rate.
BURST_S: Final = 1.0
MAX_BUCKETS: Final = 20_000


class Bucket:
    """Fills with `rate` bytes a second, up to a burst; may be overdrawn, and then whoever takes from it waits."""

    def __init__(self, rate: int, now: float) -> None:
        self.rate = rate
        self._level, self._at = rate * BURST_S, now

    def take(self, size: int, now: float) -> float:
        """Take `size` bytes; the seconds to wait before they may go."""
        self._level = min(self._level + (now - self._at) * self.rate, self.rate * BURST_S) - size
        self._at = now
        return max(-self._level / self.rate, 0.0)


class Pacing:
    """The buckets of all devices and sites; those used longest ago are forgotten, and begin full."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()

    def wait_s(self, device: str, terms: Terms, size: int, now: float) -> float:
        """How long this device's next `size` bytes must wait, by its own limit and by its site's."""
        limits = ((("device", device), terms.rate), (("site", terms.site), terms.site_rate))
        return max((self._take(key, rate, size, now) for key, rate in limits if rate is not None), default=0.0)

    def _take(self, key: tuple[str, str], rate: int, size: int, now: float) -> float:
        bucket = self._buckets.get(key)
        if bucket is None or bucket.rate != rate:
            bucket = self._buckets[key] = Bucket(rate, now)
        self._buckets.move_to_end(key)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return bucket.take(size, now)
