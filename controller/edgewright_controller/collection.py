"""What the controller may remove from its disk, and why. Pure.

An artifact is kept for as long as somebody needs it (`ledger.needs` says who), and whatever belongs to it with it:
its two documents, what its blocks are against other artifacts, the source that it was built from. All that goes can be
had again: an apply builds or fetches it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

# What belongs to nothing may be about to: its artifact is entered when its build ends.
UNCLAIMED_MS: Final = 3_600_000


class Kind(Enum):
    """What is on the disk."""

    ARTIFACT = "artifact"
    DOCUMENT = "document"
    DIFFERENCES = "differences"
    SOURCE = "source"
    INTERMEDIATE = "intermediate"

    @property
    def in_store(self) -> bool:
        """Whether it counts against the store's quota; the others have budgets of their own."""
        return self in (Kind.ARTIFACT, Kind.DOCUMENT, Kind.DIFFERENCES)


@dataclass(frozen=True)
class Thing:
    """One thing on the disk: `size` in bytes, `used_ms` when it was made or used last (Unix milliseconds). `of`: the
    artifacts that it belongs to. `what` is for people. `pinned`: a record of what was, which stays."""

    kind: Kind
    name: str
    size: int
    used_ms: int
    of: frozenset[str] = frozenset()
    what: str = ""
    pinned: bool = False


@dataclass(frozen=True)
class Going:
    """A thing that may go, and why."""

    thing: Thing
    why: str


@dataclass(frozen=True)
class Decision:
    """What goes, the longest unused first, artifacts before what belongs to them. `store_bytes`: of the store before;
    `left_bytes`: after."""

    going: tuple[Going, ...]
    store_bytes: int
    left_bytes: int

    @property
    def size(self) -> int:
        """Bytes of all that goes."""
        return sum(one.thing.size for one in self.going)

    def names(self, kind: Kind) -> list[str]:
        """What goes of one kind."""
        return [one.thing.name for one in self.going if one.thing.kind is kind]


def decide(things: Collection[Thing], needed: Collection[str], *, now_ms: int, least_age_ms: int) -> Decision:
    """All that nobody needs and nobody used for `least_age_ms`. `needed`: the artifacts that somebody needs."""
    loose = _loose(things, needed, now_ms, least_age_ms)
    going = [Going(one, _WHY[one.kind]) for one in loose]
    kept = {one.name for one in things if one.kind is Kind.ARTIFACT} - {one.name for one in loose}
    return _decision(things, going + _beside(things, kept | set(needed), now_ms, least_age_ms))


def within(things: Collection[Thing], needed: Collection[str], *, now_ms: int, quota_bytes: int) -> Decision:
    """The longest unused of what nobody needs, no more than brings the store within its quota, if that does."""
    stored = [one for one in things if one.kind.in_store]
    total = sum(one.size for one in stored)
    loose, chosen = _loose(stored, needed, now_ms, 0), 0
    decision = _decision(stored, [])
    while total > quota_bytes and decision.left_bytes > quota_bytes and chosen < len(loose):
        chosen += 1
        gone = {one.name for one in loose[:chosen]}
        kept = {one.name for one in stored if one.kind is Kind.ARTIFACT} - gone
        going = [Going(one, _WHY[one.kind]) for one in loose[:chosen]]
        decision = _decision(stored, going + _beside(stored, kept | set(needed), now_ms, UNCLAIMED_MS))
    return decision


_WHY: Final[Mapping[Kind, str]] = {
    Kind.ARTIFACT: "nobody has it, should have it, or would go back to it",
    Kind.DOCUMENT: "describes an artifact that goes or is gone",
    Kind.DIFFERENCES: "is between artifacts of which one goes or is gone",
    Kind.SOURCE: "nothing that is kept was built from it; it is fetched or made again when needed",
    Kind.INTERMEDIATE: "no build used it lately; it is made again when needed",
}


def _loose(things: Iterable[Thing], needed: Collection[str], now_ms: int, least_age_ms: int) -> list[Thing]:
    """The artifacts that nobody needs, the longest unused first. One that nothing is known of may just be built."""
    found = [
        one
        for one in things
        if one.kind is Kind.ARTIFACT
        and one.name not in needed
        and now_ms - one.used_ms >= (least_age_ms if one.what else max(least_age_ms, UNCLAIMED_MS))
    ]
    return sorted(found, key=lambda one: (one.used_ms, one.name))


def _beside(things: Iterable[Thing], kept: Collection[str], now_ms: int, least_age_ms: int) -> list[Going]:
    """What belongs to no artifact that is kept."""
    going = []
    for one in sorted(things, key=lambda one: (one.used_ms, one.name)):
        if one.kind is Kind.ARTIFACT or one.pinned or _claimed(one, kept):
            continue
        claimless = one.kind is Kind.DOCUMENT and not one.of
        # Documents and differences follow their artifacts at once; the rest is worth its room for a while.
        least = max(least_age_ms, UNCLAIMED_MS) if claimless else least_age_ms
        if one.of and one.kind in (Kind.DOCUMENT, Kind.DIFFERENCES):
            least = 0
        if now_ms - one.used_ms >= least:
            going.append(Going(one, "belongs to nothing" if claimless else _WHY[one.kind]))
    return going


def _claimed(thing: Thing, kept: Collection[str]) -> bool:
    if thing.kind is Kind.DIFFERENCES:
        return all(artifact in kept for artifact in thing.of)
    return any(artifact in kept for artifact in thing.of)


def _decision(things: Iterable[Thing], going: list[Going]) -> Decision:
    store = sum(one.size for one in things if one.kind.in_store)
    gone = sum(one.thing.size for one in going if one.thing.kind.in_store)
    return Decision(tuple(going), store, store - gone)
