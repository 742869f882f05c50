"""Which files of a far place make up a checkpoint or an adapter. Pure: a list goes in, the files to fetch come out.

Names and sizes are what the place says, and count for nothing until the files are here and were looked at. They
decide what is fetched, so they are bounded, and no name may lead out of a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgewright_contract import canonical, digest
from edgewright_controller.compile.source import BESIDE_WEIGHTS, INDEX, MAX_JSON_BYTES, PICKLES, SourceError

MAX_FILES: Final = 2_000
MAX_BYTES: Final = 1 << 44
ADAPTER_FILES: Final = ("adapter_config.json", "adapter_model.safetensors")
CHECKPOINT: Final = "checkpoint"
ADAPTER: Final = "adapter"

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
_WEIGHTS: Final = ".safetensors"
_TOKENIZERS: Final = frozenset({"tokenizer.json", "tokenizer.model", "vocab.json"})


@dataclass(frozen=True)
class FarFile:
    """A file as its place lists it. `sha256` or `git` (a blob's id) is empty where it is not told; `etag` is the
    place's own mark of these bytes."""

    path: str
    size: int
    sha256: str = ""
    git: str = ""
    etag: str = ""

    def to_json(self) -> dict[str, Any]:
        """For a request to a child."""
        return {"path": self.path, "size": self.size, "sha256": self.sha256, "git": self.git, "etag": self.etag}


@dataclass(frozen=True)
class Listing:
    """What a far place has. `commit` is the hub's. `indexed` are the files that the weights' index names, empty
    without an index. `other` are names that were left out of `files`, for messages; not all of them."""

    files: tuple[FarFile, ...]
    commit: str = ""
    indexed: tuple[str, ...] = ()
    other: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """The files to fetch: those that say what the model is first, then the weights."""

    small: tuple[FarFile, ...]
    weights: tuple[FarFile, ...]

    @property
    def files(self) -> tuple[FarFile, ...]:
        """All of them."""
        return (*self.small, *self.weights)

    @property
    def bytes(self) -> int:
        """Of all files together."""
        return sum(file.size for file in self.files)

    @property
    def marks(self) -> str:
        """A name for these very files, as far as their place tells one version from another."""
        return digest.of_bytes(canonical.encode([file.to_json() for file in sorted(self.files, key=_path)]))


def asked_for(what: str) -> tuple[str, ...]:
    """The names of files that are of any use, and what the others may end in."""
    return (*BESIDE_WEIGHTS, INDEX, f"*{_WEIGHTS}") if what == CHECKPOINT else ADAPTER_FILES


def from_child(answer: Mapping[str, Any]) -> Listing:
    """The listing that a child gave. Raises SourceError when it is none."""
    try:
        files = tuple(
            FarFile(
                str(file["path"]),
                int(file["size"]),
                sha256=str(file.get("sha256", "")),
                git=str(file.get("git", "")),
                etag=str(file.get("etag", "")),
            )
            for file in answer["files"]
        )
        indexed, other = (tuple(str(name) for name in answer.get(key, [])) for key in ("indexed", "other"))
        return Listing(files, str(answer.get("commit", "")), indexed, other)
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"what it lists makes no sense: {error!r}") from error


def choose(listing: Listing, what: str) -> Wanted:
    """The files to fetch. Raises SourceError when they cannot be what is wanted."""
    files = {file.path: file for file in listing.files}
    chosen = _checkpoint(files, listing) if what == CHECKPOINT else _adapter(files, listing)
    _bounded(chosen.files)
    return chosen


def _checkpoint(files: Mapping[str, FarFile], listing: Listing) -> Wanted:
    if "config.json" not in files:
        raise SourceError("not a model: it has no config.json")
    if not _TOKENIZERS & files.keys():
        raise SourceError("no tokenizer (tokenizer.json or tokenizer.model) beside the weights")
    there = sorted(name for name in files if name.endswith(_WEIGHTS))
    if not there:
        raise _no_weights(listing)
    if INDEX in files:
        missing = sorted(set(listing.indexed) - set(there))
        if missing or not listing.indexed:
            raise SourceError(f"{INDEX} names {missing[0] if missing else 'nothing'}, but there is no such file")
        weights = sorted(set(listing.indexed))
    else:
        # Beside it there may be the same weights once more, in another arrangement.
        weights = ["model.safetensors"] if "model.safetensors" in there else there
    small = [name for name in (*BESIDE_WEIGHTS, INDEX) if name in files]
    return Wanted(tuple(files[name] for name in small), tuple(files[name] for name in weights))


def _adapter(files: Mapping[str, FarFile], listing: Listing) -> Wanted:
    config, weights = ADAPTER_FILES
    if config not in files:
        raise SourceError(f"not an adapter of PEFT: it has no {config}")
    if weights not in files:
        raise _no_weights(listing)
    return Wanted((files[config],), (files[weights],))


def _no_weights(listing: Listing) -> SourceError:
    pickles = sorted(name for name in listing.other if name.lower().endswith(PICKLES))
    if pickles:
        return SourceError(
            f"{pickles[0]}: a pickle can run code when it is read, so it is refused; convert it to safetensors"
        )
    return SourceError("no .safetensors file in it")


def _bounded(files: Iterable[FarFile]) -> None:
    count = total = 0
    for file in files:
        if not _NAME.fullmatch(file.path):
            raise SourceError(f"{file.path[:80]!r}: a name that no checkpoint has")
        if file.size < 0 or (file.path.endswith(".json") and file.size > MAX_JSON_BYTES):
            raise SourceError(f"{file.path}: {file.size:,} bytes; at most {MAX_JSON_BYTES:,}")
        count, total = count + 1, total + file.size
    if count > MAX_FILES or total > MAX_BYTES:
        raise SourceError(f"{count:,} files of {total:,} bytes; at most {MAX_FILES:,} of {MAX_BYTES:,}")


def _path(file: FarFile) -> str:
    return file.path
