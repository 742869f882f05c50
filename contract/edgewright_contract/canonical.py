"""One spelling of a JSON value, so that its digest can name it.

Sorted keys, no blanks, ASCII escapes, no NaN or infinity: what Python's json writes with these
settings. Values are limited to what has one spelling in it (no floats whose text differs
between platforms are used in names; repr of a float is the shortest exact one everywhere).
"""

from __future__ import annotations

import json
from typing import Any


def encode(value: Any) -> bytes:
    """The canonical bytes of a JSON value.

    Raises ValueError for NaN and infinity, TypeError for what JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode("ascii")
