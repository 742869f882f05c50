"""Rollouts on a terminal: all of them in one table, and one of them on a page. Values in, printable things out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgewright_contract.v1 import operator_pb2
from edgewright_controller.cli import printing

SHOWN: Final = 20

_STYLES: Final = {
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "aborted": "red",
    "paused": "yellow",
    "approval": "yellow",
    "reverting": "yellow",
}
_UNREMARKABLE: Final = ("waiting", "succeeded")


def listed(answer: operator_pb2.ListRolloutsResponse) -> RenderableType:
    """One row a rollout, and below it what needs more than a column: why it is as it is."""
    if not answer.rollouts:
        return Text("no rollout yet; `edgewright apply MANIFEST` begins one")
    table = printing.table(None, "rollout", "began", "by", "what", "state", "wave", "devices")
    reasons = []
    for view in answer.rollouts:
        table.add_row(
            view.rollout,
            printing.moment(view.created_unix_ms),
            view.by,
            view.what,
            Text(view.state, _STYLES.get(view.state, "")),
            f"{view.wave}/{view.waves}",
            printing.by_state(view),
        )
        if view.reason and view.state != "succeeded":
            reasons.append(Text(f"{view.rollout}: {view.reason}"))
    return Group(table, *reasons)


def shown(answer: operator_pb2.ShowRolloutResponse, *, everything: bool = False) -> RenderableType:
    """All of one rollout; of a large one, `everything` also shows the devices and changes that are as one expects."""
    view = answer.rollout
    head = f"{view.rollout}: {view.state}, wave {view.wave} of {view.waves}"
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(answer):
        if value:
            facts.add_row(f"  {name}", value)
    return Group(
        Text(head, f"bold {_STYLES.get(view.state, '')}".strip()),
        facts,
        *_waves(answer),
        *_devices(answer, everything=everything),
        *_history(answer, everything=everything),
    )


def _facts(answer: operator_pb2.ShowRolloutResponse) -> Iterator[tuple[str, str]]:
    view = answer.rollout
    yield "what", view.what
    yield "by", f"{view.by}, {printing.moment(view.created_unix_ms)}"
    yield "why", view.why
    yield "stands", view.reason
    yield "waits for", view.waits_for
    yield "ended", printing.moment(view.ended_unix_ms) if view.ended_unix_ms else ""
    yield "devices", printing.by_state(view)
    yield "policy", "; ".join(_policy(answer.policy))


def _policy(policy: operator_pb2.RolloutPolicyView) -> Iterator[str]:
    percent = f" and more than {policy.max_failed_percent:g} % of those offered it" if policy.max_failed_percent else ""
    many = f"when more than {printing.count(policy.max_failures, 'device')}{percent} failed"
    then = "all go back" if policy.on_failure == "revert" else "whoever has it keeps it"
    yield f"stops {many if policy.max_failures or percent else 'at the first failure'}, and {then}"
    yield f"a device answers within {printing.duration(policy.device_deadline_s)}"
    if policy.patience_s:
        yield f"waits at most {printing.duration(policy.patience_s)} for people and windows"
    if policy.deadline_s:
        yield f"is over within {printing.duration(policy.deadline_s)}"
    if policy.devices_per_minute:
        yield f"{printing.count(policy.devices_per_minute, 'device')} a minute"
    yield from policy.windows


def _waves(answer: operator_pb2.ShowRolloutResponse) -> list[RenderableType]:
    by_wave: dict[int, Counter[str]] = {}
    for device in answer.devices:
        by_wave.setdefault(device.wave, Counter())[device.state] += 1
    table = printing.table(None, "wave", "devices", "chosen by", "soak", "then", "so far")
    for wave in answer.waves:
        so_far = by_wave.get(wave.number, Counter())
        table.add_row(
            str(wave.number),
            str(wave.devices),
            wave.what or "–",
            printing.duration(wave.soak_s) if wave.soak_s else "–",
            wave.then if wave.number < len(answer.waves) or wave.then != "go on" else "end",
            ", ".join(f"{count} {state}" for state, count in sorted(so_far.items())),
        )
    return [Text(), table]


def _devices(answer: operator_pb2.ShowRolloutResponse, *, everything: bool) -> list[RenderableType]:
    """Those under way or in trouble first; with few devices, or `everything`, all."""
    order = sorted(answer.devices, key=lambda one: (one.state in _UNREMARKABLE, one.wave, one.device))
    few = len(order) <= SHOWN
    picked = order if everything or few else [one for one in order if one.state not in _UNREMARKABLE][:SHOWN]
    table = printing.table(None, "device", "wave", "state", "since", "answers in", "release")
    reasons = []
    for one in picked:
        table.add_row(
            one.device,
            str(one.wave),
            Text("elsewhere" if one.detached else one.state, _STYLES.get(one.state, "")),
            printing.moment(one.since_unix_ms),
            printing.duration(one.answers_within_s) if one.answers_within_s else "–",
            printing.short(one.release),
        )
        if one.reason and one.state != "succeeded":
            reasons.append(Text(f"{one.device}: {one.reason}", _STYLES.get(one.state, "")))
    if len(picked) < len(order):
        reasons.append(Text(f"{len(order) - len(picked)} more devices: --all shows them", "dim"))
    return [Text(), table, *reasons]


def _history(answer: operator_pb2.ShowRolloutResponse, *, everything: bool) -> list[RenderableType]:
    """What happened, the oldest first: of a long history the newest."""
    changes = list(answer.changes) if everything else list(answer.changes)[-SHOWN:]
    left_out = len(answer.changes) - len(changes)
    lines = [Text(f"{printing.count(left_out, 'earlier change')}: --all shows them", "dim")] * bool(left_out)
    for one in changes:
        told = one.reason and (one.state != "succeeded" or not one.device)
        said = f": {one.reason}" if told else ""
        lines.append(
            Text(f"{printing.second(one.at_unix_ms)}  {one.device or answer.rollout.rollout} {one.state}{said}")
        )
    return [Text(), *lines] if lines else []
