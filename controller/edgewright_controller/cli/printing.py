"""The controller's answers as text and tables. Values in, printable things out."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from rich import box
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from edgewright_contract.v1 import agent_pb2, operator_pb2, telemetry_pb2
from edgewright_controller.span import span

_KINDS = {
    operator_pb2.PlannedChange.KIND_NONE: ("=", "dim", "no change"),
    operator_pb2.PlannedChange.KIND_INSTALL: ("+", "green", "install"),
    operator_pb2.PlannedChange.KIND_UPDATE: ("~", "yellow", "update"),
    operator_pb2.PlannedChange.KIND_REMOVE: ("-", "red", "remove"),
    operator_pb2.PlannedChange.KIND_HELD: ("!", "red", "held"),
    operator_pb2.PlannedChange.KIND_UNENROLLED: ("?", "magenta", "not enrolled"),
    operator_pb2.PlannedChange.KIND_CORDONED: ("|", "magenta", "cordoned"),
}
# What is typed in again, or read as one thing.
_WHOLE = frozenset(
    (
        *("device", "desired", "active", "rollout", "state", "release", "began", "since", "by", "seen"),
        *("memory", "disk free", "agent", "labels"),
    )
)


def out() -> Console:
    """Standard output; wide enough for a table when it is not a terminal."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def json_line(message: Message) -> None:
    """One JSON document on one line, with the names of the protobuf fields, in a fixed order; zeros are there too."""
    document = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    sys.stdout.write(json.dumps(document, sort_keys=True) + "\n")
    sys.stdout.flush()


def json_document(document: Mapping[str, Any]) -> None:
    """One JSON document on one line, of what no message holds."""
    sys.stdout.write(json.dumps(document, sort_keys=True) + "\n")
    sys.stdout.flush()


def short(digest: str) -> str:
    """The beginning of a digest, enough for a person."""
    return digest[:12] or "–"


def size(count: int) -> str:
    """Bytes in a unit that fits."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count} B"


def ago(seconds: float) -> str:
    """How long ago, "never" for a negative number."""
    if seconds < 0:
        return "never"
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= factor:
            return f"{seconds / factor:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def moment(unix_ms: int) -> str:
    """A point in time by this machine's clock, to the minute; "–" for 0."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(unix_ms / 1000)) if unix_ms else "–"


def second(unix_ms: int) -> str:
    """A point in time by this machine's clock, to the second."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(unix_ms / 1000))


def duration(seconds: float) -> str:
    """A length of time in the units in which manifests have it: "15 min", "1 h 30 min", "7 d"."""
    left, parts = round(seconds), []
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, factor)
        if number:
            parts.append(f"{number} {unit}")
    return " ".join(parts[:2]) or "0 s"


def count(number: int, noun: str) -> str:
    """A number of things: "1 device", "3 devices"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def pairs(labels: Mapping[str, str], between: str = ", ") -> str:
    """Labels in the order of their names."""
    return between.join(f"{name}={value}" for name, value in sorted(labels.items()))


def plan(answer: operator_pb2.PlanResponse) -> RenderableType:
    """Builds, changes and misfits, in the manner of a difference."""
    lines: list[RenderableType] = []
    for source in answer.sources:
        extent = f": {size(source.fetch_bytes)} to fetch" if source.fetch_bytes else ""
        lines.append(Text("  + ", "green") + Text(f"source of {source.model}: {', '.join(source.steps)}{extent}"))
    for build in answer.builds:
        mark = Text("  = ", "dim") if build.cached else Text("  + ", "green")
        what = f"{build.model} as {build.runtime} {build.quantization} for {', '.join(build.profiles)}"
        extent = f"about {size(build.estimated_bytes)}" if build.estimated_bytes else "size not known yet"
        lines.append(mark + Text(f"build {what}: {'cached' if build.cached else extent}"))
    lines += [search(found) for found in answer.searches]
    for change in answer.changes:
        sign, style, words = _KINDS.get(change.kind, ("?", "", "unknown"))
        text = f"{change.device}: {words}"
        if change.kind not in (operator_pb2.PlannedChange.KIND_NONE, operator_pb2.PlannedChange.KIND_UNENROLLED):
            after = short(change.to_release) if change.to_release else "known after the build"
            text += f" {change.model} for {change.profile}: {short(change.from_release)} → {after}"
        if change.note:
            text += f" ({change.note})"
        lines.append(Text(f"  {sign} ", style) + Text(text))
    lines += [Text(f"  {_wave(wave)}") for wave in answer.waves]
    lines += [Text(f"  ✗ {misfit.message or misfit.device}", "bold red") for misfit in answer.misfits]
    lines += [Text(f"  warning: {warning}", "yellow") for warning in answer.warnings]
    made = sum(not build.cached for build in answer.builds)
    kinds = operator_pb2.PlannedChange
    changed = sum(
        change.kind in (kinds.KIND_INSTALL, kinds.KIND_UPDATE, kinds.KIND_REMOVE) for change in answer.changes
    )
    held = sum(change.kind == kinds.KIND_HELD for change in answer.changes)
    devices = "1 device changes" if changed == 1 else f"{changed} devices change"
    lines.append(Text(f"{made} to build, {len(answer.builds) - made} cached; {devices}."))
    if held or answer.misfits:
        why = " and ".join(
            [f"{held} held"] * bool(held) + [f"{len(answer.misfits)} without room"] * bool(answer.misfits)
        )
        lines.append(Text(f"An apply would be refused: {why}.", "bold red"))
    return Group(*lines)


_STANDING: Final = {"passed": "green", "refused": "red", "does not fit": "yellow", "not tried": "dim"}


def search(found: operator_pb2.RecipeSearch) -> RenderableType:
    """What was tried for `quantization = "auto"`, the smallest first, and what became of it."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("recipe", "size", "memory", "KL", "", ""):
        table.add_column(name, justify="right" if name in ("size", "memory", "KL") else "left", no_wrap=True)
    for row in found.tried:
        chosen = bool(found.chosen) and row.recipe == found.chosen
        table.add_row(
            Text(row.recipe, "bold" if chosen else ""),
            size(row.artifact_bytes),
            size(row.memory_bytes),
            f"{row.kl:.3g}" if row.HasField("kl") else "–",
            Text("chosen" if chosen else row.standing, _STANDING.get(row.standing, "")),
            row.why,
        )
    end = f"takes {found.chosen}" if found.chosen else "is still to be found by trying"
    return Group(Text(f"  auto: {found.model} for {', '.join(found.profiles)} {end}"), Padding(table, (0, 0, 0, 4)))


def _wave(wave: operator_pb2.WaveView) -> str:
    after = [f"watched for {duration(wave.soak_s)}"] * bool(wave.soak_s)
    after += [then] if (then := _THEN.get(wave.then)) else []
    which = f"wave {wave.number}: {count(wave.devices, 'device')} ({wave.what})"
    return ", then ".join([which, *after])


_THEN: Final = {"pause": "paused", "approval": "waits for approval"}


def standing(view: agent_pb2.DeviceStatus) -> str:
    """Where an update stands, in a word or two."""
    step = agent_pb2.Step.Name(view.step).removeprefix("STEP_").lower()
    outcome = agent_pb2.Outcome.Name(view.outcome).removeprefix("OUTCOME_").lower()
    if view.step == agent_pb2.STEP_DOWNLOADING and view.downloads_paused:
        return "download paused"
    if view.step == agent_pb2.STEP_DOWNLOADING and view.total_bytes:
        return f"downloading {100 * view.done_bytes // view.total_bytes} %"
    if view.step not in (agent_pb2.STEP_UNSPECIFIED, agent_pb2.STEP_IDLE):
        return step
    return "–" if view.outcome == agent_pb2.OUTCOME_UNSPECIFIED else outcome


def left(view: agent_pb2.DeviceStatus) -> str:
    """How long the download will take yet, by the device's own account; empty when it cannot say."""
    return f"{span(view.remaining_s)} left" if view.remaining_s else ""


def status(answer: operator_pb2.StatusResponse) -> RenderableType:
    """One row a device, and below it why it is not what it should be; one line a rollout."""
    grid = table(f"fleet {answer.fleet}", "device", "link", "model", "desired", "active", "state", "tokens/s")
    reasons: list[RenderableType] = []
    for view in answer.devices:
        status = view.status
        link = (
            Text("revoked", "red")
            if view.revoked
            else Text("online", "green")
            if view.online
            else Text(ago(view.seen_s_ago), "red")
        )
        differs = view.desired_release != status.active_release
        rate = view.telemetry.decode_tokens_per_s
        grid.add_row(
            view.device,
            link if view.enrolled else Text("not enrolled", "magenta"),
            status.active_model or view.model or "–",
            short(view.desired_release),
            Text(short(status.active_release), "yellow" if differs else ""),
            state(view),
            f"{rate:.1f}" if rate else "–",
        )
        if view.cordoned:
            reasons.append(Text(f"{view.device}: cordoned by {view.cordoned}", "yellow"))
        if reason := why(view):
            reasons.append(Text(f"{view.device}: {reason}", "yellow" if differs else ""))
    lines: list[RenderableType] = [grid, *reasons]
    for rollout in answer.rollouts:
        line = f"{rollout.rollout}: {rollout.state}, wave {rollout.wave} of {rollout.waves}; {by_state(rollout)}"
        lines.append(Text(f"{line}. {rollout.reason}".rstrip()))
    broker = "connected" if answer.broker_connected else "not connected; devices keep their reports until it is"
    lines.append(Text(f"broker {broker}; {answer.telemetry_stored} reports stored"))
    if answer.store_trouble:
        lines.append(Text(answer.store_trouble, "yellow"))
    return Group(*lines)


def state(view: operator_pb2.DeviceView) -> str:
    """Where a device stands, in a word."""
    if view.status.generation < view.desired_generation:
        return "behind"
    if view.status.generation > view.desired_generation:
        return "ahead"
    return ", ".join(filter(None, [standing(view.status), left(view.status)]))


def why(view: operator_pb2.DeviceView) -> str:
    """Why a device is not what it should be, or what it said last of itself; empty: nothing to say."""
    status = view.status
    if view.decommissioned:
        return f"decommissioned; to let it in again: edgewright enroll create --device {view.device}"
    if view.revoked:
        return f"its certificates are revoked; to let it in again: edgewright enroll create --device {view.device}"
    if status.generation < view.desired_generation:
        return f"has not taken up generation {view.desired_generation} yet; last heard of {ago(view.seen_s_ago)}"
    if status.generation > view.desired_generation:
        return "ahead of the ledger, which came from a backup: apply to take it up; it serves what it has until then"
    return status.reason


def table(title: str | None, *columns: str) -> Table:
    """A table without lines between columns. What is typed in again, names and digests, is never broken."""
    grid = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for column in columns:
        whole = column in _WHOLE
        grid.add_column(column, no_wrap=whole, overflow="ignore" if whole else "fold")
    return grid


def by_state(view: operator_pb2.RolloutView) -> str:
    """How many devices of a rollout stand where."""
    return ", ".join(f"{count} {state}" for state, count in sorted(view.devices_by_state.items()) if count)


def report(event: operator_pb2.TailEvent) -> Text:
    """One report of a device, on one line."""
    envelope = event.envelope
    at = time.strftime("%H:%M:%S", time.localtime(event.received_unix_ms / 1000))
    return Text(f"{at} {envelope.device_id} ", "bold") + Text(_body(envelope))


def _body(envelope: telemetry_pb2.Envelope) -> str:
    kind = envelope.WhichOneof("body")
    if kind == "telemetry":
        one = envelope.telemetry
        rate = f", {one.decode_tokens_per_s:.1f} tokens/s" if one.decode_tokens_per_s else ""
        return (
            f"telemetry: {one.requests} requests, {one.errors} errors, {one.output_tokens} tokens{rate}, "
            f"engine {size(one.engine_rss_bytes)}, cpu {one.cpu_percent:.0f} %"
        )
    if kind == "event":
        name = telemetry_pb2.Event.Kind.Name(envelope.event.kind).removeprefix("KIND_").lower().replace("_", " ")
        return f"event: {name}: {envelope.event.detail}"
    if kind == "update":
        update = envelope.update
        return f"update to generation {update.generation}: {standing(update)}. {update.reason}".rstrip()
    if kind == "birth":
        return f"online: {envelope.birth.engine} on {envelope.birth.accelerator} at {envelope.birth.endpoint}"
    if kind == "death":
        return "offline, " + ("by itself" if envelope.death.graceful else "link lost")
    return "an empty report"
