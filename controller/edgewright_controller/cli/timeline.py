"""What a rollout's history says of each device over time. Values in, values out; times are seconds since it began."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli.device_signs import BAD

# States of the rollout in which no device is offered anything until something else happens, and what to call that.
_STILL: Final = {"paused": "paused", "approval": "waits for approval", "waiting": "watched"}
_ENDS: Final = frozenset({"succeeded", "failed", "aborted", "superseded"})


# How much of the time is added after the end.
TAIL: Final = 0.02


@dataclass(frozen=True)
class Span:
    """A device was in `state` from `start` to `end`."""

    state: str
    start: float
    end: float


@dataclass(frozen=True)
class Row:
    """One device. `failed_at`: when it failed or fell silent, None when that is not how it stands."""

    device: str
    spans: tuple[Span, ...]
    failed_at: float | None


@dataclass(frozen=True)
class Band:
    """The devices of one wave. `title` names it, `count` says how many they are."""

    title: str
    count: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Mark:
    """Something that happened to the rollout at `at`; `bad` when it went wrong."""

    label: str
    at: float
    bad: bool = False


@dataclass(frozen=True)
class Timeline:
    """All of it, from 0 to `end`, which is a little later than what happened last, so that this is seen."""

    bands: tuple[Band, ...]
    marks: tuple[Mark, ...]
    pauses: tuple[Span, ...]
    end: float


def timeline(shown: operator_pb2.ShowRolloutResponse) -> Timeline:
    """What `shown` says over time. A clock that was set back moves nothing: what came later is drawn no earlier."""
    began = shown.rollout.created_unix_ms / 1000
    of: dict[str, list[tuple[float, str, str]]] = {}
    at = 0.0
    for change in shown.changes:
        at = max(at, change.at_unix_ms / 1000 - began)
        of.setdefault(change.device, []).append((at, change.state, change.reason))
    until = (shown.rollout.ended_unix_ms or shown.rollout.now_unix_ms) / 1000 - began
    end = max(at, until, 1.0) * (1 + TAIL)
    rows: dict[int, list[Row]] = {}
    for device in shown.devices:
        rows.setdefault(device.wave, []).append(_row(device.device, of.get(device.device, ()), end))
    whats = {wave.number: wave.what for wave in shown.waves}
    bands = [Band(_title(number, whats), _count(rows[number]), tuple(rows[number])) for number in sorted(rows)]
    own = of.get("", ())
    return Timeline(tuple(bands), tuple(_marks(own)), tuple(_pauses(own, end)), end)


def _title(number: int, whats: Mapping[int, str]) -> str:
    what = whats.get(number, "")
    # A plain number is that of the devices, which stands there anyway.
    return f"wave {number}" if not what or what.isdigit() else f"wave {number}: {what}"


def _count(rows: Sequence[Row]) -> str:
    return "1 device" if len(rows) == 1 else f"{len(rows)} devices"


def _row(device: str, changes: Iterable[tuple[float, str, str]], end: float) -> Row:
    spans: list[Span] = []
    state, since = "waiting", 0.0
    for at, after, _ in changes:
        if after == state:
            continue
        if at > since:
            spans.append(Span(state, since, at))
        state, since = after, at
    failed_at = since if state in BAD else None
    spans.append(Span(state, since, max(end, since)))
    return Row(device, tuple(spans), failed_at)


def _marks(changes: Iterable[tuple[float, str, str]]) -> Iterable[Mark]:
    before = "waiting"
    for at, state, reason in changes:
        if state in _ENDS:
            yield Mark(state, at, bad=state != "succeeded")
        elif state == "reverting" and before != state:
            yield Mark("reverting", at, bad=True)
        elif state == "running":
            yield _went_on(before, at, reason)
        elif state == "paused":
            # Where a pause was planned, the reason says what came before it.
            yield Mark(reason.partition(":")[0] if reason.startswith(state) else state, at)
        elif state == "approval":
            yield Mark("waits for approval", at)
        before = state


def _went_on(before: str, at: float, reason: str) -> Mark:
    """What a rollout that runs began to do. Where somebody let it go on and that opened a wave, both are one change."""
    wave, _, retried = reason.partition(", ")
    if reason.startswith("wave "):
        wave = wave.partition(" of ")[0]
        said = _LET_GO_ON.get(before, "")
        return Mark(retried.partition(":")[0] or f"{said}{wave}", at)
    if before == "running":
        return Mark("stopped", at, bad=True)
    return Mark(reason.partition(":")[0], at)


_LET_GO_ON: Final = {"paused": "resumed, ", "approval": "approved, "}


def _pauses(changes: Sequence[tuple[float, str, str]], end: float) -> Iterable[Span]:
    """When the rollout stood still on purpose, with what to call that as its state."""
    for (at, state, _), (after, _, _) in itertools.pairwise([*changes, (end, "", "")]):
        if state in _STILL and after > at:
            yield Span(_STILL[state], at, after)
