"""Every source of a model, whatever it is: what is known of it now, and having it here.

`look` asks and reads, but brings nothing: it says what is here, what is known, and what would have to be fetched,
dequantised or merged. `prepare` does that. Whatever it was, what comes out is a checkpoint in a folder, which
compile/source.py has looked at.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgewright_contract.model_files import ArtifactUnsafe, rules
from edgewright_controller.compile import source
from edgewright_controller.compile.executor import Executor
from edgewright_controller.compile.hashing import Hashes
from edgewright_controller.compile.source import Source, SourceError
from edgewright_controller.compile.sources import adapter, listing
from edgewright_controller.compile.sources.credentials import Credentials, CredentialsError
from edgewright_controller.compile.sources.fetching import Far, Fetching
from edgewright_controller.compile.sources.kept import Kept, Known
from edgewright_controller.compile.sources.listing import ADAPTER, CHECKPOINT, Listing, Wanted
from edgewright_controller.compile.sources.making import Making, Say, key_of
from edgewright_controller.compile.sources.reference import Folder, GgufFile, Hub, Objects, Reference

T = TypeVar("T")
# What far places listed, so that one job sees one answer.
Resolved = dict[str, Listing]


class SourceRefused(SourceError):
    """This source cannot be had. `key` is the manifest's key within the model that names what is wrong."""

    def __init__(self, key: str, why: str) -> None:
        super().__init__(why)
        self.key = key


@dataclass(frozen=True)
class Asked:
    """A model's source as a manifest has it, with absolute paths. `credentials` is a name, empty for none."""

    source: Reference
    adapter: Reference | None = None
    credentials: str = ""


@dataclass(frozen=True)
class Look:
    """What there is now. `source`: it is here. `known`: its digest at least is, so that builds of it can be found.
    `steps` are what has to be done to have it here, in words, and `fetch_bytes` how much comes over the network.
    `notes` are for whoever plans."""

    source: Source | None
    known: Known | None
    steps: tuple[str, ...] = ()
    fetch_bytes: int = 0
    notes: tuple[str, ...] = ()


class Sources:
    """What is fetched and made stands in `folder` (STATE/sources), with the children's words in its `log` files."""

    def __init__(
        self,
        folder: Path,
        credentials: Mapping[str, Credentials],
        *,
        interpreters: Mapping[str, str],
        executor: Executor,
        toolchains: Path,
        hashes: Path,
        budget_bytes: int,
        plain_http: bool = False,
    ) -> None:
        """Checkpoints are made by `executor` with the GGUF toolchain of `interpreters`; `toolchains` and `hashes` are
        where its versions and digests of local files are kept. `plain_http` is for tests."""
        self.kept = self._kept = Kept(folder, budget_bytes)
        self._credentials = dict(credentials)
        self._making = Making(self._kept, executor, interpreters, toolchains)
        # Fetching has nothing to do with a toolchain; its libraries stand beside the controller's own.
        self._fetching = Fetching(sys.executable, folder, plain_http=plain_http)
        self._hashes = Hashes(hashes)
        self._reading = asyncio.Lock()

    async def look(self, asked: Asked, resolved: Resolved) -> Look:
        """What is known of it. `resolved` remembers what moving names meant, so that one job sees one answer; it is
        added to. Raises SourceRefused, toolchain.ToolchainMissing."""
        self._covering(asked)
        base = await self._look("source", asked, CHECKPOINT, resolved)
        if asked.adapter is None:
            return base
        change = await self._look("adapter", asked, ADAPTER, resolved)
        steps, fetched = (*base.steps, *change.steps), base.fetch_bytes + change.fetch_bytes
        notes = (*base.notes, *change.notes)
        merge = f"merge {asked.adapter}"
        if base.known is None or change.known is None:
            return Look(None, None, (*steps, merge), fetched, notes)
        key = await self._making.merged_key(base.known.digest, change.known.digest)
        if (merged := self._kept.source(key)) is not None:
            return Look(merged, _known(key, merged), notes=notes)
        if base.source and change.source:
            await self._in_thread(_refuse_misfit, change.source, base.source)
        return Look(None, self._kept.known(key), (*steps, merge), fetched, notes)

    async def prepare(self, asked: Asked, resolved: Resolved, say: Say) -> Source:
        """Have it here. `say` hears what is done, how far it is from 0 to 1, and details. Raises SourceRefused,
        toolchain.ToolchainMissing; when cancelled, the children are gone first, and what was fetched is gone on from.
        """
        self._covering(asked)
        base = await self._have("source", asked, CHECKPOINT, resolved, say)
        if asked.adapter is None:
            return base
        change = await self._have("adapter", asked, ADAPTER, resolved, say)
        await self._in_thread(_refuse_misfit, change, base)
        try:
            return await self._making.merge(base, change, say)
        except SourceError as error:
            raise SourceRefused("adapter", str(error)) from error
        except OSError as error:
            raise SourceRefused("adapter", f"{error.filename or self._kept.folder}: {error.strerror}") from error

    async def inspect_prebuilt(self, path: Path, runtime: str) -> Source:
        """An artifact made elsewhere; see source.inspect_prebuilt. Raises SourceError."""
        return await self._reading_files(lambda: source.inspect_prebuilt(path, runtime, self._hashes))

    def holding(self, sources: list[Source]) -> Any:
        """A block in which these do not make room for others."""
        return self._kept.holding([one.folder.name for one in sources])

    # What a reference is

    async def _look(self, key: str, asked: Asked, what: str, resolved: Resolved) -> Look:
        place = asked.source if key == "source" else asked.adapter
        try:
            if isinstance(place, Folder):
                return await self._look_at_folder(Path(place.path), what)
            if isinstance(place, GgufFile):
                return await self._look_at_gguf(Path(place.path))
            assert place is not None
            return await self._look_far(place, asked, what, resolved)
        except SourceRefused:
            raise
        except CredentialsError as error:
            raise SourceRefused("credentials", str(error)) from error
        except SourceError as error:
            raise SourceRefused(key, str(error)) from error
        except OSError as error:
            raise SourceRefused(key, f"{error.filename or place}: {error.strerror}") from error

    async def _have(self, key: str, asked: Asked, what: str, resolved: Resolved, say: Say) -> Source:
        found = await self._look(key, asked, what, resolved)
        if found.source is not None:
            return found.source
        place = asked.source if key == "source" else asked.adapter
        try:
            if isinstance(place, GgufFile):
                path = Path(place.path)
                return await self._making.dequantise(path, await self._sha256_of_gguf(path), say)
            assert isinstance(place, Hub | Objects)
            return await self._fetch(place, asked, what, resolved, say)
        except CredentialsError as error:
            raise SourceRefused("credentials", str(error)) from error
        except SourceError as error:
            raise SourceRefused(key, str(error)) from error
        except OSError as error:
            raise SourceRefused(key, f"{error.filename or self._kept.folder}: {error.strerror}") from error

    async def _look_at_folder(self, path: Path, what: str) -> Look:
        if what == ADAPTER:
            found = await self._reading_files(lambda: adapter.inspect(path, self._hashes))
        else:
            found = await self._reading_files(lambda: source.inspect(path, self._hashes))
        return Look(found, _known("", found))

    async def _look_at_gguf(self, path: Path) -> Look:
        key = await self._making.dequantised_key(await self._sha256_of_gguf(path))
        note = f"{path.name} is dequantised: every figure is relative to weights that were rounded once already"
        if (found := self._kept.source(key)) is not None:
            return Look(found, _known(key, found), notes=(note,))
        return Look(None, self._kept.known(key), (f"dequantise {path}",), notes=(note,))

    async def _look_far(self, place: Hub | Objects, asked: Asked, what: str, resolved: Resolved) -> Look:
        listed: Listing | None = None
        notes: tuple[str, ...] = ()
        if not (isinstance(place, Hub) and place.commit):
            listed = await self._listed(place, asked, what, resolved)
            if isinstance(place, Hub):
                notes = (f"{place} moves; now it is @{listed.commit}, which never does",)
        key = _far_key(place, what, listed)
        if (found := self._kept.source(key)) is not None:
            return Look(found, _known(key, found), notes=notes)
        wanted = listing.choose(listed or await self._listed(place, asked, what, resolved), what)
        size = wanted.bytes
        return Look(None, self._kept.known(key), (f"fetch {place}",), size, notes)

    async def _listed(self, place: Hub | Objects, asked: Asked, what: str, resolved: Resolved) -> Listing:
        name = f"{what} {place}"
        if name not in resolved:
            with (self._kept.folder / "listing.log").open("wb", buffering=0) as log:
                try:
                    resolved[name] = await self._fetching.list(self._far(place, asked), what, log)
                except SourceError as error:
                    raise SourceError(f"{error}{self._last_known(place)}") from error
        return resolved[name]

    def _last_known(self, place: Hub | Objects) -> str:
        """A way on without the hub, where there is one."""
        if isinstance(place, Hub) and not place.commit and (commit := self._kept.newest_commit(place.repository)):
            return f"; to go on with what is here, write @{commit}"
        return ""

    # Having it here

    async def _fetch(self, place: Hub | Objects, asked: Asked, what: str, resolved: Resolved, say: Say) -> Source:
        listed = await self._listed(place, asked, what, resolved)
        key, wanted = _far_key(place, what, listed), listing.choose(listed, what)
        at = place.at(listed.commit) if isinstance(place, Hub) else place
        far = self._far(at, asked)
        async with self._kept.alone(key):
            if (found := self._kept.source(key)) is not None:
                return found
            with self._kept.holding([key]), self._kept.log(key) as log:
                half = self._kept.half(key)
                self._kept.check_disk(wanted.bytes - _bytes_in(half))

                def told(done: float, detail: str) -> None:
                    say(f"fetch {place}", done, detail)

                try:
                    await self._fetching.fetch(far, wanted.small, half, log, lambda _done, what: told(0.0, what))
                    if what == CHECKPOINT:
                        source.refuse_unusable(half)
                    await self._fetching.fetch(far, wanted.weights, half, log, told)
                    made = await self._in_thread(_inspected, half, what)
                except SourceError as error:
                    raise SourceError(str(error).replace(str(half), str(place))) from error
                _refuse_other_bytes(made, wanted, place)
                return self._kept.put(key, made, origin=str(at), requantised=False)

    async def _sha256_of_gguf(self, path: Path) -> str:
        """Of a file that may be read. Raises SourceError."""

        def read() -> str:
            if not path.is_file():
                raise SourceError(f"{path}: there is no such file")
            rules.check_contents({path.name: path})
            return self._hashes.of(path)

        try:
            return await self._reading_files(read)
        except ArtifactUnsafe as error:
            raise SourceError(f"{path}: {error}") from error

    # What all of this needs

    def _covering(self, asked: Asked) -> None:
        if not asked.credentials:
            return
        named = self._credentials.get(asked.credentials)
        if named is None:
            known = ", ".join(sorted(self._credentials)) or "none"
            raise SourceRefused(
                "credentials", f"{asked.credentials!r}: the controller's settings have {known}; see [credentials]"
            )
        if not any(place is not None and named.covers(place) for place in (asked.source, asked.adapter)):
            raise SourceRefused(
                "credentials",
                f"{asked.credentials!r} is for {', '.join(named.scopes)} only, by `for` in the controller's settings",
            )

    def _far(self, place: Hub | Objects, asked: Asked) -> Far:
        named = self._credentials.get(asked.credentials)
        return Far(place, named if named is not None and named.covers(place) else None)

    async def _reading_files(self, read: Callable[[], T]) -> T:
        """In a thread, one at a time: the digests remembered are not for many. Not ended by who waits for it."""

        async def alone() -> T:
            async with self._reading:
                return await asyncio.to_thread(read)

        return await asyncio.shield(asyncio.ensure_future(alone()))

    @staticmethod
    async def _in_thread(work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.to_thread(work, *arguments)


def _far_key(place: Hub | Objects, what: str, listed: Listing | None) -> str:
    if isinstance(place, Hub):
        commit = place.commit or (listed.commit if listed else "")
        return key_of({"hub": place.repository, "commit": commit, "what": what})
    assert listed is not None
    return key_of({"objects": str(place), "what": what, "files": listing.choose(listed, what).marks})


def _known(key: str, found: Source) -> Known:
    return Known(key, found.digest, found.bytes, found.facts, found.origin, found.requantised)


def _inspected(folder: Path, what: str) -> Source:
    return adapter.inspect(folder) if what == ADAPTER else source.inspect(folder)


def _refuse_misfit(change: Source, base: Source) -> None:
    try:
        adapter.refuse_misfit(change, base)
    except SourceError as error:
        raise SourceRefused("adapter", str(error)) from error


def _refuse_other_bytes(made: Source, wanted: Wanted, place: Hub | Objects) -> None:
    listed = {file.path: file.sha256 for file in wanted.files if file.sha256}
    for file in made.files:
        if listed.get(file.path, file.sha256) != file.sha256:
            file.place.unlink(missing_ok=True)
            raise SourceError(f"{place}: {file.path}: other bytes than are listed; apply again fetches it anew")


def _bytes_in(folder: Path) -> int:
    return sum(entry.stat().st_size for entry in folder.iterdir() if entry.is_file())
