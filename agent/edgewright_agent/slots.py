"""Where artifacts stand on a device's disk.

    STATE/artifacts/<bundle digest>/…        whole and verified, read-only
    STATE/artifacts/<bundle digest>.bundle   its list of files
    STATE/artifacts/<bundle digest>.index    how they were cut into blocks, if it is known
    STATE/artifacts/<bundle digest>.damaged  an artifact that is not served any more; its sound blocks are still of use
    STATE/partial/<bundle digest>/           what is being fetched, kept over restarts

Which of them is active, previous or staged is the lifecycle's to say; it names releases, and releases name
artifacts. A folder gets its final name only when it is whole, and loses it before the first file is removed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Final

from edgewright_agent.keeping import Holding
from edgewright_agent.partial_files import keep_only
from edgewright_contract import block_index, digest, durable, plain_file
from edgewright_contract.block_index import MAX_INDEX_BYTES, BlockIndex, BlockIndexError
from edgewright_contract.bundle import MAX_BUNDLE_BYTES, Bundle, BundleError, from_folder, parse

_TRASH: Final = ".removed-"
_BUNDLE: Final = ".bundle"
_INDEX: Final = ".index"
_DAMAGED: Final = ".damaged"


class ArtifactDamaged(Exception):
    """An artifact on this disk is not what was verified when it came. The text names the file."""


class Slots:
    """The folders `artifacts` and `partial` below the agent's state."""

    def __init__(self, state: Path, *, clear: bool = True) -> None:
        """Make the folders, and clear away what a power cut left of removals and of documents. Raises OSError.

        Without `clear`, nothing is touched, for whoever only looks while an agent runs.
        """
        self._artifacts, self._partial = state / "artifacts", state / "partial"
        for folder in (self._artifacts, self._partial):
            durable.make_folder(folder)
            for leftover in folder.glob(".*") if clear else ():
                _remove_tree(leftover)

    def artifact(self, bundle: str) -> Path:
        """Where the whole artifact stands, or will."""
        return self._artifacts / bundle

    def partial(self, bundle: str) -> Path:
        """Where the artifact is being fetched to."""
        return self._partial / bundle

    def make_partial(self, bundle: str) -> Path:
        """The same, and it is there: a folder, not a link to one. Raises OSError."""
        return plain_file.make_folders_below(self._partial, bundle)

    def document(self, bundle: str) -> Path:
        """Where the artifact's bundle document stands."""
        return self._artifacts / f"{bundle}{_BUNDLE}"

    def index_document(self, bundle: str) -> Path:
        """Where the artifact's block index stands, if it is kept."""
        return self._artifacts / f"{bundle}{_INDEX}"

    def has(self, bundle: str) -> bool:
        """Whether the artifact is here under its final name."""
        return self.artifact(bundle).is_dir() and self.document(bundle).is_file()

    def folder(self, name: str) -> Path | None:
        """Where files of this artifact stand that may be copied from, whole or damaged; None: nowhere."""
        folders = [self.artifact(name), self._set_aside(name)]
        return next((folder for folder in folders if folder.is_dir()), None)

    def names(self) -> list[str]:
        """All artifacts that are here whole, as far as is known."""
        return sorted(path.name for path in self._artifacts.iterdir() if digest.is_sha256(path.name) and path.is_dir())

    def bundle(self, name: str) -> Bundle:
        """The list of files of an artifact that is here. Raises ArtifactDamaged."""
        document = self.document(name)
        try:
            if document.stat().st_size > MAX_BUNDLE_BYTES:
                raise ArtifactDamaged(f"{document}: too large for a list of files")
            data = document.read_bytes()
            if digest.of_bytes(data) != name:
                raise ArtifactDamaged(f"{document}: changed since it was verified")
            return parse(data)
        except (OSError, BundleError) as error:
            raise ArtifactDamaged(f"{document}: {error}") from error

    def index(self, name: str) -> BlockIndex | None:
        """How the artifact's files were cut, if that is here and legible.

        Nobody vouches for it once it is on this disk: it says where to look, never what is right.
        """
        try:
            with open(self.index_document(name), "rb") as file:
                return block_index.parse(file.read(MAX_INDEX_BYTES + 1), self.bundle(name))
        except (OSError, BlockIndexError, ArtifactDamaged):
            return None

    def files(self, name: str) -> dict[str, Path]:
        """Path in the artifact → where it stands, by its list. Raises ArtifactDamaged."""
        return {file.path: self.artifact(name) / file.path for file in self.bundle(name).files}

    def verify(self, name: str, checkpoint: Callable[[], None] | None = None) -> None:
        """Hash every file again. Raises ArtifactDamaged, which names the first file that is not as it should be.

        `checkpoint` is called again and again meanwhile, and may raise to end it.
        """
        wanted = {file.path: file for file in self.bundle(name).files}
        folder = self.artifact(name)
        try:
            found = {file.path: file for file in from_folder(folder, checkpoint).files}
        except (OSError, BundleError) as error:
            raise ArtifactDamaged(f"{folder}: {error}") from error
        for path in sorted(wanted.keys() | found.keys()):
            if path not in found:
                raise ArtifactDamaged(f"{folder / path}: missing")
            if found[path] != wanted.get(path):
                what = "changed since it was verified" if path in wanted else "does not belong to the artifact"
                raise ArtifactDamaged(f"{folder / path}: {what}")
            if not self.is_ours(folder / path):
                raise ArtifactDamaged(f"{folder / path}: has another name outside of the artifacts, to be changed by")

    def is_ours(self, path: Path) -> bool:
        """Whether it is a plain file whose every name (hard link) is among the artifacts or downloads here.

        Artifacts share equal files. A name elsewhere would let its owner write into an artifact later, past the
        folder's protection and after every check.
        """
        try:
            found = path.lstat()
            if not stat.S_ISREG(found.st_mode):
                return False
            return found.st_nlink == 1 or self._names()[found.st_dev, found.st_ino] >= found.st_nlink
        except FileNotFoundError:
            return False

    def holdings(self) -> list[Holding]:
        """Everything that takes room here, one entry for an artifact and its download. Raises OSError."""
        files: dict[str, dict[tuple[int, int], int]] = {}
        needed_at: dict[str, float] = {}
        for root in (self._artifacts, self._partial):
            for path in root.iterdir():
                name, _, _ = path.name.partition(".")
                if digest.is_sha256(name):
                    held = files.setdefault(name, {})
                    for found in _statuses(path):
                        held[found.st_dev, found.st_ino] = max(getattr(found, "st_blocks", 0) * 512, found.st_size)
                    with contextlib.suppress(FileNotFoundError):
                        needed_at[name] = max(needed_at.get(name, 0.0), path.lstat().st_mtime)
        return [Holding(name, held, needed_at.get(name, 0.0)) for name, held in sorted(files.items())]

    def note_needed(self, names: Collection[str]) -> None:
        """Remember that these are needed now, for the order in which the others go. Raises OSError."""
        for name in names:
            for path in (self.document(name), self.partial(name)):
                if path.exists():
                    os.utime(path)

    def _names(self) -> Counter[tuple[int, int]]:
        """How many names each file here has, by device and inode."""
        names: Counter[tuple[int, int]] = Counter()
        for root in (self._artifacts, self._partial):
            for place, _folders, leaves in os.walk(root):
                for leaf in leaves:
                    found = os.lstat(os.path.join(place, leaf))
                    names[found.st_dev, found.st_ino] += 1
        return names

    def adopt(self, name: str, document: bytes, files: Path, indexed: bytes = b"") -> Path:
        """Give the finished folder `files` its final name. It must be synced already. Raises OSError.

        `document` is its bundle, `indexed` its block index, empty: not known.
        """
        if indexed:
            durable.write(self.index_document(name), indexed)
        durable.write(self.document(name), document)
        if os.path.lexists(self.artifact(name)):
            _discard(self.artifact(name))
        os.replace(files, self.artifact(name))
        durable.sync_folder(self._artifacts)
        self.forget_damaged(name)
        return self.artifact(name)

    def exchange(self, name: str, document: bytes, files: Path, indexed: bytes) -> list[str]:
        """Put those files of the finished folder `files` in place that are not the artifact's own; their paths.

        One after the other, each by a rename: whoever has the one before open, or mapped, keeps it as it is, and a
        break in between leaves whole files everywhere. What the bundle does not list goes. Raises OSError.
        """
        exchanged, listed = [], {file.path for file in parse(document).files}
        plain_file.make_folders_below(self._artifacts, name)
        durable.write(self.index_document(name), indexed)
        durable.write(self.document(name), document)
        for path in sorted(listed):
            new, old = files / path, self.artifact(name) / path
            if os.path.lexists(old) and os.path.samestat(os.lstat(old), os.lstat(new)):
                continue
            parent, _, _ = path.rpartition("/")
            if parent:
                plain_file.make_folders_below(self.artifact(name), parent)
            if old.is_dir() and not old.is_symlink():
                plain_file.remove(old)
            os.replace(new, old)
            durable.sync_folder(old.parent)
            exchanged.append(path)
        keep_only(self.artifact(name), listed)
        return exchanged

    def set_aside(self, name: str) -> None:
        """Keep a damaged artifact for its sound blocks only: it is not here any more, see `has`. Raises OSError."""
        self.forget_damaged(name)
        if os.path.lexists(self.artifact(name)):
            os.replace(self.artifact(name), self._set_aside(name))
            durable.sync_folder(self._artifacts)

    def forget_damaged(self, name: str) -> bool:
        """Remove what was set aside; whether there was something. Raises OSError."""
        there = os.path.lexists(self._set_aside(name))
        if there:
            _discard(self._set_aside(name))
        return there

    def _set_aside(self, name: str) -> Path:
        return self._artifacts / f"{name}{_DAMAGED}"

    def remove(self, name: str) -> None:
        """Remove an artifact, and what was set aside of it. Raises OSError."""
        self.forget_damaged(name)
        if os.path.lexists(self.artifact(name)):
            _discard(self.artifact(name))
        self.index_document(name).unlink(missing_ok=True)
        self.document(name).unlink(missing_ok=True)
        durable.sync_folder(self._artifacts)

    def remove_partial(self, name: str) -> None:
        """Remove what is left of a download, for good: a power cut does not bring it back. Raises OSError."""
        if os.path.lexists(self.partial(name)):
            _discard(self.partial(name))

    def collect(self, keep: Collection[str], checkpoint: Callable[[], None] | None = None) -> list[str]:
        """Remove every artifact and partial download whose bundle is not in `keep`, and what is left of downloads that
        are whole artifacts by now; returns their names.

        The caller names active, previous and staged in `keep`. `checkpoint` is called before each removal, and may
        raise to end it. Raises OSError.
        """
        removed = set()
        for path in sorted(self._artifacts.iterdir()):
            name, _, _ = path.name.partition(".")
            if digest.is_sha256(name) and name not in keep:
                if checkpoint is not None:
                    checkpoint()
                self.remove(name)
                removed.add(name)
            elif self.has(name):
                self.forget_damaged(name)
        for path in sorted(self._partial.iterdir()):
            if path.name not in keep or self.has(path.name):
                _discard(path)
                removed.add(path.name)
        return sorted(removed)


def _statuses(path: Path) -> Iterator[os.stat_result]:
    """Of a file, or of every file below a folder; what goes meanwhile is left out."""
    leaves = [path] if not path.is_dir() else [Path(place, leaf) for place, _, all in os.walk(path) for leaf in all]
    for leaf in leaves:
        with contextlib.suppress(FileNotFoundError):
            yield os.lstat(leaf)


def _discard(path: Path) -> None:
    trash = path.with_name(f"{_TRASH}{path.name}")
    if os.path.lexists(trash):
        _remove_tree(trash)
    os.replace(path, trash)
    durable.sync_folder(path.parent)
    _remove_tree(trash)


def _remove_tree(path: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        path.unlink()
        return
    for place, _names, leaves in os.walk(path):
        for leaf in leaves:
            # Windows removes no read-only file, and verified files are read-only. A link's target is not ours.
            if os.name == "nt" and not Path(place, leaf).is_symlink():
                Path(place, leaf).chmod(0o644)
    shutil.rmtree(path)
