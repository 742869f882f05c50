"""What the gate learns once and needs again, as small JSON documents beside the other intermediates."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from edgewright_contract import canonical, digest
from edgewright_controller.compile.child import StageFailed
from edgewright_controller.compile.intermediates import Intermediates


def name(suffix: str, shaped_by: Mapping[str, Any]) -> str:
    """The file's name, from everything that shapes what is in it."""
    return f"{digest.of_bytes(canonical.encode(shaped_by))}.{suffix}"


async def document(
    intermediates: Intermediates, file: str, make: Callable[[], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    """The document of this name, made by `make()` if it is not here. Raises what `make` raises, and StageFailed."""

    async def write(path: Path) -> None:
        path.write_text(json.dumps(await make()))

    async with intermediates.hold(file, write) as path:
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise StageFailed("gate", f"{path}: is damaged; remove it and apply again", None, ()) from error
    assert isinstance(found, dict)
    return found
