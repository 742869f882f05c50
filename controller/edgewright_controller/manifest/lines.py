"""On which line of a TOML text a key stands. For messages only: what cannot be found easily is not found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import tomli

_KEY = re.compile(
    r"""\s*((?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')(?:\s*\.\s*(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*'))*)\s*="""
)
_HEADER = re.compile(r"\s*\[[^\[\]\n]+\]")

KeyPath = tuple[str, ...]


def line_of(text: str, path: Sequence[str | int]) -> int:
    """The line, from 1, of the key at `path`, or of the nearest table or key above it that is found; 0 for none."""
    wanted = tuple(part for part in path if isinstance(part, str))
    places = _places(text)
    for length in range(len(wanted), 0, -1):
        if wanted[:length] in places:
            return places[wanted[:length]]
    return 0


def _places(text: str) -> dict[KeyPath, int]:
    places: dict[KeyPath, int] = {}
    table: KeyPath = ()
    closing = ""  # the quotes that end the multi-line text we are in
    for number, line in enumerate(text.splitlines(), start=1):
        if closing:
            closing = "" if closing in line else closing
            continue
        if header := _HEADER.match(line):
            table = _keys(header.group())
            found: KeyPath = table
        elif key := _KEY.match(line):
            found = table + _keys(key.group() + "0")
            rest = line[key.end() :].lstrip()
            closing = rest[:3] if rest[:3] in ('"""', "'''") and rest[:3] not in rest[3:] else ""
        else:
            continue
        for length in range(1, len(found) + 1):
            places.setdefault(found[:length], number)
    return places


def _keys(snippet: str) -> KeyPath:
    """The dotted key of a header or of `a.b.c = 0`, with TOML's own rules for quotes."""
    try:
        value: Any = tomli.loads(snippet)
    except tomli.TOMLDecodeError:
        return ()
    keys: list[str] = []
    while isinstance(value, Mapping) and value:
        key, value = next(iter(value.items()))
        keys.append(key)
    return tuple(keys)
