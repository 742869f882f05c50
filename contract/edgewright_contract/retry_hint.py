"""When to ask again: what a refused call says in its trailing metadata, as gRPC's own retries spell it (gRFC A6)."""

from __future__ import annotations

import re
from typing import Final

KEY: Final = "grpc-retry-pushback-ms"
SHORTEST_S: Final = 0.1
# Beyond this a hint is no longer one; whoever waits so long asks again now and then.
LONGEST_S: Final = 600.0
_WHOLE: Final = re.compile(r"[0-9]{1,12}", re.ASCII)


def encoded(seconds: float) -> str:
    """The value that means so many seconds."""
    return str(round(max(seconds, 0.0) * 1000))


def decoded(value: str | bytes | None) -> float | None:
    """The seconds that a value means, from SHORTEST_S to LONGEST_S; None when it means none."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    if text is None or not _WHOLE.fullmatch(text):
        return None
    return min(max(int(text) / 1000, SHORTEST_S), LONGEST_S)
