"""Times as the ledger and the wire have them."""

from __future__ import annotations

from datetime import datetime


def unix_ms(time: datetime) -> int:
    """Whole milliseconds since 1970, in UTC. `time` has a time zone."""
    return int(time.timestamp() * 1000)
