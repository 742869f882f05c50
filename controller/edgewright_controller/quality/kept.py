"""What the gate learns once and needs again, as small JSON documents beside the other intermediates."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from edgewright_contract import canonical, digest
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.intermediates import Intermediates


def name(suffix: str, shaped_by: Mapping[str, Any]) -> str:
    """The file's name, from everything that shapes what is in it."""
    return f"{digest.of_bytes(canonical.encode(shaped_by))}.{suffix}"


async def document(
    intermediates: Intermediates, file: str, make: Callable[[], Awaitable[dict[str, Any]]], keys: Collection[str]
) -> dict[str, Any]:
    """The document of this name, which has these `keys`; made by `make()` if it is not here, or is none any more.

    Raises what `make` raises, and StageFailed when what was just made lacks a key."""

    async def write(path: Path) -> None:
        path.write_text(json.dumps(await make()))

    def sound(path: Path) -> bool:
        return _read(path, keys) is not None

    async with intermediates.hold(file, write, sound) as path:
        found = _read(path, keys)
    if found is None:
        raise StageFailed("gate", f"a stage gave figures that make no sense: not all of {', '.join(keys)}", None, ())
    return found


def _read(path: Path, keys: Collection[str]) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return None
    return found if isinstance(found, dict) and found.keys() >= set(keys) else None
