"""Membership in a set of any size. A database takes only so many parameters (SQLite 32,766); a fleet may be larger."""

from __future__ import annotations

import json
from collections.abc import Iterable

from sqlalchemy import ColumnElement, func, select


def among(column: ColumnElement[str], values: Iterable[str]) -> ColumnElement[bool]:
    """Whether `column` is one of `values`, which travel as one parameter."""
    listed = func.json_each(json.dumps(list(values))).table_valued("value")
    return column.in_(select(listed.c.value))
