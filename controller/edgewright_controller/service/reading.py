"""Whether whoever reads a download gets on with it. Pure: times are arguments.

Only the time that the reader takes counts: for each part it has `PATIENCE_S`, and what the part takes at the slowest
rate that is worth a stream. What it takes longer than that rate counts against its patience with the next part.
"""

from __future__ import annotations

from typing import Final

# The agent leaves a source that is slower than this, too.
SLOWEST_BYTES_PER_S: Final = 8 << 10
PATIENCE_S: Final = 30.0
# While others wait for a slot.
PATIENCE_IN_A_CROWD_S: Final = 5.0


class TooSlow(Exception):
    """The reader takes what is sent too slowly, or not at all."""


class Reading:
    """One reader's account."""

    def __init__(self, patience_s: float = PATIENCE_S) -> None:
        self._patience_s, self._behind_s = patience_s, 0.0

    def allowed_s(self, size: int, *, crowded: bool) -> float:
        """How long the reader may take for a part of `size` bytes."""
        patience_s = min(self._patience_s, PATIENCE_IN_A_CROWD_S) if crowded else self._patience_s
        return max(patience_s - self._behind_s, 0.0) + size / SLOWEST_BYTES_PER_S

    def took(self, seconds: float, size: int) -> None:
        """The part was taken after so many seconds."""
        self._behind_s = max(self._behind_s + seconds - size / SLOWEST_BYTES_PER_S, 0.0)
