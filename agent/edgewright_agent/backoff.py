"""How long to wait before trying again: doubling, bounded, and never two devices in step."""

from __future__ import annotations

import random


class Backoff:
    """Pauses in seconds: up to `first`, doubling up to `longest`, each with full jitter in its upper half."""

    def __init__(self, first: float = 0.5, longest: float = 60.0, chance: random.Random | None = None) -> None:
        self._first, self._longest = first, longest
        # Not for secrets: it only keeps a fleet from knocking at the same moment.
        self._chance = chance or random.Random()  # noqa: S311 jitter needs no cryptography
        self._failures = 0

    def pause(self, *, out_of_turn: bool = False) -> float:
        """The next pause; each call counts one more failure, but not that of a try `out_of_turn`: as long as before."""
        if not out_of_turn or not self._failures:
            self._failures += 1
        ceiling = min(self._first * 2.0 ** min(self._failures - 1, 30), self._longest)
        return ceiling * (0.5 + self._chance.random() / 2)

    def reset(self) -> None:
        """It worked: start small again."""
        self._failures = 0
