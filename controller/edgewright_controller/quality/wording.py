"""Texts and chats whose tokens and rendering must be the source's. Pure but for reading them.

raw.json has texts with special tokens, digits, several scripts, control characters and emoji, by name; chats.json has
lists of messages, by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache

from edgewright_contract import canonical, digest
from edgewright_controller.quality.mix import FOLDER

Messages = Sequence[Mapping[str, str]]


@cache
def texts() -> Mapping[str, str]:
    """The raw texts by name. Raises OSError."""
    found: dict[str, str] = json.loads((FOLDER / "raw.json").read_bytes())
    return found


@cache
def chats() -> Mapping[str, Messages]:
    """The chats by name, each a list of messages with `role` and `content`. Raises OSError."""
    found: dict[str, Messages] = json.loads((FOLDER / "chats.json").read_bytes())
    return found


@cache
def digest_of_all() -> str:
    """The sha256 that names these texts and chats."""
    return digest.of_bytes(canonical.encode({"texts": texts(), "chats": chats()}))
