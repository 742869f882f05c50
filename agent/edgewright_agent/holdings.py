"""What of this device's artifacts is needed, looked into, or given up for room; `keeping.py` decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from edgewright_agent import keeping
from edgewright_agent.journal import DownloadJournal
from edgewright_agent.lifecycle_state import Lifecycle
from edgewright_agent.slots import Slots
from edgewright_agent.state_store import StateStore

# Each one that is looked into costs reading its block index.
_LOOKED_INTO: Final = 8


class Holdings:
    """Over the state as it is saved. All methods may be called from any thread; one act at a time calls them."""

    def __init__(self, store: StateStore, slots: Slots, journal: DownloadJournal, quota: int) -> None:
        """`quota`: bytes that all artifacts and downloads may take before those that nothing names go."""
        self._store, self._slots, self._journal, self._quota = store, slots, journal, quota

    def to_reuse(self, state: Lifecycle) -> list[str]:
        """Artifacts to look into for blocks: active, previous, then what was needed last. Raises StateDamaged."""
        known = [self._store.known(release) for release in (state.active, state.previous) if release]
        first = [one.release.artifact for one in known if one is not None]
        others = sorted(self._slots.holdings(), key=lambda one: one.needed_at, reverse=True)
        return list(dict.fromkeys([*first, *(one.name for one in others)]))[:_LOOKED_INTO]

    def collect(self, state: Lifecycle, checkpoint: Callable[[], None] | None = None) -> list[str]:
        """Remove what is not needed and has no place; the names. Raises StateDamaged, OSError."""
        needed = self._needed(state)
        self._slots.note_needed(needed)
        holdings = self._slots.holdings()
        gone = set(keeping.surplus(holdings, needed, self._quota))
        keep = needed | {one.name for one in holdings if one.name not in gone}
        removed = self._slots.collect(keep, checkpoint)
        self._forget(removed)
        self._store.forget_unused()
        return removed

    def make_room(self, state: Lifecycle) -> bool:
        """Give up the one that is the longest not needed; whether there was one. Raises StateDamaged, OSError."""
        needed, holdings = self._needed(state), self._slots.holdings()
        oldest = keeping.surplus(holdings, needed, -1)[:1]
        self._forget(self._slots.collect({one.name for one in holdings} - set(oldest)) if oldest else [])
        return bool(oldest)

    def spare_bytes(self) -> int:
        """Bytes that an artifact which comes may have besides what is free. Raises StateDamaged, OSError."""
        return keeping.spare(self._slots.holdings(), self._needed(Lifecycle()))

    def _needed(self, state: Lifecycle) -> set[str]:
        """By the state as it is saved now, too: a newer goal may have come since the act that asks began."""
        releases = self._store.load().releases | state.releases
        known = [one for one in map(self._store.known, sorted(releases)) if one is not None]
        return {one.release.artifact for one in known}

    def _forget(self, names: list[str]) -> None:
        for name in names:
            self._journal.clear(name)
