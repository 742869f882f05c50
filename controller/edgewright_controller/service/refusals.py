"""Calls that were refused, in the log: whoever tries what it may not do is seen, and cannot fill a disk by trying.

One line a caller a minute; the next line says how many were left out. Callers have certificates of the fleet, so there
are no more of them than it has issued; those of another making count as one.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime, timedelta
from typing import Final

EVERY: Final = timedelta(minutes=1)
MAX_CALLERS: Final = 1024


class Refusals:
    """Which refusals are worth a line. Keeps the newest `MAX_CALLERS` callers."""

    def __init__(self) -> None:
        self._said: OrderedDict[str, tuple[datetime, int]] = OrderedDict()

    def line(self, caller: str, now: datetime) -> int | None:
        """How many refusals of `caller` had no line since its last one; None when this one has none either."""
        at, left_out = self._said.get(caller, (None, 0))
        if at is not None and now - at < EVERY:
            self._said[caller] = (at, left_out + 1)
            return None
        self._said[caller] = (now, 0)
        self._said.move_to_end(caller)
        while len(self._said) > MAX_CALLERS:
            self._said.popitem(last=False)
        return left_out
