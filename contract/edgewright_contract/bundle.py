"""A bundle, format 1: the canonical list of an artifact's files. Its sha256 is the artifact's identity.

    {"edgewright_bundle":1,"files":[{"path":"model.gguf","sha256":"…","size":105}, …]}

in canonical JSON (`canonical.encode`), files sorted by path. A bundle says nothing of blocks,
compression, time or place, so the same files always have the same name.

Paths are relative, plain and portable: `parse` refuses whatever could leave the folder, collide on a
file system that ignores case, or be special on Windows, because a device creates files by this list.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgewright_contract import canonical, digest, plain_file

FORMAT: Final = 1
MAX_BUNDLE_BYTES: Final = 4 << 20
MAX_FILES: Final = 10_000
MAX_FILE_BYTES: Final = 1 << 42
MAX_TOTAL_BYTES: Final = 1 << 42
MAX_PATH_BYTES: Final = 240

_SEGMENT = re.compile(r"[A-Za-z0-9_+@=,()\[\]-][A-Za-z0-9._+@=,()\[\] -]*")
_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)


class BundleError(ValueError):
    """The bytes are not a bundle that may be trusted with a file system."""


@dataclass(frozen=True, order=True)
class BundleFile:
    """One file: a plain relative path with `/`, its size in bytes, its sha256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """The files of one artifact, sorted by path."""

    files: tuple[BundleFile, ...]

    def encode(self) -> bytes:
        """The canonical bytes, whose sha256 is `self.digest`."""
        files = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in self.files]
        return canonical.encode({"edgewright_bundle": FORMAT, "files": files})

    @property
    def digest(self) -> str:
        """The artifact's identity."""
        return digest.of_bytes(self.encode())

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)


def check_path(path: str) -> None:
    """Raise BundleError unless `path` is relative, plain and portable."""
    if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
        raise BundleError(f"path of more than {MAX_PATH_BYTES} bytes: {path[:40]!r}…")
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment) or segment.endswith((" ", ".")):
            raise BundleError(f"path {path!r}: {segment!r} is not a plain file name")
        if _WINDOWS_DEVICE.fullmatch(segment):
            raise BundleError(f"path {path!r}: {segment!r} names a device on Windows")


def make(files: list[BundleFile]) -> Bundle:
    """A checked bundle of these files. Raises BundleError."""
    if not files:
        raise BundleError("a bundle needs at least one file")
    if len(files) > MAX_FILES:
        raise BundleError(f"{len(files)} files; a bundle holds at most {MAX_FILES}")
    seen: dict[str, str] = {}
    for file in files:
        check_path(file.path)
        if not 0 <= file.size <= MAX_FILE_BYTES:
            raise BundleError(f"{file.path}: size {file.size} is out of range")
        if not digest.is_sha256(file.sha256):
            raise BundleError(f"{file.path}: {file.sha256!r} is not a sha256")
        folded = file.path.lower()
        if folded in seen:
            raise BundleError(f"{file.path!r} and {seen[folded]!r} differ only in case, or not at all")
        seen[folded] = file.path
    total = sum(file.size for file in files)
    if total > MAX_TOTAL_BYTES:
        raise BundleError(f"{total:,} bytes in all; a bundle has at most {MAX_TOTAL_BYTES:,}")
    folders: dict[str, str] = {}
    for path in seen.values():
        parent = path.rpartition("/")[0]
        while parent:
            folded = parent.lower()
            if folded in seen:
                raise BundleError(f"{seen[folded]!r} is both a file and a folder")
            if folders.setdefault(folded, parent) != parent:
                raise BundleError(f"the folders {parent!r} and {folders[folded]!r} differ only in case")
            parent = parent.rpartition("/")[0]
    return Bundle(tuple(sorted(files)))


def parse(data: bytes) -> Bundle:
    """A bundle from bytes of a stranger. Raises BundleError.

    Only the canonical spelling is accepted, so one artifact has one identity.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleError(f"{len(data)} bytes; a bundle has at most {MAX_BUNDLE_BYTES}")
    try:
        value = json.loads(data)
        if value["edgewright_bundle"] != FORMAT:
            raise BundleError(f"bundle format {value['edgewright_bundle']!r}; this version reads {FORMAT}")
        files = []
        for entry in value["files"]:
            path, size, sha256 = entry["path"], entry["size"], entry["sha256"]
            if not (isinstance(path, str) and type(size) is int and isinstance(sha256, str)):
                raise BundleError("a file entry has a value of the wrong type")
            files.append(BundleFile(path, size, sha256))
    except BundleError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise BundleError(f"not a bundle: {error}") from error
    bundle = make(files)
    if bundle.encode() != data:
        raise BundleError("not the canonical spelling of a bundle")
    return bundle


def from_folder(folder: Path, checkpoint: Callable[[], None] | None = None) -> Bundle:
    """The bundle of every file below `folder`, hashed as they stand. Raises BundleError, OSError.

    Links and special files are refused: an artifact consists of bytes, not of references. `checkpoint` is called again
    and again meanwhile, and may raise to end it.
    """
    files = []
    for place, names, leaves in os.walk(folder):
        for name in names + leaves:
            path = Path(place, name)
            if stat.S_ISDIR(path.lstat().st_mode):
                continue
            relative = path.relative_to(folder).as_posix()
            try:
                with plain_file.read_below(folder, relative) as file:
                    size = os.fstat(file.fileno()).st_size
                    files.append(BundleFile(relative, size, digest.of_open(file, checkpoint)))
            except plain_file.NotPlain as error:
                raise BundleError(str(error)) from error
    return make(files)
