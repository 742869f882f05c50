"""`edgewright gc`: what nobody needs any more is removed, when an administrator says so or the store is over its quota.

The decision is made inside the ledger's writer, and with it the artifacts are taken out by renames: whatever is entered
before counts, and whatever is entered after sees that they are gone, as `releases` and plans do by themselves. Only
then are bytes freed. A crash in between leaves artifacts that are gone, and remains that the next start or the next
collection removes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select

from edgewright_contract import digest
from edgewright_controller import collection, log
from edgewright_controller.collection import Decision, Kind, Thing
from edgewright_controller.compile.intermediates import Intermediates
from edgewright_controller.compile.sources.kept import Kept
from edgewright_controller.compile.store import ArtifactStore
from edgewright_controller.delivery.packs import Packs
from edgewright_controller.ledger import Ledger, audit, build_cards, needs, tables
from edgewright_controller.service.change import ChangeRefused
from edgewright_controller.service.store_use import StoreBusy, StoreUse
from edgewright_controller.service.unbroken import Unbroken
from edgewright_controller.unix_time import unix_ms

# Between the calls of one download pass seconds; a line that is down for longer has the device ask anew.
SENT_LATELY_S: Final = 600.0
_TOLD: Final = 20

_log = log.of(__name__)


@dataclass(frozen=True)
class Caches:
    """What is kept beside artifacts, and can be made or fetched again."""

    packs: Packs
    sources: Kept
    intermediates: Intermediates


@dataclass(frozen=True)
class _Disk:
    """What was found on the disk, as yet without the artifacts that each thing belongs to."""

    artifacts: tuple[Thing, ...]
    documents: tuple[Thing, ...]
    differences: tuple[Thing, ...]
    sources: tuple[tuple[Thing, str], ...]
    """With each the digest of the source."""
    intermediates: tuple[Thing, ...]


class Collecting:
    """Removes what nobody needs, for one fleet."""

    def __init__(
        self,
        fleet: str,
        ledger: Ledger,
        store: ArtifactStore,
        caches: Caches,
        *,
        quota_bytes: int,
        clock: Callable[[], datetime],
    ) -> None:
        """`quota_bytes`: what the store may hold before `keep_within_quota` collects; 0: no bound."""
        self._fleet, self._ledger, self._store, self._caches = fleet, ledger, store, caches
        self._quota, self._clock = quota_bytes, clock
        self._unbroken = Unbroken()
        self.use = StoreUse()
        """Where changes say that they count on what is there."""
        self.trouble = ""
        """Why the store is above its quota, for the operator; empty when it is not."""

    async def look(self, least_age_s: int) -> Decision:
        """What `collect` would remove now. Raises LedgerError, OSError."""
        disk, now_ms = await self._disk(), unix_ms(self._clock())
        return await self._ledger.read(lambda c: self._decide(c, disk, now_ms, least_age_s))

    async def collect(self, least_age_s: int, *, by: str) -> Decision:
        """Remove what nobody needs, and nobody used for so long; what went. Raises ChangeRefused while a change counts
        on what is built, LedgerError, OSError."""

        def decide(connection: Connection, disk: _Disk, now_ms: int) -> Decision:
            return self._decide(connection, disk, now_ms, least_age_s)

        return await self._unbroken.finish(self._collect(f"operator {by}", decide))

    async def keep_within_quota(self) -> None:
        """When the store is over its quota, remove the longest unused unneeded. Raises LedgerError, OSError."""
        if not self._quota:
            return
        disk, now_ms = await self._disk(), unix_ms(self._clock())
        found = await self._ledger.read(lambda c: self._within(c, disk, now_ms))
        if found.going:
            try:
                found = await self._unbroken.finish(self._collect("controller", self._within))
            except ChangeRefused as error:
                self._say(found.store_bytes, str(error))
                return
        self._say(found.left_bytes, "all that is left is needed, or a device fetches it")

    def _say(self, store_bytes: int, why: str) -> None:
        """Keep, and log when it is news, that the store is above its quota."""
        over = store_bytes > self._quota
        said = f"the store has {store_bytes:,} bytes, its quota is {self._quota:,}: {why}" if over else ""
        if said and not self.trouble:
            _log.warning("store is over its quota", bytes=store_bytes, quota=self._quota, why=why)
        self.trouble = said

    async def _collect(self, actor: str, decide: Callable[[Connection, _Disk, int], Decision]) -> Decision:
        try:
            async with self.use.collecting():
                disk, now_ms = await self._disk(), unix_ms(self._clock())
                decision = await self._ledger.write(lambda c: self._take(c, actor, decide(c, disk, now_ms), now_ms))
                # Here, so that no build finds half of what it counts on.
                await asyncio.to_thread(self._drop_caches, decision)
        except StoreBusy as error:
            raise ChangeRefused(str(error)) from error
        await asyncio.to_thread(self._caches.packs.drop, decision.names(Kind.DIFFERENCES))
        await asyncio.to_thread(self._store.sweep, decision.names(Kind.DOCUMENT))
        _log.info("collected", actor=actor, things=len(decision.going), bytes=decision.size)
        return decision

    def _take(self, connection: Connection, actor: str, decision: Decision, now_ms: int) -> Decision:
        """Enter what goes, and take the artifacts out. One that cannot be taken stays, with all that belongs to it."""
        left = self._store.retire(decision.names(Kind.ARTIFACT))
        if left:
            _log.error("artifacts cannot be removed", which=sorted(left), why=next(iter(left.values())))
            going = [one for one in decision.going if not ({one.thing.name} | one.thing.of) & left.keys()]
            kept = sum(one.thing.size for one in decision.going if one not in going and one.thing.kind.in_store)
            decision = Decision(tuple(going), decision.store_bytes, decision.left_bytes + kept)
        if decision.going:
            said = {"actor": actor, "action": "store.collect", "subject": self._fleet, "detail": _detail(decision)}
            audit.append(connection, **said, now_ms=now_ms)
        return decision

    def _drop_caches(self, decision: Decision) -> None:
        self._caches.sources.drop(decision.names(Kind.SOURCE))
        self._caches.intermediates.drop(decision.names(Kind.INTERMEDIATE))

    # What there is

    async def _disk(self) -> _Disk:
        # The caches belong to the event loop, and hold few entries.
        sources = [
            (Thing(Kind.SOURCE, known.key, size, used_ms, what=known.origin), known.digest)
            for known, size, used_ms in self._caches.sources.unused()
        ]
        unused = self._caches.intermediates.unused()
        made = [Thing(Kind.INTERMEDIATE, name, size, used_ms) for name, size, used_ms in unused]
        return await asyncio.to_thread(self._found, tuple(sources), tuple(made))

    def _found(self, sources: tuple[tuple[Thing, str], ...], intermediates: tuple[Thing, ...]) -> _Disk:
        store = self._store
        return _Disk(
            tuple(Thing(Kind.ARTIFACT, one.name, one.size, one.made_ms) for one in store.artifacts()),
            tuple(Thing(Kind.DOCUMENT, one.name, one.size, one.made_ms) for one in store.documents()),
            tuple(
                Thing(Kind.DIFFERENCES, one.name, one.size, one.made_ms, _between(one.name))
                for one in store.differences()
            ),
            sources,
            intermediates,
        )

    # What is decided

    def _decide(self, connection: Connection, disk: _Disk, now_ms: int, least_age_s: int) -> Decision:
        things, needed = _things(connection, disk), self._needed(connection, now_ms)
        return collection.decide(things, needed, now_ms=now_ms, least_age_ms=least_age_s * 1000)

    def _within(self, connection: Connection, disk: _Disk, now_ms: int) -> Decision:
        things, needed = _things(connection, disk), self._needed(connection, now_ms)
        return collection.within(things, needed, now_ms=now_ms, quota_bytes=self._quota)

    def _needed(self, connection: Connection, now_ms: int) -> Collection[str]:
        return needs.of_artifacts(connection, now_ms).keys() | self._store.sent_lately(SENT_LATELY_S)


def _things(connection: Connection, disk: _Disk) -> list[Thing]:
    """What is on the disk, with what the ledger knows of it."""
    known, made = _known(connection), _made(connection)
    documents, records, built_from = _documents(connection)
    things = [
        Thing(one.kind, one.name, one.size, max(one.used_ms, made.get(one.name, 0)), what=known.get(one.name, ""))
        for one in disk.artifacts
    ]
    none: frozenset[str] = frozenset()
    for one in disk.documents:
        of = documents.get(one.name, none)
        things.append(Thing(one.kind, one.name, one.size, one.used_ms, of, pinned=one.name in records))
    for one, source in disk.sources:
        things.append(Thing(one.kind, one.name, one.size, one.used_ms, built_from.get(source, none), one.what))
    return [*things, *disk.differences, *disk.intermediates]


def _known(connection: Connection) -> dict[str, str]:
    """What each artifact that the ledger knows is, for people."""
    known = dict.fromkeys(connection.scalars(select(tables.artifacts.c.bundle)), "built, and of no release")
    table = tables.releases
    for row in connection.execute(select(table).order_by(table.c.created_ms)):
        known[row.artifact] = f"{row.model} for {row.profile}, release {row.digest[:12]}"
    return known


def _made(connection: Connection) -> dict[str, int]:
    """When each artifact was built or released last."""
    made: dict[str, int] = {}
    builds, of = tables.builds, tables.releases
    for statement in (select(builds.c.bundle, builds.c.made_ms), select(of.c.artifact, of.c.created_ms)):
        for artifact, at_ms in connection.execute(statement):
            made[artifact] = max(at_ms, made.get(artifact, 0))
    return made


def _documents(connection: Connection) -> tuple[dict[str, frozenset[str]], set[str], dict[str, frozenset[str]]]:
    """Document → the artifacts that it describes; the documents that are records of builds, which stay; the digest of
    a source → the artifacts that were built from it."""
    of: dict[str, set[str]] = {}
    for row in connection.execute(select(tables.artifacts.c.bundle, tables.artifacts.c.block_index)):
        for name in (row.bundle, row.block_index):
            of.setdefault(name, set()).add(row.bundle)
    records, built_from = set(), dict[str, set[str]]()
    for card in build_cards.every(connection).values():
        if card.provenance:
            records.add(card.provenance)
        if card.card is not None:
            records.add(digest.of_bytes(card.card.encode("ascii")))
            if source := _source_of(card.card):
                built_from.setdefault(source, set()).add(card.artifact)
    return _frozen(of), records, _frozen(built_from)


def _source_of(card: str) -> str:
    """The digest of the source that a report card names; empty for a card of another version."""
    try:
        return str(json.loads(card)["origin"]["digest"])
    except (ValueError, KeyError, TypeError):
        return ""


def _frozen(sets: Mapping[str, set[str]]) -> dict[str, frozenset[str]]:
    return {key: frozenset(values) for key, values in sets.items()}


def _between(name: str) -> frozenset[str]:
    """The artifacts that a file of differences, `<wanted>.<base or how>`, is between."""
    return frozenset(part for part in name.split(".") if digest.is_sha256(part))


def _detail(decision: Decision) -> str:
    artifacts = decision.names(Kind.ARTIFACT)
    more = f" and {len(artifacts) - _TOLD} more" if len(artifacts) > _TOLD else ""
    named = ", ".join(name[:12] for name in artifacts[:_TOLD])
    others = len(decision.going) - len(artifacts)
    return f"{decision.size} bytes: {len(artifacts)} artifacts ({named}{more}), {others} other things"
