"""Artifacts on the controller's disk, named by their bundle's digest, and the documents that describe them.

    artifacts/<bundle digest>/…     the files, read-only
    objects/<sha256>                bundle and block index documents, report cards and provenance statements
    deltas/<bundle digest>.<…>      what its blocks are against those of another artifact (delivery)

An artifact goes by a rename too, to a name that is no digest: what a crash leaves of that is removed at the next start.
An artifact appears by the rename of its finished folder, after its documents: where a folder with a digest's name
stands, everything belonging to it is there. Nothing is held in memory, and no file is read whole.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgewright_contract import bundle, digest, durable
from edgewright_contract.block_index import Block
from edgewright_contract.bundle import Bundle
from edgewright_controller.delivery import cutting


class StoreError(Exception):
    """What stands in the store, or should, is not what it must be; the message names it."""


@dataclass(frozen=True)
class Stored:
    """An artifact in the store: sha256 and bytes of its bundle and block index, and bytes of all files together."""

    bundle: str
    size: int
    bundle_length: int
    block_index: str
    block_index_length: int


@dataclass(frozen=True)
class Entry:
    """One entry of a folder of the store: bytes of all its files, and when it was made (Unix milliseconds)."""

    name: str
    size: int
    made_ms: int


class ArtifactStore:
    """The folder STATE/store. Safe for many readers and one writer of each artifact at a time."""

    def __init__(self, folder: Path) -> None:
        """Open `folder`, made if absent, and remove what a crash left half done. Raises OSError."""
        self._artifacts = folder / "artifacts"
        self._objects = folder / "objects"
        self._deltas = folder / "deltas"
        self._sent_at: dict[str, float] = {}
        for place in (self._artifacts, self._objects):
            durable.make_folder(place)
            for entry in place.iterdir():
                if not digest.is_sha256(entry.name):
                    _remove(entry)

    def add(self, folder: Path) -> Stored:
        """Move a finished folder in; it must stand on the same file system, and nobody may write in it any more.

        An artifact that is here already gets its files anew, which mends what the disk lost. Raises
        bundle.BundleError, block_index.BlockIndexError, cutting.CutterMissing, OSError; then `folder` may be gone in
        part.
        """
        files = bundle.from_folder(folder)
        document, index = files.encode(), cutting.cut(files, folder)
        _settle(folder, files)
        stored = Stored(files.digest, files.size, len(document), digest.of_bytes(index), len(index))
        for name, data in ((stored.bundle, document), (stored.block_index, index)):
            durable.write(self._objects / name, data, mode=0o444)
        target = self.path(stored.bundle)
        if target.is_dir():
            for file in files.files:
                place = target / file.path
                durable.make_folder(place.parent)
                os.replace(folder / file.path, place)
                durable.sync_folder(place.parent)
            shutil.rmtree(folder)
        else:
            os.rename(folder, target)
            durable.sync_folder(self._artifacts)
        return stored

    def put_object(self, document: bytes) -> str:
        """Keep a document by its sha256, which is returned. Raises OSError."""
        name = digest.of_bytes(document)
        durable.write(self._objects / name, document, mode=0o444)
        return name

    def has(self, artifact: str) -> bool:
        """Whether the artifact with this bundle digest is here: every file of it, with its size. Reads no file."""
        folder = self.path(artifact)
        try:
            return all((folder / file.path).stat().st_size == file.size for file in self.bundle(artifact).files)
        except (OSError, StoreError):
            return False

    def is_intact(self, artifact: str) -> bool:
        """Whether it is here with the very bytes of its digest. Reads all of it, a piece at a time."""
        try:
            return bundle.from_folder(self.path(artifact)).digest == artifact
        except (OSError, bundle.BundleError):
            return False

    def path(self, artifact: str) -> Path:
        """Where the artifact's files stand, or would. Raises StoreError for what is not a digest."""
        if not digest.is_sha256(artifact):
            raise StoreError(f"{artifact[:80]!r} is not a sha256")
        return self._artifacts / artifact

    def bundle(self, artifact: str) -> Bundle:
        """The list of the artifact's files. Raises StoreError, also when the document on the disk is damaged."""
        try:
            files = bundle.parse(self._object(artifact).read_bytes())
        except (OSError, bundle.BundleError) as error:
            raise StoreError(f"artifact {artifact}: its bundle cannot be read: {error}") from error
        if files.digest != artifact:
            raise StoreError(f"artifact {artifact}: its bundle is damaged")
        return files

    def open_object(self, sha256: str) -> BinaryIO:
        """A bundle or block index document. Raises KeyError when it is not here, OSError."""
        try:
            return self._object(sha256).open("rb")
        except FileNotFoundError as error:
            raise KeyError(sha256) from error

    def read_block(self, artifact: str, block: Block) -> bytes:
        """The bytes of one block as they stand on the disk; who asked checks them. Raises StoreError, OSError."""
        path = self.path(artifact) / block.path
        with path.open("rb", buffering=0) as file:
            file.seek(block.offset)
            data = file.read(block.size)
        if len(data) != block.size:
            raise StoreError(
                f"{block.path}: {len(data)} bytes at {block.offset}, {block.size} expected; apply builds it again"
            )
        return data

    def sending(self, artifact: str) -> None:
        """Somebody is sent blocks of it just now."""
        self._sent_at[artifact] = time.monotonic()

    def sent_lately(self, within_s: float) -> frozenset[str]:
        """The artifacts of which blocks were sent in the last `within_s` seconds."""
        since = time.monotonic() - within_s
        return frozenset(artifact for artifact, at in list(self._sent_at.items()) if at >= since)

    def artifacts(self) -> list[Entry]:
        """Every artifact that is here. Raises OSError."""
        return list(_entries(self._artifacts))

    def documents(self) -> list[Entry]:
        """Every document that is here. Raises OSError."""
        return list(_entries(self._objects))

    def differences(self) -> list[Entry]:
        """Every pack, `<bundle digest>.<…>` (delivery.packs). Raises OSError."""
        return [one for one in _entries(self._deltas, whole=False) if digest.is_sha256(one.name.partition(".")[0])]

    def retire(self, artifacts: Iterable[str]) -> dict[str, str]:
        """Take artifacts out by renames; what cannot be taken, with the reason. `sweep` frees their bytes."""
        left = {}
        for artifact in artifacts:
            try:
                os.rename(self.path(artifact), self._artifacts / f".going-{artifact[:12]}-{uuid.uuid4().hex}")
            except OSError as error:
                left[artifact] = error.strerror or str(error)
            self._sent_at.pop(artifact, None)
        durable.sync_folder(self._artifacts)
        return left

    def sweep(self, documents: Iterable[str]) -> None:
        """Free what `retire` took out, and remove these documents. Raises OSError."""
        for entry in self._artifacts.glob(".going-*"):
            _remove(entry)
        for name in documents:
            self._object(name).unlink(missing_ok=True)

    def read_cached(self, artifact: str, block: Block) -> bytes | None:
        """The same, if no disk is needed; None where they are not in memory, or nobody can tell. Raises StoreError."""
        if not hasattr(os, "RWF_NOWAIT"):
            return None
        path, data = self.path(artifact) / block.path, bytearray(block.size)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            came = os.preadv(handle, [data], block.offset, os.RWF_NOWAIT)
        except OSError:
            return None
        finally:
            os.close(handle)
        return bytes(data) if came == block.size else None

    def _object(self, sha256: str) -> Path:
        if not digest.is_sha256(sha256):
            raise StoreError(f"{sha256[:80]!r} is not a sha256")
        return self._objects / sha256


def _settle(folder: Path, files: Bundle) -> None:
    """Make files read-only and everything durable, so that the rename that follows promises whole files."""
    for file in files.files:
        handle = os.open(folder / file.path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        os.chmod(folder / file.path, 0o444)
    folders = {(folder / file.path).parent for file in files.files} | {folder}
    for place in sorted(folders):
        os.chmod(place, 0o700)
        durable.sync_folder(place)


def _entries(folder: Path, *, whole: bool = True) -> Iterator[Entry]:
    """The entries that count, those with a digest for a name if `whole`; what goes meanwhile is left out."""
    try:
        found = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in found:
        if whole and not digest.is_sha256(entry.name):
            continue
        try:
            size = _size(Path(entry.path)) if entry.is_dir(follow_symlinks=False) else entry.stat().st_size
            yield Entry(entry.name, size, entry.stat().st_mtime_ns // 1_000_000)
        except FileNotFoundError:
            continue


def _size(folder: Path) -> int:
    return sum(Path(place, name).lstat().st_size for place, _, names in os.walk(folder) for name in names)


def _remove(entry: Path) -> None:
    if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry)
    else:
        entry.unlink()
