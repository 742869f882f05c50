"""Two single rows of a device's trust, each with its sha256: the marks, as JSON, and the mandate that is in force."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from edgewright_agent.database import Database
from edgewright_agent.trust import Marks, Repository, RoleMark
from edgewright_contract import digest

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS trust_marks (
    one INTEGER PRIMARY KEY CHECK (one = 1), document TEXT NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trust_mandate (
    one INTEGER PRIMARY KEY CHECK (one = 1), document BLOB NOT NULL, sha256 TEXT NOT NULL);
"""


def write_marks(connection: sqlite3.Connection, new: Marks) -> None:
    """Put these in place of those before."""
    document = json.dumps(_encode(new), sort_keys=True)
    row = (document, digest.of_bytes(document.encode()))
    connection.execute("INSERT OR REPLACE INTO trust_marks VALUES (1, ?, ?)", row)


def marks(connection: sqlite3.Connection) -> Marks | None:
    """The marks; None when they are lost or damaged."""
    row = connection.execute("SELECT document, sha256 FROM trust_marks").fetchone()
    if row is None or not isinstance(row[0], str) or digest.of_bytes(row[0].encode()) != row[1]:
        return None
    return _decode(json.loads(row[0]))


def write_mandate(connection: sqlite3.Connection, document: bytes | None) -> None:
    """Put this mandate in place of the one before; None: none is in force any more."""
    connection.execute("DELETE FROM trust_mandate")
    if document is not None:
        row = (document, digest.of_bytes(document))
        connection.execute("INSERT INTO trust_mandate VALUES (1, ?, ?)", row)


def mandate(connection: sqlite3.Connection) -> bytes | None:
    """The mandate in force; None when there is none, or it is damaged."""
    row = connection.execute("SELECT document, sha256 FROM trust_mandate").fetchone()
    return row[0] if row is not None and isinstance(row[0], bytes) and digest.of_bytes(row[0]) == row[1] else None


def mandate_in(path: Path) -> bytes | None:
    """The mandate in force in the agent.sqlite at `path`, for whoever looks on. Raises StateDamaged."""
    database = Database(path, SCHEMA)
    try:
        with database.transaction() as connection:
            return mandate(connection)
    finally:
        database.close()


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
