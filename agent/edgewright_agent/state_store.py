"""What the device remembers of its lifecycle, and the releases that it speaks of. Saved before each act.

Releases are kept by digest with the image target that was signed for them, so that the active version can be
started again after a power cut without asking anybody. Nothing is taken for what it is not when bits of it changed.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from edgewright_agent.database import Database, StateDamaged
from edgewright_agent.lifecycle_state import Fault, Goal, Lifecycle, Outcome, Step
from edgewright_contract import canonical, digest
from edgewright_contract.release import Release, ReleaseError, from_json
from edgewright_contract.targets import ImageTarget

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS lifecycle (id INTEGER PRIMARY KEY CHECK (id = 1), document TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS releases (digest TEXT PRIMARY KEY, release TEXT NOT NULL, target TEXT NOT NULL) STRICT;
"""

# Monotonic times mean nothing after a restart; `lifecycle.restore` makes new ones.
_NOT_SAVED: Final = frozenset({"deadline", "stalls_at", "retry_at"})
_ENUMS: Final[dict[str, type[Step] | type[Outcome] | type[Fault]]] = {
    "step": Step,
    "outcome": Outcome,
    "fault": Fault,
    "broken": Fault,
}


@dataclass(frozen=True)
class KnownRelease:
    """A release with the signed target of its artifact."""

    release: Release
    target: ImageTarget


class StateStore:
    """The tables `lifecycle` and `releases` of agent.sqlite."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. Raises StateDamaged."""
        self._path = path
        self._database = Database(path, _SCHEMA)

    def load(self) -> Lifecycle:
        """The state saved last; a fresh one on a new device. Raises StateDamaged."""
        with self._database.transaction() as connection:
            return self._loaded(connection)

    def _loaded(self, connection: sqlite3.Connection) -> Lifecycle:
        row = connection.execute("SELECT document FROM lifecycle").fetchone()
        if row is None:
            return Lifecycle()
        try:
            return _decoded(_opened(row[0]))
        except (ValueError, KeyError, TypeError) as error:
            raise StateDamaged(f"{self._path}: the saved lifecycle cannot be read: {error!r}; enrol again") from error

    def save(self, state: Lifecycle, release: KnownRelease | None = None) -> None:
        """Make `state` durable, together with the release that it now names. Raises StateDamaged."""
        with self._database.transaction() as connection:
            if release is not None:
                connection.execute(
                    "INSERT OR REPLACE INTO releases VALUES (?, ?, ?)",
                    (
                        release.release.digest,
                        canonical.encode(release.release.to_json()).decode(),
                        _sealed(asdict(release.target)),
                    ),
                )
            connection.execute("INSERT OR REPLACE INTO lifecycle VALUES (1, ?)", (_sealed(_encoded(state)),))

    def known(self, digest: str) -> KnownRelease | None:
        """The release of this digest, None when it was never assigned here or is forgotten. Raises StateDamaged."""
        with self._database.transaction() as connection:
            row = connection.execute("SELECT release, target FROM releases WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            return None
        try:
            known = KnownRelease(from_json(json.loads(row[0])), ImageTarget(**_opened(row[1])))
            if known.release.digest != digest:
                raise ValueError("it is another release")
            return known
        except (ReleaseError, ValueError, KeyError, TypeError) as error:
            raise StateDamaged(f"{self._path}: release {digest[:12]} cannot be read: {error}; enrol again") from error

    def targets(self) -> dict[str, ImageTarget]:
        """What was signed of each artifact that a known release names, by its bundle. Raises StateDamaged."""
        with self._database.transaction() as connection:
            digests = [row[0] for row in connection.execute("SELECT digest FROM releases")]
        known = [one for one in map(self.known, digests) if one is not None]
        return {one.target.bundle: one.target for one in known}

    def forget_unused(self) -> None:
        """Forget the releases that the saved lifecycle does not speak of. Raises StateDamaged.

        One transaction, so that a goal which is saved at this very moment keeps its release.
        """
        with self._database.transaction() as connection:
            used = self._loaded(connection).releases
            known = [row[0] for row in connection.execute("SELECT digest FROM releases")]
            connection.executemany("DELETE FROM releases WHERE digest = ?", [(d,) for d in known if d not in used])

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _sealed(document: dict[str, Any]) -> str:
    """As JSON, with the sha256 of the rest in it: SQLite does not notice a bit that changed in a row."""
    return json.dumps({**document, "sha256": digest.of_bytes(canonical.encode(document))})


def _opened(text: str) -> dict[str, Any]:
    """Raises ValueError, KeyError, TypeError when it is not as it was written."""
    document = json.loads(text)
    if document.pop("sha256") != digest.of_bytes(canonical.encode(document)):
        raise ValueError("changed since it was written")
    return dict(document)


def _encoded(state: Lifecycle) -> dict[str, Any]:
    document = {key: value for key, value in asdict(state).items() if key not in _NOT_SAVED}
    document.update({key: getattr(state, key).value for key in _ENUMS})
    document["retries"] = state.retry_at != float("inf")
    return document


def _decoded(document: dict[str, Any]) -> Lifecycle:
    retry_at = 0.0 if document.pop("retries") else float("inf")
    known = {field.name for field in fields(Lifecycle)}
    values = {key: value for key, value in document.items() if key in known}
    values.update({key: kind(values[key]) for key, kind in _ENUMS.items()})
    values["held"] = tuple(values["held"])
    values["pending"] = Goal(**values["pending"]) if values["pending"] else None
    return Lifecycle(**values, retry_at=retry_at)
