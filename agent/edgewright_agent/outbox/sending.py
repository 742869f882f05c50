"""Which envelope goes out next. Values in, values out: no clock, no disk, no network.

What was just made goes out at once. What stood in the spool when the connection came up, the backlog, follows
from the oldest on, a few a second, so that a fleet that returns after an outage does not bury its controller.
The broker's confirmation is not the end: a broker can lose what it confirmed. Only the controller's word that
a number is stored settles it; what stays unsettled for long is sent again, and the controller drops doubles.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

_MAX_LIVE = 1_000
_LOOK_AHEAD = 50


@dataclass(frozen=True)
class Pace:
    """Bounds on what is sent: messages on their way, backlog messages a second, seconds until sent again."""

    in_flight: int = 20
    backlog_per_s: float = 5.0
    again_after_s: float = 300.0


class Sending:
    """What was sent on the connection that stands, and what is still to be sent. Times are monotonic seconds."""

    def __init__(self, pace: Pace):
        self._pace = pace
        self._live: deque[int] = deque()
        self._on_the_way: set[int] = set()
        self._confirmed: dict[int, float] = {}
        self._cursor = 0  # the backlog is what lies above the cursor and not above the end
        self._end = 0
        self._not_before = 0.0

    def connected(self, live: Sequence[int], end: int) -> None:
        """A connection came up: `live` goes first, all else up to `end` is backlog. Earlier confirmations are void."""
        self._live = deque(live)
        self._on_the_way.clear()
        self._confirmed.clear()
        self._cursor, self._end = 0, end

    def made(self, seq: int) -> None:
        """An envelope was made while connected."""
        if len(self._live) < _MAX_LIVE:
            self._live.append(seq)
        else:
            self._cursor, self._end = min(self._cursor, seq - 1), max(self._end, seq)

    def confirmed(self, seq: int, now: float) -> None:
        """The broker has it."""
        if seq in self._on_the_way:
            self._on_the_way.discard(seq)
            self._confirmed[seq] = now

    def settled(self, seq: int, now: float) -> None:
        """The controller has stored everything up to `seq`. What it should have by now, and has not, goes again."""
        self._confirmed = {number: when for number, when in self._confirmed.items() if number > seq}
        late = [number for number, when in self._confirmed.items() if now - when > self._pace.again_after_s]
        for number in late:
            del self._confirmed[number]
        if late:
            self._cursor, self._end = min(self._cursor, min(late) - 1), max(self._end, *late)

    def choose(self, now: float, after: Callable[[int, int], Sequence[int]]) -> int | None:
        """The number to send now, None when there is nothing to send at this moment.

        `after(seq, limit)` gives the numbers in the spool above `seq`, in order.
        """
        if len(self._on_the_way) >= self._pace.in_flight:
            return None
        while self._live:
            seq = self._live.popleft()
            if seq not in self._on_the_way:
                return self._take(seq)
        if now < self._not_before:
            return None
        while self._cursor < self._end:
            seqs = after(self._cursor, _LOOK_AHEAD)
            for seq in seqs:
                if seq > self._end:
                    break
                self._cursor = seq
                if seq not in self._on_the_way and seq not in self._confirmed:
                    self._not_before = now + 1 / self._pace.backlog_per_s
                    return self._take(seq)
            else:
                if seqs:
                    continue
            self._cursor = self._end
        return None

    def refused(self, seq: int) -> None:
        """The link did not take it: it is not on its way. The coming connection starts over."""
        self._on_the_way.discard(seq)

    def due_s(self, now: float) -> float | None:
        """Seconds until `choose` may have something without anything else happening; None: it will not."""
        if len(self._on_the_way) >= self._pace.in_flight:
            return None
        if self._live:
            return 0.0
        return max(0.0, self._not_before - now) if self._cursor < self._end else None

    def _take(self, seq: int) -> int:
        self._confirmed.pop(seq, None)
        self._on_the_way.add(seq)
        return seq
