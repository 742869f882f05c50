"""Devices on a terminal: all of them in one table, and one of them on a page. Values in, printable things out."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.cli import printing


def listed(answer: operator_pb2.StatusResponse) -> RenderableType:
    """What each device is, as it says itself; below it whom changes leave alone, and what confines no engine. Columns
    that would be empty are left out, so that the rest fits a narrow terminal."""
    columns = ["device", "seen", "hardware", "runtimes", "memory", "disk free", "agent"]
    labelled = any(view.labels for view in answer.devices)
    table = printing.table(f"fleet {answer.fleet}", *columns, *["labels"] * labelled)
    for view in answer.devices:
        inventory = view.inventory
        cells = [
            view.device,
            _seen(view),
            _accelerators(inventory) or "–",
            ", ".join(inventory.runtimes) or "–",
            printing.size(inventory.memory_bytes) if inventory.os else "–",
            printing.size(inventory.disk_free_bytes) if inventory.os else "–",
            inventory.agent_version or "–",
        ]
        table.add_row(*cells, *[printing.pairs(view.labels, "\n")] * labelled)
    if not answer.devices:
        return Text(f"fleet {answer.fleet}: no device; `edgewright enroll create --device ID` lets one in")
    return Group(table, *_set_apart(answer), *_unconfined(answer))


def shown(answer: operator_pb2.ShowDeviceResponse) -> RenderableType:
    """All that is known of a device, and below it what it was to have, the newest first."""
    view = answer.device
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    for name, value in _facts(answer):
        if value:
            facts.add_row(f"  {name}", value)
    link = "online" if view.online else f"heard of {printing.ago(view.seen_s_ago)}"
    return Group(Text(f"{view.device}, {link}", "bold"), facts, *_generations(answer))


def _facts(answer: operator_pb2.ShowDeviceResponse) -> Iterator[tuple[str, str]]:
    view, inventory, status = answer.device, answer.device.inventory, answer.device.status
    if inventory.os:
        yield "system", f"{inventory.os}, {inventory.cores} × {inventory.cpu}"
        memory, disk = printing.size(inventory.memory_bytes), printing.size(inventory.disk_free_bytes)
        yield "room", f"{memory} of memory, {disk} of disk free"
    yield "accelerators", _accelerators(inventory)
    yield "runtimes", ", ".join(inventory.runtimes)
    if inventory.agent_version:
        yield "agent", f"{inventory.agent_version}, Python {inventory.python_version}"
    yield "labels", printing.pairs(view.labels)
    if view.cordoned:
        yield "cordoned", f"by {view.cordoned}; to end that: edgewright devices uncordon {view.device}"
    if status.downloads_paused:
        yield "download", f"paused on request; to end that: edgewright devices resume {view.device}"
    elif status.total_bytes:
        done = f"{printing.size(status.done_bytes)} of {printing.size(status.total_bytes)}"
        pace = f"{printing.size(status.bytes_per_s)}/s" if status.bytes_per_s else ""
        yield "download", ", ".join(filter(None, [done, pace, printing.left(status)]))
    if view.desired_generation:
        wanted = f"{view.model} for {view.profile}, {view.desired_release[:12]}" if view.desired_release else "nothing"
        yield "should serve", f"{wanted}, generation {view.desired_generation}"
    if status.active_release:
        rate = view.telemetry.decode_tokens_per_s
        speed = f", {rate:.1f} tokens/s" if rate else ""
        yield "serves", f"{status.active_model}, {status.active_release[:12]}{speed}"
    if status.engine:
        yield "engine", f"{status.engine} on {status.accelerator} at {status.endpoint}"
    yield "state", printing.state(view)
    yield "why", printing.why(view)
    yield "not confined", ", ".join(status.unconfined)
    yield "damaged", "; ".join(status.damaged)
    yield "rollouts", ", ".join(answer.rollouts)


def _generations(answer: operator_pb2.ShowDeviceResponse) -> list[RenderableType]:
    if not answer.generations:
        return [Text("  it was never given anything; an apply whose manifest names it does that")]
    table = printing.table(None, "generation", "release", "since", "outcome", "given by")
    for one in answer.generations:
        outcome = agent_pb2.Outcome.Name(one.outcome).removeprefix("OUTCOME_").lower().replace("_", " ")
        known = one.outcome != agent_pb2.OUTCOME_UNSPECIFIED
        table.add_row(
            str(one.generation),
            printing.short(one.release),
            printing.moment(one.since_unix_ms),
            outcome if known else "–",
            one.reason or "–",
        )
    return [Text(), table]


def _accelerators(inventory: agent_pb2.Inventory) -> str:
    return ", ".join(f"{one.kind} {one.name}".strip() for one in inventory.accelerators)


def _seen(view: operator_pb2.DeviceView) -> str:
    return printing.ago(view.seen_s_ago) if view.enrolled else "not enrolled"


def _set_apart(answer: operator_pb2.StatusResponse) -> list[Text]:
    """Who takes no part in changes, and why."""
    lines = []
    for view in answer.devices:
        if view.revoked or view.decommissioned:
            lines.append(Text(f"{view.device}: {printing.why(view)}", "yellow"))
        if view.cordoned:
            lines.append(Text(f"{view.device}: cordoned by {view.cordoned}", "yellow"))
    return lines


def _unconfined(answer: operator_pb2.StatusResponse) -> list[Text]:
    """One line for all devices that lack the same."""
    devices: dict[tuple[str, ...], list[str]] = {}
    for view in answer.devices:
        if view.status.unconfined:
            devices.setdefault(tuple(view.status.unconfined), []).append(view.device)
    return [
        Text(f"{', '.join(names)}: nothing confines the engine in: {', '.join(lacking)}", "yellow")
        for lacking, names in devices.items()
    ]
