"""The events of a change as lines of text, for whoever has no terminal. Nothing is said twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from edgewright_contract.v1 import agent_pb2, operator_pb2
from edgewright_controller.cli import printing
from edgewright_controller.cli.device_signs import BAD, ORDER, sign

# Of so many devices that change alike at once, each is named.
NAMED: Final = 5

_IDLE: Final = (agent_pb2.STEP_UNSPECIFIED, agent_pb2.STEP_IDLE)
_STEPS: Final = frozenset(
    agent_pb2.Step.Name(step).removeprefix("STEP_").lower() for step in agent_pb2.Step.values() if step not in _IDLE
)


@dataclass
class Told:
    """What was said last of each thing, and where each device stood."""

    lines: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)


def lines(event: operator_pb2.ApplyEvent, told: Told) -> list[str]:
    """What there is to say about the event; `told` is brought up to date."""
    if event.HasField("devices"):
        return _devices(event.devices, told)
    if event.HasField("device"):
        one = event.device
        return [f"{one.device}: {_stands(one)}"] if _news(one, told) else []
    about, line = _line(event)
    if not line or told.lines.get(about) == line:
        return []
    told.lines[about] = line
    return [line]


def _line(event: operator_pb2.ApplyEvent) -> tuple[str, str]:
    """(what it is about, the line)."""
    kind = event.WhichOneof("event")
    if kind == "build":
        build = event.build
        extent = f", {printing.size(build.artifact_bytes)}" if build.artifact_bytes else ""
        figures = f", {build.detail}" if build.stage == "done" and build.detail else ""
        return (
            build.build_key,
            f"build {build.model} {build.runtime} {build.quantization}: {build.stage}{extent}{figures}",
        )
    if kind == "rollout":
        return "rollout", _rollout(event.rollout)
    if kind == "message":
        return "message", event.message
    return "result", event.result.summary if kind == "result" else ""


def _devices(batch: operator_pb2.DevicesProgress, told: Told) -> list[str]:
    """Those that changed. Of how a rollout stands when one begins to look, only a count, and what went wrong."""
    first = [one for one in batch.devices if one.device not in told.states]
    fresh = {one.device for one in first}
    alike: dict[str, list[str]] = {}
    for device in batch.devices:
        if _news(device, told) and (device.device not in fresh or device.state in BAD):
            alike.setdefault(_stands(device), []).append(device.device)
    said = [_counted(first)] if first else []
    for stands, names in alike.items():
        if len(names) > NAMED:
            said.append(f"{names[0]} and {len(names) - 1} others: {stands}")
        else:
            said += [f"{name}: {stands}" for name in names]
    return said


def _counted(devices: list[operator_pb2.DeviceProgress]) -> str:
    counts = Counter(device.state for device in devices)
    states = sorted(counts, key=lambda state: ORDER.get(state, len(ORDER)))
    total = "1 device" if len(devices) == 1 else f"{len(devices)} devices"
    return f"{total}: " + ", ".join(f"{counts[state]} {sign(state).word}" for state in states)


def _news(device: operator_pb2.DeviceProgress, told: Told) -> bool:
    """Whether there is more to say of it than was said. That it is where it was, without how far, is no news."""
    about, stands, state = f"device {device.device}", _stands(device), device.state
    new = told.lines.get(about) != stands and not (stands == state == told.states.get(device.device))
    if new:
        told.lines[about] = stands
    told.states[device.device] = state
    return new


def _stands(device: operator_pb2.DeviceProgress) -> str:
    """Its state, how far it is, and why. A fraction that grows is no news; nor is a step that stands for a reason."""
    step = printing.standing(device.status).split(" ")[0] if device.state == "updating" else ""
    shown = f" ({step})" if step in _STEPS else ""
    reason = device.reason or device.status.reason
    return f"{device.state}{shown}" + (
        f": {reason}" if reason and reason not in (*_STEPS, "idle", "unspecified") else ""
    )


def _rollout(rollout: operator_pb2.RolloutProgress) -> str:
    wave = f"wave {rollout.wave} of {rollout.waves}"
    line = f"{rollout.rollout}: {rollout.state}, {wave}"
    if rollout.reason not in ("", wave):
        line += f". {rollout.reason}"
    # Somebody is asked: that may not be missed, and it says until when.
    return f"{line}; waits for {rollout.view.waits_for}" if rollout.state in ("paused", "approval") else line
