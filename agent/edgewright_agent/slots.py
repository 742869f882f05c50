"""Where artifacts stand on a device's disk.

    STATE/artifacts/<bundle digest>/…        whole and verified, read-only
    STATE/artifacts/<bundle digest>.bundle   its list of files
    STATE/artifacts/<bundle digest>.index    how they were cut into blocks, if it is known
    STATE/partial/<bundle digest>/           what is being fetched, kept over restarts

Which of them is active, previous or staged is the lifecycle's to say; it names releases, and releases name
artifacts. A folder gets its final name only when it is whole, and loses it before the first file is removed.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from edgewright_contract import block_index, digest, durable, plain_file
from edgewright_contract.block_index import MAX_INDEX_BYTES, BlockIndex, BlockIndexError
from edgewright_contract.bundle import MAX_BUNDLE_BYTES, Bundle, BundleError, from_folder, parse

_TRASH: Final = ".removed-"
_BUNDLE: Final = ".bundle"
_INDEX: Final = ".index"


class ArtifactDamaged(Exception):
    """An artifact on this disk is not what was verified when it came. The text names the file."""


class Slots:
    """The folders `artifacts` and `partial` below the agent's state."""

    def __init__(self, state: Path) -> None:
        """Make the folders, and clear away what a power cut left of removals and of documents. Raises OSError."""
        self._artifacts, self._partial = state / "artifacts", state / "partial"
        for folder in (self._artifacts, self._partial):
            durable.make_folder(folder)
            for leftover in folder.glob(".*"):
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
        return self.artifact(name)

    def remove(self, name: str) -> None:
        """Remove an artifact, for example a damaged one. Raises OSError."""
        if os.path.lexists(self.artifact(name)):
            _discard(self.artifact(name))
        self.index_document(name).unlink(missing_ok=True)
        self.document(name).unlink(missing_ok=True)
        durable.sync_folder(self._artifacts)

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
        for path in sorted(self._partial.iterdir()):
            if path.name not in keep or self.has(path.name):
                _discard(path)
                removed.add(path.name)
        return sorted(removed)


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
