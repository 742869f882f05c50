"""Asking a far place what it has, and bringing files from there: in a child, the only one that may reach a network.

The child keeps the libraries for it out of the controller, and is the only one that is told secrets: in its request,
never by its environment or its arguments. What it prints or says has no secret in it any more when it leaves here.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from edgewright_controller.compile import child
from edgewright_controller.compile.child import Say, Stage, StageFailed
from edgewright_controller.compile.source import INDEX, MAX_JSON_BYTES, SourceError
from edgewright_controller.compile.sources import credentials as secrets_of
from edgewright_controller.compile.sources import listing
from edgewright_controller.compile.sources.credentials import NO_SECRETS, Credentials, Secrets
from edgewright_controller.compile.sources.listing import FarFile, Listing
from edgewright_controller.compile.sources.reference import Hub, Objects

LIST_S: Final = 300.0
FETCH_S: Final = 48 * 3600.0
REDACTED: Final = "[redacted]"
_SHORTEST_PIECE: Final = 16
# A redirect to a store carries its permission in the address.
_QUERY: Final = re.compile(r"(https?://[^\s?'\"]+)\?[^\s'\"]+")


class FetchFailed(SourceError):
    """It could not be fetched, perhaps not now; the message says what to do."""


@dataclass(frozen=True)
class Far:
    """A far place, and with which credentials it is asked; None as anybody may."""

    place: Hub | Objects
    credentials: Credentials | None = None


class Fetching:
    """Runs the children under `interpreter`; `folder` takes what they need while they run."""

    def __init__(self, interpreter: str, folder: Path, *, plain_http: bool = False) -> None:
        """`plain_http`: web servers are asked without TLS, which only a test may want."""
        self._interpreter, self._folder, self._plain_http = interpreter, folder, plain_http

    async def list(self, far: Far, what: str, log: BinaryIO) -> Listing:
        """What the place has of a checkpoint or an adapter. Raises FetchFailed, CredentialsError."""
        wanted = {"wanted": list(listing.asked_for(what)), "index": INDEX, "most": MAX_JSON_BYTES}
        answer = await self._run(far, wanted, log, LIST_S, lambda _done, _what: None)
        return listing.from_child(answer)

    async def fetch(self, far: Far, files: Sequence[FarFile], folder: Path, log: BinaryIO, say: Say) -> None:
        """Bring the files into `folder`, from where an earlier try was cut. Raises FetchFailed, CredentialsError."""
        if all(_is_whole(folder / file.path, file.size) for file in files):
            return
        wanted = {"files": [file.to_json() for file in files], "folder": str(folder)}
        await self._run(far, wanted, log, FETCH_S, say)

    async def _run(
        self, far: Far, wanted: Mapping[str, Any], log: BinaryIO, deadline_s: float, say: Say
    ) -> dict[str, Any]:
        place, credentials = far.place, far.credentials
        secrets = await asyncio.to_thread(secrets_of.read, credentials) if credentials else NO_SECRETS
        clean = Redaction(secrets)
        about: dict[str, Any] = {
            "credentials": credentials.name if credentials else "",
            "secrets": secrets.for_the_child(),
        }
        if isinstance(place, Hub):
            script = "fetch_hub"
            about |= {"repository": place.repository, "revision": place.revision}
        else:
            script = "fetch_objects"
            about |= {"scheme": place.scheme, "place": place.place, "prefix": place.prefix}
            about |= {"options": dict(credentials.options) if credentials else {}, "plain_http": self._plain_http}
        stage = Stage(child.CHILDREN / f"{script}.py", self._interpreter, deadline_s, fetches=True)
        scratch = Path(tempfile.mkdtemp(prefix=".fetching-", dir=self._folder))
        try:
            return await child.run(
                stage,
                {**about, **wanted},
                scratch,
                cast(BinaryIO, _CleanLog(log, clean)),
                lambda done, what: say(done, clean(what)),
            )
        except StageFailed as error:
            last = f" (last said: {clean(error.last_lines[-1])})" if error.exit not in (1, None) else ""
            # Without its cause: what the child said stands in it as it was.
            raise FetchFailed(clean(error.reason)[:1000] + last) from None
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, scratch, ignore_errors=True))


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


class Redaction:
    """Takes secrets, and permissions in addresses, out of text."""

    def __init__(self, secrets: Secrets) -> None:
        pieces = set()
        for secret in secrets:
            pieces |= {secret, json.dumps(secret)[1:-1]}
            # A key of many lines may be printed line by line.
            pieces |= {part for part in re.split(r"\s+|\\n|\"", secret) if len(part) >= _SHORTEST_PIECE}
        self._pieces = sorted(pieces, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for piece in self._pieces:
            text = text.replace(piece, REDACTED)
        return _QUERY.sub(rf"\1?{REDACTED}", text)


class _CleanLog:
    """The log, as a child's words are written into it line by line."""

    def __init__(self, log: BinaryIO, clean: Redaction) -> None:
        self._log, self._clean = log, clean

    def write(self, line: bytes) -> int:
        return self._log.write(self._clean(line.decode("utf-8", "replace")).encode())
