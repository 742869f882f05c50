"""On which terms a device may download: how fast, when, and with whom it shares a line. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from edgewright_controller.rollout.window import Window, is_open, next_opening


@dataclass(frozen=True)
class Terms:
    """Rates are in bytes a second, None without a limit. `site` is empty for a device of none; `site_rate` is what all
    devices of the site have together. It may download while one of `windows` is open in `zone`; without windows,
    always."""

    rate: int | None = None
    site: str = ""
    site_rate: int | None = None
    windows: tuple[Window, ...] = ()
    zone: str = "UTC"

    def opens_in(self, now: float) -> float | None:
        """Seconds from `now` (Unix) until downloads may begin: 0.0 now, None never."""
        opening = next_opening(self.windows, self.zone, now)
        return None if opening is None else opening - now

    def is_open(self, now: float) -> bool:
        """Whether downloads may go on at `now` (Unix)."""
        return is_open(self.windows, self.zone, now)

    def words(self, now: float) -> str:
        """From when on downloads may begin, for a person: "not before 22:00 (Europe/Berlin)"."""
        wait_s = self.opens_in(now)
        if wait_s is None:
            return "never, by its window"
        at = datetime.fromtimestamp(now + wait_s, ZoneInfo(self.zone))
        day = f" on {at:%a %d %b}" if wait_s > 24 * 3600 else ""
        return f"not before {at:%H:%M}{day} ({self.zone})"
