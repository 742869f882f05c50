"""How a manifest names a source. Pure: nothing is looked up.

smollm2                     a folder with a checkpoint, on the controller's machine
tuned.gguf                  a GGUF file there
hf://org/name@revision      a repository of the Hugging Face hub; without a revision its branch main
s3://bucket/prefix          objects below a prefix; gs:// and az:// (az://container/prefix) likewise
https://host/folder         a folder on a web server, whose config.json and index say which files there are
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import urlsplit

MAIN: Final = "main"
BUCKETS: Final = ("s3", "gs", "az")
SCHEMES: Final = ("hf", *BUCKETS, "https")

_HUB: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,95})/([A-Za-z0-9][A-Za-z0-9._-]{0,95})(?:@(.*))?")
_REVISION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,62}")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]")
_PART: Final = re.compile(r"[A-Za-z0-9._~ +=,@-]+")


class NoReference(ValueError):
    """This names no source; the message says what would."""


@dataclass(frozen=True)
class Folder:
    """A folder on the controller's machine."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class GgufFile:
    """A GGUF file on the controller's machine."""

    path: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Hub:
    """A repository of the hub, at a branch, tag or commit."""

    repository: str
    revision: str = MAIN

    @property
    def commit(self) -> str:
        """The revision when it is a commit, which never moves; else empty."""
        return self.revision if _COMMIT.fullmatch(self.revision) else ""

    def at(self, commit: str) -> Hub:
        """The same repository at a commit."""
        return Hub(self.repository, commit)

    def __str__(self) -> str:
        return f"hf://{self.repository}@{self.revision}"


@dataclass(frozen=True)
class Objects:
    """Files below a prefix: of a bucket (s3, gs), a container (az), or a web server (https, `place` is host:port)."""

    scheme: str
    place: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.place}/{self.prefix}".removesuffix("/")


Reference = Folder | GgufFile | Hub | Objects


def parse(text: str) -> Reference:
    """What `text` names. Raises NoReference."""
    if not text.isprintable():
        raise NoReference("has a character that cannot be printed")
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _local(text)
    if scheme == "hf":
        return _hub(rest)
    if scheme in BUCKETS:
        bucket, _, prefix = rest.partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise NoReference(f"names no bucket; write {scheme}://bucket/prefix, and secrets never here")
        return Objects(scheme, bucket, _prefix(prefix))
    if scheme == "https":
        return _web(text)
    what = "http:// is read by anybody on the way" if scheme == "http" else f"{scheme[:20]}:// is not known"
    raise NoReference(f"{what}; there are a path, {', '.join(f'{known}://' for known in SCHEMES)}")


def is_local(text: str) -> bool:
    """Whether this is a path."""
    return "://" not in text


def _local(text: str) -> Folder | GgufFile:
    if text.startswith("~"):
        raise NoReference('"~" is not expanded; write the whole path, or one from the manifest')
    return GgufFile(text) if text.lower().endswith(".gguf") else Folder(text)


def _hub(rest: str) -> Hub:
    found = _HUB.fullmatch(rest)
    if found is None:
        raise NoReference("names no repository; write hf://organisation/name@revision")
    revision = MAIN if found[3] is None else found[3]
    if not _REVISION.fullmatch(revision) or ".." in revision:
        raise NoReference(f"{revision[:80]!r} is no revision; write a branch, a tag or a commit after the @")
    return Hub(f"{found[1]}/{found[2]}", revision)


def _web(text: str) -> Objects:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise NoReference(f"is no address: {error}") from error
    if url.username is not None or url.password is not None or url.query or url.fragment or "?" in text or "#" in text:
        raise NoReference("must have no user, password or query; name secrets with `credentials`")
    if not _HOST.fullmatch(url.netloc.rpartition(":")[0] if port is not None else url.netloc):
        raise NoReference("names no host; write https://host/folder")
    return Objects("https", url.netloc, _prefix(url.path.removeprefix("/")))


def _prefix(text: str) -> str:
    path = text.removesuffix("/")
    parts = path.split("/") if path else []
    if any(not _PART.fullmatch(part) or part in (".", "..") for part in parts):
        raise NoReference("its path has a part that is empty, is . or .., or has a sign that addresses give a meaning")
    if PurePosixPath(path).suffix.lower() in (".zip", ".tar", ".gz", ".tgz"):
        raise NoReference("names an archive; name the folder in which the checkpoint's files lie")
    return path
