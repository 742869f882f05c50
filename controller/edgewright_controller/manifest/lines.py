"""On which line of a TOML text a key stands. For messages only: what cannot be found easily is not found."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
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
    best, depth = 0, 0
    for number, found in _keys_by_line(text):
        shared = _shared(found, wanted)
        if shared > depth:
            best, depth = number, shared
    return best


def key_at(text: str, line: int) -> KeyPath:
    """The key or table that is written on this line; empty when it cannot be told."""
    return next((found for number, found in _keys_by_line(text) if number == line), ())


def _shared(one: KeyPath, other: KeyPath) -> int:
    """How many parts at their beginning are the same."""
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


def _keys_by_line(text: str) -> Iterator[tuple[int, KeyPath]]:
    table: KeyPath = ()
    closing = ""  # the quotes that end the multi-line text we are in
    for number, line in enumerate(text.splitlines(), start=1):
        if closing:
            closing = "" if closing in line else closing
        elif header := _HEADER.match(line):
            table = _keys(header.group())
            yield number, table
        elif key := _KEY.match(line):
            yield number, table + _keys(key.group() + "0")
            rest = line[key.end() :].lstrip()
            closing = rest[:3] if rest[:3] in ('"""', "'''") and rest[:3] not in rest[3:] else ""


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
