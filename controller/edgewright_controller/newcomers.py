"""Which newcomers get their release by themselves. Pure.

A newcomer is a device that was never given anything, and for which the manifest that was applied last has a release. It
gets that one without anybody's doing, but only when others have it and it did well there: a newcomer is no canary
(docs/decisions/0017).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from edgewright_controller.rollout import RolloutPhase

_BAD = frozenset((RolloutPhase.FAILED, RolloutPhase.ABORTED))


@dataclass(frozen=True)
class Newcomer:
    """A device, and the digest of its release. `hindrance`: what stands in the way on its own part, empty: nothing."""

    device: str
    release: str
    hindrance: str = ""


@dataclass(frozen=True)
class Record:
    """How a release has done. `succeeded_on` so many devices; `ended`: how its rollouts did, those of newcomers aside;
    `going_out`: the rollout that hands it out now; `rolled_back`: it is refused everywhere."""

    succeeded_on: int = 0
    ended: frozenset[RolloutPhase] = frozenset()
    going_out: str = ""
    rolled_back: bool = False


@dataclass(frozen=True)
class Decision:
    """Who gets what: devices by release. And who waits, with the reason."""

    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)


def decide(newcomers: Iterable[Newcomer], records: Mapping[str, Record]) -> Decision:
    """What becomes of each newcomer. `records` is by release; one that is not in it was given to nobody yet."""
    given: dict[str, list[str]] = {}
    waiting: dict[str, str] = {}
    for newcomer in newcomers:
        why = newcomer.hindrance or _hindrance(newcomer.release, records.get(newcomer.release, Record()))
        if why:
            waiting[newcomer.device] = why
        else:
            given.setdefault(newcomer.release, []).append(newcomer.device)
    return Decision({release: tuple(devices) for release, devices in given.items()}, waiting)


def _hindrance(release: str, record: Record) -> str:
    what = f"release {release[:12]}"
    if record.rolled_back:
        return f"{what} was rolled back"
    if record.going_out:
        return f"{record.going_out} is handing {what} out; its turn comes when that has ended"
    if RolloutPhase.SUCCEEDED in record.ended:
        return ""
    if bad := sorted(phase.value for phase in record.ended & _BAD):
        return f"no rollout of {what} has succeeded, one has {bad[0]}"
    return "" if record.succeeded_on else f"{what} has not worked on any other device yet"
