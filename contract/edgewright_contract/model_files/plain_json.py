"""JSON as all readers understand it alike: UTF-8, and no key twice in a table."""

from __future__ import annotations

import json
from typing import Any


def loads(data: bytes) -> Any:
    """The document in `data`. Raises ValueError; the caller has bounded the size."""
    try:
        return json.loads(data.decode(), object_pairs_hook=_table)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of two values, one reader takes the first and another the last: then what was looked at is not what counts.
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"{key!r} is there twice")
        table[key] = value
    return table
