"""Where a device keeps what it trusts: metadata bytes and marks, in agent.sqlite, changed in one transaction.

Each row carries the sha256 of its bytes, and of what they are. Metadata that does not match it counts as not held, and
the controller sends it again; the marks still refuse anything older. Damaged marks are never replaced by fresh ones.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root

from edgewright_agent import trust, trust_mandate, trust_rows
from edgewright_agent.database import Database, StateDamaged
from edgewright_agent.trust import Assignment, Marks, Reason, Repository, TrustRefused
from edgewright_agent.trust_round import HeldFile, Round, Trusted
from edgewright_contract import digest
from edgewright_contract.targets import ImageTarget

_FOLDER_PREFIX: Final = "trust-round-"
_SCHEMA: Final = (
    """
CREATE TABLE IF NOT EXISTS trust_anchor (
    repository INTEGER PRIMARY KEY, content BLOB NOT NULL, sha256 TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trust_metadata (
    repository INTEGER NOT NULL, role TEXT NOT NULL, version INTEGER NOT NULL,
    content BLOB NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (repository, role, version));
"""
    + trust_rows.SCHEMA
)


class OtherAnchor(Exception):
    """This state folder trusts other roots: it was enrolled with another controller."""


class Named(Protocol):
    """Who the device is."""

    @property
    def device(self) -> str:
        """The device's id."""

    @property
    def fleet(self) -> str:
        """The fleet's name."""


@dataclass(frozen=True)
class HeldVersion:
    """The version of one role that the device holds."""

    repository: Repository
    role: str
    version: int


@dataclass(frozen=True)
class _Settled:
    """What a round was about, and what came of it. The same again gives the same, until the first expiry."""

    about: tuple[object, ...]
    until: datetime
    assignment: Assignment


class TrustStore:
    """The device's trust. One process at a time, guarded by the state folder's lock; any of its threads."""

    def __init__(self, path: Path, database: Database):
        self._path, self._database = path, database
        self._lock = threading.Lock()
        self._settled: _Settled | None = None
        for leftover in path.parent.glob(f"{_FOLDER_PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    @classmethod
    def create(cls, path: Path, image_root: bytes, director_root: bytes, *, not_before: datetime) -> TrustStore:
        """The store in `path`, which trusts these roots; made when absent, as it stands when it trusts them already.

        `not_before`: a time that has surely passed, such as when the device's certificate was issued. Raises
        TrustRefused when a root does not vouch for itself, OtherAnchor, StateDamaged.
        """
        anchors = {Repository.IMAGE: image_root, Repository.DIRECTOR: director_root}
        for repository, content in anchors.items():
            _check_root(repository, content)
        database = Database(path, _SCHEMA)
        with database.transaction() as connection:
            rows = {row[0]: row[1] for row in connection.execute("SELECT repository, content FROM trust_anchor")}
            if rows and rows != {repository.value: content for repository, content in anchors.items()}:
                raise OtherAnchor(
                    f"{path} belongs to a device of another controller;"
                    " give this device a state folder of its own, or remove the old one"
                )
            if not rows:
                for repository, content in anchors.items():
                    row = (repository.value, content, digest.of_bytes(content))
                    connection.execute("INSERT INTO trust_anchor VALUES (?, ?, ?)", row)
                trust_rows.write_marks(connection, Marks(trusted_time=not_before))
        return cls(path, database)

    @classmethod
    def open(cls, path: Path) -> TrustStore:
        """The store in `path`. Raises StateDamaged when there is none, or its anchors or marks are damaged."""
        if not path.exists():
            raise StateDamaged(f"{path} is missing; enrol the device: edgewright-agent enroll --token …")
        store = cls(path, Database(path, _SCHEMA))
        with store._database.transaction() as connection:
            store._anchors(connection)
            store._marks(connection)
        return store

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def held(self) -> list[HeldVersion]:
        """What the device holds whole, for the check-in's request. Raises StateDamaged."""
        with self._database.transaction() as connection:
            anchors = self._anchors(connection)
            files = self._files(connection, anchors)
        versions: list[HeldVersion] = []
        for repository in Repository:
            roots = _root_version(anchors[repository])
            for file in files[repository]:
                if file.role == "root":
                    roots = max(roots, file.version)
                else:
                    versions.append(HeldVersion(repository, file.role, file.version))
            versions.append(HeldVersion(repository, "root", roots))
        return versions

    def marks(self) -> Marks:
        """What only rises, as it stands. Raises StateDamaged."""
        with self._database.transaction() as connection:
            return self._marks(connection)

    def apply(
        self,
        files: Mapping[tuple[Repository, str], bytes],
        identity: Named,
        now: datetime,
        holds: Collection[str] = (),
        accepted_hw_classes: Collection[str] | None = None,
    ) -> Assignment:
        """What the device should have, by what a check-in answered (`files`, maybe empty) and what is held.

        Bytes and marks are kept only when all of it is accepted. Raises TrustRefused and MetadataStale, which block
        changes but never serving; StateDamaged; OSError.
        """
        with self._lock, contextlib.ExitStack() as stack:
            with self._database.transaction() as connection:
                anchors, marks = self._anchors(connection), self._marks(connection)
                held = self._files(connection, anchors)
            reference = trust.reference_time(marks, now)
            who = (
                identity.device,
                identity.fleet,
                None if accepted_hw_classes is None else frozenset(accepted_hw_classes),
            )
            moved = reference - marks.trusted_time >= trust.TIME_STEP
            if not (files or moved) and (settled := self._still(_about(who, held, marks), reference)):
                return replace(settled, held=bool(settled.release and settled.release.digest in holds))
            rounds = {}
            for repository in Repository:
                made = tempfile.TemporaryDirectory(prefix=_FOLDER_PREFIX, dir=self._path.parent)
                rounds[repository] = Round(
                    repository,
                    anchors[repository],
                    held=held[repository],
                    answer={name: content for (where, name), content in files.items() if where == repository},
                    reference=reference,
                    folder=Path(stack.enter_context(made)),
                )
            director = rounds[Repository.DIRECTOR].statement()
            chosen = trust.wanted(director)
            image = rounds[Repository.IMAGE].look_up(chosen.path if chosen else None)
            assignment = trust.decide(
                image,
                director,
                device=identity.device,
                fleet=identity.fleet,
                accepted_hw_classes=accepted_hw_classes,
                marks=marks,
                holds=holds,
            )
            trusted = {repository: round_.trusted() for repository, round_ in rounds.items()}
            roles = {key: mark for each in trusted.values() for key, mark in each.roles.items()}
            advanced = trust.advance(marks, roles, assignment, reference)
            self._commit(trusted, held, marks, advanced)
            kept = {repository: each.files for repository, each in trusted.items()}
            until = min(each.until for each in trusted.values())
            self._settled = _Settled(_about(who, kept, advanced), until, assignment)
            return assignment

    def apply_mandate(
        self,
        document: bytes,
        identity: Named,
        now: datetime,
        holds: Collection[str] = (),
        accepted_hw_classes: Collection[str] | None = None,
    ) -> Assignment:
        """What the device should have, by an offline mandate's file. The same file again says the same again.

        The file, the image repository's documents in it and the marks are kept only when all of it is accepted.
        Raises TrustRefused and MetadataStale, which block changes but never serving; StateDamaged.
        """
        with self._lock:
            with self._database.transaction() as connection:
                anchors, marks = self._anchors(connection), self._marks(connection)
                held = self._files(connection, anchors)[Repository.IMAGE]
            reference = trust.reference_time(marks, now)
            checked = trust_mandate.check(document, anchors[Repository.IMAGE], held, reference)
            assignment = trust.decide(
                checked.image,
                trust.mandated(checked.mandate, checked.targets, identity.device, marks),
                device=identity.device,
                fleet=identity.fleet,
                accepted_hw_classes=accepted_hw_classes,
                marks=marks,
                holds=holds,
            )
            trust.check_profile(checked.mandate, assignment)
            # A mandate lives for months. So the clock alone moves no time that is trusted, as a wild one would lock
            # the device out for as long: only as far as the signers say that time has come.
            advanced = trust.advance(marks, checked.roles, assignment, min(reference, checked.mandate.issued))
            self._commit_mandate(document, checked.files, advanced)
            return assignment

    def mandate(self) -> bytes | None:
        """The mandate that was accepted last, as long as nothing newer was. Raises StateDamaged."""
        with self._database.transaction() as connection:
            return trust_rows.mandate(connection)

    def activated(self, target: ImageTarget) -> None:
        """Remember that `target` took traffic: artifacts of its model with a lower release epoch are refused from now.

        Raises StateDamaged.
        """
        with self._lock, self._database.transaction() as connection:
            marks = self._marks(connection)
            advanced = trust.activated(marks, target)
            if advanced != marks:
                trust_rows.write_marks(connection, advanced)

    def _still(self, about: tuple[object, ...], reference: datetime) -> Assignment | None:
        """What the last round came to, when another one now would come to the same.

        Checking signatures again at each idle check-in would be most of what an idle agent costs.
        """
        settled = self._settled
        same = settled is not None and settled.about == about and reference < settled.until
        return settled.assignment if settled and same else None

    def _commit(
        self,
        trusted: Mapping[Repository, Trusted],
        held: Mapping[Repository, tuple[HeldFile, ...]],
        before: Marks,
        after: Marks,
    ) -> None:
        if before == after and all(set(trusted[each].files) == set(held[each]) for each in Repository):
            return
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM trust_metadata")
            for repository, round_ in trusted.items():
                _insert(connection, repository, round_.files)
            if after.generation != before.generation:
                trust_rows.write_mandate(connection, None)
            trust_rows.write_marks(connection, after)

    def _commit_mandate(self, document: bytes, files: tuple[HeldFile, ...], after: Marks) -> None:
        with self._database.transaction() as connection:
            if self._marks(connection) == after and trust_rows.mandate(connection) == document:
                return
            replaced = [(Repository.IMAGE.value, role) for role in {file.role for file in files}]
            connection.executemany("DELETE FROM trust_metadata WHERE repository = ? AND role = ?", replaced)
            _insert(connection, Repository.IMAGE, files)
            trust_rows.write_mandate(connection, document)
            trust_rows.write_marks(connection, after)

    def _anchors(self, connection: sqlite3.Connection) -> dict[Repository, bytes]:
        rows = connection.execute("SELECT repository, content, sha256 FROM trust_anchor").fetchall()
        known = {each.value: each for each in Repository}
        anchors = {known[row[0]]: row[1] for row in rows if row[0] in known and _whole(row[1], row[2])}
        if set(anchors) != set(Repository):
            raise StateDamaged(f"{self._path}: the roots of trust are lost or damaged; enrol the device again")
        return anchors

    def _files(
        self, connection: sqlite3.Connection, anchors: Mapping[Repository, bytes]
    ) -> dict[Repository, tuple[HeldFile, ...]]:
        rows = connection.execute("SELECT repository, role, version, content, sha256 FROM trust_metadata").fetchall()
        files: dict[Repository, tuple[HeldFile, ...]] = {}
        for repository in Repository:
            mine = [row for row in rows if row[0] == repository.value]
            whole = [HeldFile(*row[1:4]) for row in mine if _seal(*row[:4]) == row[4]]
            files[repository] = _unbroken(whole, _root_version(anchors[repository]))
        return files

    def _marks(self, connection: sqlite3.Connection) -> Marks:
        marks = trust_rows.marks(connection)
        if marks is None:
            raise StateDamaged(f"{self._path}: the marks of trust are lost or damaged; enrol the device again")
        return marks


def _insert(connection: sqlite3.Connection, repository: Repository, files: tuple[HeldFile, ...]) -> None:
    named = [(repository.value, file.role, file.version, file.content) for file in files]
    rows = [(*row, _seal(*row)) for row in named]
    connection.executemany("INSERT INTO trust_metadata VALUES (?, ?, ?, ?, ?)", rows)


def _about(who: object, files: Mapping[Repository, tuple[HeldFile, ...]], marks: Marks) -> tuple[object, ...]:
    return who, {repository: frozenset(held) for repository, held in files.items()}, marks


def _seal(repository: Any, role: Any, version: Any, content: Any) -> str:
    """The sha256 of a file's row; empty when it cannot be one."""
    if not isinstance(content, bytes):
        return ""
    return digest.of_bytes(f"{repository} {role} {version}\n".encode() + content)


def _whole(content: Any, sha256: Any) -> bool:
    return isinstance(content, bytes) and digest.of_bytes(content) == sha256


def _unbroken(files: list[HeldFile], anchor: int) -> tuple[HeldFile, ...]:
    """Without roots above a missing one: from the anchor's version the client walks them one by one."""
    roots = {file.version for file in files if file.role == "root"}
    version = anchor
    while version + 1 in roots:
        version += 1
    return tuple(file for file in files if file.role != "root" or file.version <= version)


def _check_root(repository: Repository, content: bytes) -> None:
    try:
        metadata: Metadata[Any] = Metadata.from_bytes(content)
        if not isinstance(metadata.signed, Root):
            raise TrustRefused(Reason.UNVERIFIED, f"the {repository.name.lower()} root is metadata of another role")
        metadata.signed.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except RepositoryError as error:
        text = f"the {repository.name.lower()} root does not vouch for itself: {error}"
        raise TrustRefused(Reason.UNVERIFIED, text) from error


def _root_version(anchor: bytes) -> int:
    version = Metadata.from_bytes(anchor).signed.version
    assert isinstance(version, int)
    return version
