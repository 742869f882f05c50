"""The devices of opened waves that wait for their offer: for their window, or for their turn.

They are kept by what they wait for, so that a fleet of thousands asks few clocks, and by their place in the rollout,
so that a restart offers in the same order.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from zoneinfo import ZoneInfoNotFoundError

from edgewright_controller.rollout import window
from edgewright_controller.rollout.model import RolloutTarget
from edgewright_controller.rollout.window import Window


class Pending:
    """Places in the rollout's order of devices."""

    def __init__(self, targets: Sequence[RolloutTarget]) -> None:
        """Nobody waits at first. `targets`: all of the rollout's, in order."""
        known: dict[tuple[tuple[Window, ...], str], int] = {}
        self._group_of = [known.setdefault((t.windows, t.zone if t.windows else ""), len(known)) for t in targets]
        self._groups = list(known)
        self._waiting: list[list[int]] = [[] for _ in known]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, place: int) -> None:
        """Let the device at `place` wait."""
        insort(self._waiting[self._group_of[place]], place)
        self._count += 1

    def drop(self, place: int) -> None:
        """It waits no longer."""
        places = self._waiting[self._group_of[place]]
        del places[bisect_left(places, place)]
        self._count -= 1

    def in_turn(self, now: float, also: Iterable[int]) -> Iterator[int]:
        """Those whose window is open at `now` (Unix seconds), and of `also`, in order; whoever does both comes twice.
        Nothing may be added or dropped meanwhile."""
        opened = [group for group, places in enumerate(self._waiting) if places and self._is_open(group, now)]
        asked = dict.fromkeys(opened, True)
        come = []
        for place in sorted(also):
            group = self._group_of[place]
            if group not in asked:
                asked[group] = self._is_open(group, now)
            if asked[group]:
                come.append(place)
        return heapq.merge(*(self._waiting[group] for group in opened), come)

    def next_opening(self, now: float) -> float | None:
        """When the next window of a device that waits opens, `now` if one is open; None: never, or nobody waits."""
        openings = [self._opens(group, now) for group, places in enumerate(self._waiting) if places]
        return min((at for at in openings if at is not None), default=None)

    def _is_open(self, group: int, now: float) -> bool:
        try:
            return window.is_open(*self._groups[group], now) if self._groups[group][0] else True
        except ZoneInfoNotFoundError:
            # The zone was known when the manifest was read, and the host's time zones were exchanged since. Who is
            # never sure of a device's night leaves it alone; the rollout's patience ends the wait.
            return False

    def _opens(self, group: int, now: float) -> float | None:
        if not self._groups[group][0]:
            return now
        try:
            return window.next_opening(*self._groups[group], now)
        except ZoneInfoNotFoundError:
            return None
