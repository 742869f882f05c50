"""How the marks of trust are written down: JSON with its sha256, one row."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, Final

from edgewright_agent.trust import Marks, Repository, RoleMark
from edgewright_contract import digest

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS trust_marks (
    one INTEGER PRIMARY KEY CHECK (one = 1), document TEXT NOT NULL, sha256 TEXT NOT NULL);
"""


def write(connection: sqlite3.Connection, marks: Marks) -> None:
    """Put `marks` in place of those before."""
    document = json.dumps(_encode(marks), sort_keys=True)
    row = (document, digest.of_bytes(document.encode()))
    connection.execute("INSERT OR REPLACE INTO trust_marks VALUES (1, ?, ?)", row)


def read(connection: sqlite3.Connection) -> Marks | None:
    """The marks; None when they are lost or damaged."""
    row = connection.execute("SELECT document, sha256 FROM trust_marks").fetchone()
    if row is None or not isinstance(row[0], str) or digest.of_bytes(row[0].encode()) != row[1]:
        return None
    return _decode(json.loads(row[0]))


def _encode(marks: Marks) -> dict[str, Any]:
    roles = [[repository.value, role, mark.version, mark.keys] for (repository, role), mark in marks.roles.items()]
    return {
        "roles": sorted(roles),
        "generation": marks.generation,
        "said": marks.said,
        "epochs": dict(marks.epochs),
        "trusted_s": marks.trusted_time.timestamp(),
        "profile": marks.profile,
    }


def _decode(document: Any) -> Marks:
    marks = Marks(trusted_time=datetime.fromtimestamp(document["trusted_s"], timezone.utc))
    roles = {(Repository(where), role): RoleMark(version, keys) for where, role, version, keys in document["roles"]}
    return replace(
        marks,
        roles=roles,
        generation=document["generation"],
        said=document["said"],
        epochs=document["epochs"],
        profile=document.get("profile"),  # an agent before the mandate wrote none
    )
