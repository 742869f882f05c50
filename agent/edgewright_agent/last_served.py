"""What served last, in a file of its own: enough to serve it again when agent.sqlite cannot be read or written.

A device whose disk is full, or has lost a piece of the database, still has its model. The file is written after a
version took traffic, names its release, and carries its own sha256; what it names is verified before it is loaded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from edgewright_contract import canonical, digest, durable
from edgewright_contract.release import Release, ReleaseError, from_json

FILE: Final = "serving.json"
_MAX_BYTES: Final = 1 << 20


def note(state: Path, release: Release | None) -> None:
    """This serves from now on, None: nothing does. Writes only what is new. Raises OSError."""
    path = state / FILE
    if release is None:
        durable.unlink(path)
        return
    document = release.to_json()
    data = canonical.encode({"release": document, "sha256": digest.of_bytes(canonical.encode(document))})
    if not path.is_file() or path.read_bytes() != data:
        durable.write(path, data)


def read(state: Path) -> Release | None:
    """What served last; None when nothing did, or the file is not as it was written."""
    try:
        with (state / FILE).open("rb") as file:
            noted = json.loads(file.read(_MAX_BYTES))
        if digest.of_bytes(canonical.encode(noted["release"])) != noted["sha256"]:
            return None
        return from_json(noted["release"])
    except (OSError, ValueError, KeyError, TypeError, ReleaseError):
        return None
